"""What ``dictalake evaluate`` writes and shows: tables on the terminal, ``scores.json``, Parquet, and one HTML page."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.scoring.assessment import Assessed, assess, describe, describe_groups, read_terms
from pipelines.scoring.normalise import NORMALISERS
from pipelines.scoring.page import render_page, show_transcript
from pipelines.scoring.utterances import Utterance

Assessments = Mapping[str, Mapping[str, Sequence[Assessed]]]  # system → normaliser → recordings
Figures = dict[str, dict[str, dict[str, Any]]]  # system → normaliser → figures
_TERMS = Path(__file__).parents[1] / "pipelines/scoring/terms"
_REFERENCE = "reference"
_SNIPPET_S = 30
_MOST_AUDIO_BYTES = 8_000_000
_RATE_HZ = 16_000

UTTERANCES = pa.schema(
    [
        *((name, pa.string()) for name in ("recording_id", "system", "normaliser", "error_reason", "reference", "hypothesis")),
        *((name, pa.int64()) for name in ("words", "substitutions", "deletions", "insertions")),
        *((name, pa.int64()) for name in ("characters", "character_errors")),
        *((name, pa.int64()) for name in ("negation_errors", "number_errors", "laterality_errors")),
        *((name, pa.int64()) for name in ("terms_said", "terms_heard", "terms_found")),
        ("confidence", pa.float64()),
        ("labels", pa.map_(pa.string(), pa.string())),
    ]
)


def assess_all(scored: Mapping[str, Sequence[Utterance]], normalisers: Sequence[str], terms: Path | None) -> Assessments:
    """Every recording of every system under every normaliser. ``terms``: the user's own list instead of the shipped one."""
    files = [terms] if terms else sorted(_TERMS.glob("*.txt"))
    texts = {file.stem: file.read_text(encoding="utf-8") for file in files}
    of_normaliser = {name: read_terms(texts, NORMALISERS[name]) for name in normalisers}
    return {
        system: {
            name: [assess(utterance, NORMALISERS[name], of_normaliser[name]) for utterance in utterances]
            for name in normalisers
        }
        for system, utterances in scored.items()
    }


def make_figures(assessments: Assessments, by: str | None) -> Figures:
    """The figures of ``scores.json``; each system is compared with the first."""
    first = next(iter(assessments.values()))
    figures: Figures = {}
    for system, of_normaliser in assessments.items():
        figures[system] = {}
        for normaliser, assessed in of_normaliser.items():
            baseline = None if of_normaliser is first else first[normaliser]
            figures[system][normaliser] = describe(assessed, baseline)
            if by is not None:
                figures[system][normaliser]["by"] = {by: describe_groups(assessed, by)}
    return figures


def show_figures(figures: Figures, normaliser: str, by: str | None, console: Console) -> None:
    """One table: systems × groups."""
    table = Table(title=f"word errors, normaliser {normaliser}; 95 % intervals over recordings")
    table.add_column("system")
    if by is not None:
        table.add_column(escape(by))
    for name in ("utterances", "failed", "words", "WER %", "95 %", "CER %", "S", "D", "I"):
        table.add_column(name, justify="right")
    for system, of_normaliser in figures.items():
        total = of_normaliser[normaliser]
        groups = {} if by is None else total["by"][by]
        for group, of_group in groups.items():
            table.add_row(escape(system), escape(group), *_cells(of_group))
        table.add_row(escape(system), *([] if by is None else ["all"]), *_cells(total), end_section=True)
    console.print(table)
    for system, of_normaliser in figures.items():
        if difference := of_normaliser[normaliser].get("difference"):
            console.print(
                f"{system} against {next(iter(figures))}, normaliser {normaliser}: {100 * difference['wer']:+.2f} points "
                f"({100 * difference['wer_low']:+.2f} to {100 * difference['wer_high']:+.2f}), p = {difference['p_value']:.4f}",
                highlight=False,
                soft_wrap=True,
            )


def show_clinical(figures: Figures, normaliser: str, console: Console) -> None:
    """One table: what of the errors may hurt a patient."""
    table = Table(title=f"medical terms, negations, sides and numbers, normaliser {normaliser}")
    table.add_column("system")
    for name in ("term recall %", "precision %", "negations wrong", "sides wrong", "swapped", "numbers wrong"):
        table.add_column(name, justify="right")
    for system, of_normaliser in figures.items():
        of = of_normaliser[normaliser]
        wrong = [f"{of[f'{name}_errors']} of {of[said]}" for name, said in _KINDS.items()]
        cells = [*map(_percent, (of["term_recall"], of["term_precision"])), *wrong]
        table.add_row(escape(system), *cells[:4], str(of["laterality_swapped"]), cells[4])
    console.print(table)


_KINDS = {"negation": "negations", "laterality": "sides", "number": "numbers"}


def write_report(
    out: Path,
    figures: Figures,
    assessments: Assessments,
    reasons: Mapping[str, Mapping[str, str | None]],
    worst: int,
    find_audio: Callable[[str], Any] | None,
) -> None:
    """Writes the three files into the folder ``out``, for its owner's eyes. ``reasons``: system → recording → why it failed.
    ``find_audio`` gives a recording's first channel, int16 at 16 kHz.
    """
    out.mkdir(parents=True, exist_ok=True)
    _write_private(out / "scores.json", json.dumps({"systems": figures}, indent=1) + "\n")
    os.close(os.open(out / "utterances.parquet", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    pq.write_table(make_rows(assessments, reasons), out / "utterances.parquet")
    normaliser = next(iter(next(iter(assessments.values()))))
    shown = []
    sound: dict[str, str | None] = {}
    for system, of_normaliser in assessments.items():
        wrong = [one for one in of_normaliser[normaliser] if one.word_errors]
        for one in sorted(wrong, key=lambda one: (-one.errors.rate, one.utterance.recording_id))[:worst]:
            recording_id = one.utterance.recording_id
            if recording_id not in sound:
                room = _MOST_AUDIO_BYTES - sum(len(uri) for uri in sound.values() if uri)
                sound[recording_id] = encode_snippet(find_audio(recording_id), room) if find_audio else None
            shown.append(show_transcript(one, system, sound[recording_id]))
    notes = [f"{len(next(iter(assessments.values()))[normaliser])} recordings; worst transcripts under {normaliser}."]
    _write_private(out / "report.html", render_page(figures, shown, notes))


def encode_snippet(waveform: Any, room: int) -> str | None:
    """The first half minute as a data URI (FLAC); None where there is no waveform, or no room for it on the page."""
    if waveform is None:
        return None
    out = io.BytesIO()
    soundfile.write(out, waveform[: _SNIPPET_S * _RATE_HZ], _RATE_HZ, format="FLAC", subtype="PCM_16")
    uri = "data:audio/flac;base64," + base64.b64encode(out.getvalue()).decode()
    return uri if len(uri) <= room else None


def make_rows(assessments: Assessments, reasons: Mapping[str, Mapping[str, str | None]]) -> pa.Table:
    """One row for each recording, system and normaliser: texts as they were scored, and the counts."""
    rows = []
    for system, of_normaliser in assessments.items():
        for normaliser, assessed in of_normaliser.items():
            rows += [_row(system, normaliser, one, reasons[system].get(one.utterance.recording_id)) for one in assessed]
    rows.sort(key=lambda row: (list(assessments).index(row["system"]), row["recording_id"]))
    return pa.Table.from_pylist(rows, schema=UTTERANCES)


def _row(system: str, normaliser: str, one: Assessed, reason: str | None) -> dict[str, Any]:
    return {
        "recording_id": one.utterance.recording_id,
        "system": system,
        "normaliser": normaliser,
        "error_reason": reason,
        "reference": one.reference,
        "hypothesis": one.hypothesis,
        "words": one.errors.words,
        **{name: getattr(one.errors, name) for name in ("substitutions", "deletions", "insertions")},
        "characters": one.characters,
        "character_errors": one.character_errors,
        **{name: getattr(one.clinical, name) for name in ("negation_errors", "number_errors", "laterality_errors")},
        **{f"terms_{name}": sum(getattr(count, name) for count in one.terms.values()) for name in ("said", "heard", "found")},
        "confidence": one.utterance.confidence,
        "labels": [(key, value) for key, value in one.utterance.labels.items() if key != _REFERENCE],
    }


def _write_private(path: Path, text: str) -> None:
    """Only its owner may read it: it holds what the archive holds."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _cells(of: Mapping[str, Any]) -> list[str]:
    counts = [str(of[name]) for name in ("substitutions", "deletions", "insertions")]
    interval = "–" if of["wer_low"] is None else f"{100 * of['wer_low']:.2f}–{100 * of['wer_high']:.2f}"
    heading = [str(of["utterances"]), str(of["failed"] or ""), str(of["reference_words"])]
    return [*heading, _percent(of["wer"]), interval, _percent(of["cer"]), *counts]


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.2f}"
