"""The output of ``dictalake evaluate``: tables on the terminal, ``scores.json``, Parquet, and one HTML page."""

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

from dictalake.errors import ConfigError
from dictalake.evaluation.assessment import Assessed, assess, count_entities, describe, describe_groups, read_terms
from dictalake.evaluation.clinical import count_terms
from dictalake.evaluation.evaluation_page import (
    AlignedWord,
    Shown,
    Snippet,
    compare_words,
    find_worst_passage,
    rank_terms,
    render_page,
    show_mistakes,
    show_transcript,
)
from dictalake.evaluation.normalise import NORMALISERS
from dictalake.evaluation.utterances import Utterance
from dictalake.html import write_private

Assessments = Mapping[str, Mapping[str, Sequence[Assessed]]]  # system → normaliser → recordings
Figures = dict[str, dict[str, dict[str, Any]]]  # system → normaliser → figures
_TERMS = Path(__file__).parent / "terms"
_REFERENCE = "reference"
_SNIPPET_S = 30
_MOST_AUDIO_BYTES = 8_000_000
_MOST_TERMS = 20
_FEW = 30
_RATE_HZ = 16_000

UTTERANCES = pa.schema(
    [
        *((name, pa.string()) for name in ("recording_id", "system", "normaliser", "error_reason", "reference", "hypothesis")),
        *((name, pa.int64()) for name in ("words", "substitutions", "deletions", "insertions")),
        *((name, pa.int64()) for name in ("characters", "character_errors")),
        *((name, pa.int64()) for name in ("negation_errors", "number_errors", "laterality_errors")),
        *((name, pa.int64()) for name in ("terms_said", "terms_heard", "terms_found")),
        *((name, pa.int64()) for name in ("term_words", "term_errors", "drug_words", "drug_errors")),
        *((name, pa.int64()) for name in ("entities_said", "entities_heard", "entities_found")),
        ("confidence", pa.float64()),
        ("labels", pa.map_(pa.string(), pa.string())),
    ]
)


def assess_all(scored: Mapping[str, Sequence[Utterance]], normalisers: Sequence[str], terms: Path | None) -> Assessments:
    """Counts every recording of every system under every normaliser. ``terms``: the user's list in place of the shipped one."""
    files = [terms] if terms else sorted(_TERMS.glob("*.txt"))
    texts = {file.stem: file.read_text(encoding="utf-8") for file in files}
    of_normaliser = {name: read_terms(texts, NORMALISERS[name]) for name in normalisers}
    entities = {system: [count_entities(utterance) for utterance in utterances] for system, utterances in scored.items()}
    return {
        system: {
            name: [
                assess(utterance, NORMALISERS[name], of_normaliser[name], counted)
                for utterance, counted in zip(utterances, entities[system], strict=True)
            ]
            for name in normalisers
        }
        for system, utterances in scored.items()
    }


def make_figures(assessments: Assessments, by: str | None, cluster: str | None = None) -> Figures:
    """The figures of ``scores.json``. Each system is compared with the first one. ``by`` and ``cluster`` are labels."""
    first = next(iter(assessments.values()))
    figures: Figures = {}
    for system, of_normaliser in assessments.items():
        figures[system] = {}
        for normaliser, assessed in of_normaliser.items():
            baseline = None if of_normaliser is first else first[normaliser]
            figures[system][normaliser] = describe(assessed, baseline, cluster)
            if by is not None:
                figures[system][normaliser]["by"] = {by: describe_groups(assessed, by, cluster)}
    return figures


def warn_of_few(figures: Figures) -> str | None:
    """A warning if the intervals rest on too few recordings or clusters."""
    total = next(iter(next(iter(figures.values())).values()))
    if total["clusters"] >= _FEW:
        return None
    return (
        f"Intervals that rest on {total['clusters']} recordings or clusters are narrower than the truth; have {_FEW} or more."
    )


def open_folder(out: Path) -> None:
    """Makes the folder. Raises ConfigError, before hours of work, if a file is in its place or it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: is no folder and cannot be made one ({error.strerror}); give a folder") from None
    if not os.access(out, os.W_OK):
        raise ConfigError(f"--out {out}: nothing can be written there; give another folder")


def write_report(
    out: Path,
    figures: Figures,
    assessments: Assessments,
    reasons: Mapping[str, Mapping[str, str | None]],
    worst: int,
    find_audio: Callable[[str], Any] | None,
) -> None:
    """Writes the three files into the folder ``out``, readable by its owner only. ``reasons``: system → recording → why it
    failed. ``find_audio`` returns a recording's first channel, int16 at 16 kHz.
    """
    open_folder(out)
    write_private(out / "scores.json", (json.dumps({"systems": figures}, indent=1) + "\n").encode())
    rows = io.BytesIO()
    pq.write_table(make_rows(assessments, reasons), rows)
    write_private(out / "utterances.parquet", rows.getvalue())
    first = next(iter(figures.values()))
    normaliser, total = next(iter(first.items()))
    notes = [f"{total['utterances']} recordings, {total['reference_words']} words; transcripts below are under {normaliser}."]
    if few := warn_of_few(figures):
        notes.append(few)
    read = {system: of_normaliser[normaliser] for system, of_normaliser in assessments.items()}
    page = render_page(
        figures,
        _show_worst(read, worst, find_audio),
        {system: list(show_mistakes(assessed)) for system, assessed in read.items()},
        {system: rank_terms(assessed, _MOST_TERMS) for system, assessed in read.items()},
        notes,
    )
    write_private(out / "report.html", page.encode())


def _show_worst(read: Mapping[str, Sequence[Assessed]], worst: int, find_audio: Callable[[str], Any] | None) -> list[Shown]:
    """The ``worst`` recordings of each system. Each has its sound once per system, as long as the page has room for it."""
    shown = []
    room = _MOST_AUDIO_BYTES
    for system, assessed in read.items():
        wrong = sorted(
            (one for one in assessed if one.word_errors), key=lambda one: (-one.errors.rate, one.utterance.recording_id)
        )
        for one in wrong[:worst]:
            words = compare_words(one.reference, one.hypothesis)
            snippet = make_snippet(find_audio(one.utterance.recording_id), words) if find_audio and room > 0 else None
            room -= len(snippet.uri) if snippet else 0
            shown.append(show_transcript(one, system, words, snippet if room >= 0 else None))
    return shown


def make_snippet(waveform: Any, words: Sequence[AlignedWord]) -> Snippet | None:
    """Half a minute around the errors as MP3, assuming that words are spread evenly. None where there is no waveform.

    ``waveform``: int16 ``(samples,)`` at 16 kHz, or None.
    """
    if waveform is None or not len(waveform):
        return None
    wanted = _SNIPPET_S * _RATE_HZ
    start = round(find_worst_passage(words) * len(waveform)) - wanted // 2
    start = max(0, min(start, len(waveform) - wanted))
    part = waveform[start : start + wanted]
    out = io.BytesIO()
    soundfile.write(out, part, _RATE_HZ, format="MP3", subtype="MPEG_LAYER_III")
    uri = "data:audio/mpeg;base64," + base64.b64encode(out.getvalue()).decode()
    return Snippet(uri, start / _RATE_HZ, (start + len(part)) / _RATE_HZ)


def make_rows(assessments: Assessments, reasons: Mapping[str, Mapping[str, str | None]]) -> pa.Table:
    """One row for each recording, system and normaliser: texts as they were scored, and the counts."""
    rows = []
    for system, of_normaliser in assessments.items():
        for normaliser, assessed in of_normaliser.items():
            rows += [_row(system, normaliser, one, reasons[system].get(one.utterance.recording_id)) for one in assessed]
    rows.sort(key=lambda row: (list(assessments).index(row["system"]), row["recording_id"]))
    return pa.Table.from_pylist(rows, schema=UTTERANCES)


def _row(system: str, normaliser: str, one: Assessed, reason: str | None) -> dict[str, Any]:
    terms = count_terms(one.terms).values()
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
        **{f"terms_{name}": sum(getattr(count, name) for count in terms) for name in ("said", "heard", "found")},
        **{f"{name}_{what}": getattr(one.term_errors[name], what) for name in ("term", "drug") for what in ("words", "errors")},
        **{
            f"entities_{name}": sum(getattr(count, name) for count in one.entities.values())
            for name in ("said", "heard", "found")
        },
        "confidence": one.utterance.confidence,
        "labels": [(key, value) for key, value in one.utterance.labels.items() if key != _REFERENCE],
    }
