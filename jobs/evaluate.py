"""Scores systems side by side on recordings with reference texts.

    dictalake evaluate --archive.manifest refs.csv --by voice
    dictalake evaluate --archive.manifest refs.csv --systems greedy,lm,whisper --out scores.parquet

The manifest has the columns `uri` and `reference`; any other one can be given to --by. The systems greedy and lm are runs of
the whole pipeline, into lake.uri if it is given (stopped, the same command goes on there), else into a lake that is thrown
away. whisper hears the same waveforms through faster-whisper; compare it under the normaliser whisper, where numbers are the
same in words and digits. A recording that failed counts with all its words deleted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from jobs.options import make_parser, parse, read_config
from pipelines.archive import read_audio
from pipelines.archive.fetch import fetch
from pipelines.archive.manifest import find_recordings
from pipelines.audio.resample import resample_blocks
from pipelines.config import Archive, Config, Lake
from pipelines.errors import ConfigError, TranscriptionError
from pipelines.lake.query import open_lake
from pipelines.progress import format_duration
from pipelines.records import Recording
from pipelines.scoring.errors import count_errors
from pipelines.scoring.normalise import NORMALISERS
from pipelines.scoring.utterances import Score, Utterance, find_worst, relative_improvement, score
from pipelines.scoring.whisper import Whisper, find_packaged_model

PIPELINE_SYSTEMS = {"greedy": "greedy", "lm": "beam"}  # system → decoding.kind
SYSTEMS = (*PIPELINE_SYSTEMS, "whisper")
REFERENCE = "reference"

NO_ROW = "no_row"  # another run took the recording on and has not committed it yet


@dataclass(frozen=True)
class Heard:
    """What a system made of one recording: raw text and readable text, or the reason and detail of its failure."""

    text_raw: str | None = None
    text: str | None = None
    reason: str | None = None
    detail: str | None = None


Transcripts = Mapping[str, Mapping[str, Heard]]  # system → recording_id → Heard


def main(argv: list[str] | None = None) -> int:
    arguments, overrides = parse(_make_parser(), argv)
    config = read_config(arguments, overrides)
    normalisers = arguments.normaliser or (["medasr", "words", "whisper"] if "whisper" in arguments.systems else ["medasr"])
    recordings = read_references(config.archive)
    _check_label(arguments.by, recordings)

    transcripts: dict[str, Mapping[str, Heard]] = {}
    if "whisper" in arguments.systems:  # first: its package may be missing, and the cluster takes all cores later
        transcripts["whisper"] = _run_whisper(recordings, config, arguments.whisper_model)
    with lake_or_temporary(config) as located:
        kinds = {system: kind for system, kind in PIPELINE_SYSTEMS.items() if system in arguments.systems}
        transcripts |= run_pipeline(located, kinds, recordings)
    transcripts = {system: transcripts[system] for system in arguments.systems}

    console = _make_console()
    scored = {system: make_utterances(recordings, heard) for system, heard in transcripts.items()}
    for normaliser in normalisers:
        show_scores(scored, normaliser, arguments.by, console)
    _show_failures(recordings, transcripts, console)
    if arguments.show_worst:
        _show_worst(scored, normalisers[0], arguments.show_worst, console)
    if arguments.out:
        pq.write_table(make_report(recordings, transcripts, normalisers), arguments.out)
    return 3 if any(heard.reason for of_system in transcripts.values() for heard in of_system.values()) else 0


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser("evaluate", __doc__ or "")
    parser.add_argument("--systems", type=_names(SYSTEMS), default=["greedy", "lm"], help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--by", help="a column of the manifest: scores for each of its values, and the total")
    parser.add_argument(
        "--normaliser",
        type=_names(tuple(NORMALISERS)),
        help=f"of {', '.join(NORMALISERS)}; default medasr, with whisper among the systems all",
    )
    parser.add_argument("--whisper-model", type=Path, help="folder of another Whisper model in CTranslate2 form")
    parser.add_argument("--show-worst", type=int, default=0, metavar="N", help="print the N worst transcripts of each system")
    parser.add_argument("--out", type=Path, help="Parquet file: one row for each recording, system and normaliser, with texts")
    return parser


def _names(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """An argument type: comma-separated names, each at most once."""

    def read(given: str) -> list[str]:
        names = list(dict.fromkeys(name.strip() for name in given.split(",")))
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(allowed)}")
        return names

    return read


def read_references(archive: Archive) -> list[Recording]:
    """The recordings of the manifest. Raises ConfigError where there is none, or no reference in it."""
    if archive.manifest is None:
        raise ConfigError("archive.manifest is missing: give a CSV or Parquet with the columns uri and reference")
    recordings = list(find_recordings(archive))
    if not any(REFERENCE in recording.metadata for recording in recordings):
        raise ConfigError("archive.manifest: no row has a reference; it needs the columns uri and reference")
    return recordings


def _check_label(by: str | None, recordings: Sequence[Recording]) -> None:
    columns = sorted({column for recording in recordings for column in recording.metadata} - {REFERENCE})
    if by is not None and by not in columns:
        raise ConfigError(f"--by {by}: the manifest has no such column; columns are {', '.join(columns) or 'none'}")


@contextmanager
def lake_or_temporary(config: Config) -> Iterator[Config]:
    """``config`` with a lake: its own, or one that is gone afterwards."""
    if config.lake.uri is not None:
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="dictalake-evaluate-") as folder:
        yield config.model_copy(update={"lake": config.lake.model_copy(update={"uri": folder})})


def run_pipeline(config: Config, kinds: Mapping[str, str], recordings: Sequence[Recording]) -> dict[str, dict[str, Heard]]:
    """Transcribes with each of ``kinds`` (system → decoding.kind) in one Ray session, and reads the rows from the lake."""
    if not kinds:
        return {}
    from pipelines import cluster
    from pipelines.transcribe import transcribe

    console = Console(stderr=True)
    transcripts = {}
    with cluster.running_cluster(config):
        for system, kind in kinds.items():
            decoding = config.decoding.model_copy(update={"kind": kind})
            summary = transcribe(config.model_copy(update={"decoding": decoding}), console)
            without = ", without a language model: decoding.lm is null" if kind == "beam" and config.decoding.lm is None else ""
            console.print(
                f"{system}: fingerprint {summary.fingerprint}, {summary.ok + summary.failed} transcribed in "
                f"{format_duration(summary.wall_s)}, {summary.skipped} done before{without}",
                highlight=False,
                soft_wrap=True,
            )
            transcripts[system] = read_transcripts(config.lake, summary.fingerprint, recordings)
    return transcripts


def read_transcripts(lake: Lake, fingerprint: str, recordings: Sequence[Recording]) -> dict[str, Heard]:
    """What the lake says about ``recordings`` under ``fingerprint``: the last attempt at each."""
    assert lake.uri is not None
    columns = ["recording_id", "attempt", "text", "text_raw", "error"]
    rows = open_lake(lake.uri, lake.storage_options).to_table(columns=columns, filter=ds.field("fingerprint") == fingerprint)
    wanted = {recording.recording_id for recording in recordings}
    heard = {recording_id: Heard(reason=NO_ROW, detail="the lake has no row of this recording") for recording_id in wanted}
    for row in sorted(rows.to_pylist(), key=lambda row: row["attempt"]):
        if row["recording_id"] in wanted:
            error = row["error"] or {"reason": None, "detail": None}
            heard[row["recording_id"]] = Heard(row["text_raw"], row["text"], error["reason"], error["detail"])
    return heard


def _run_whisper(recordings: Sequence[Recording], config: Config, folder: Path | None) -> dict[str, Heard]:
    whisper = Whisper(folder or find_packaged_model(), config.acoustic.device)
    heard = {}
    console = Console(stderr=True)
    for recording in track(recordings, "whisper", console=console, disable=not console.is_terminal):
        try:
            data = fetch(recording, config.archive, limits=config.limits)
            audio = read_audio(data, recording.recording_id, config.limits, consume=resample_blocks)
            text = whisper.transcribe(audio.samples)
            heard[recording.recording_id] = Heard(text, text)
        except TranscriptionError as error:
            heard[recording.recording_id] = Heard(reason=error.reason, detail=error.detail)
    return heard


def make_utterances(recordings: Sequence[Recording], heard: Mapping[str, Heard]) -> list[Utterance]:
    """The recordings that have a reference, with what was heard; a failed one has no hypothesis."""
    return [
        Utterance(
            recording.recording_id,
            recording.metadata[REFERENCE],
            None if heard[recording.recording_id].reason else heard[recording.recording_id].text_raw or "",
            recording.metadata,
        )
        for recording in recordings
        if REFERENCE in recording.metadata
    ]


def _make_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


def show_scores(scored: Mapping[str, Sequence[Utterance]], normaliser: str, by: str | None, console: Console) -> None:
    """One table: systems × groups; and how much better the language model is than greedy."""
    table = Table(title=f"word errors, normaliser {normaliser}")
    table.add_column("system")
    if by is not None:
        table.add_column(escape(by))
    for name in ("utterances", "failed", "words", "WER %", "S", "D", "I"):
        table.add_column(name, justify="right")
    totals = {}
    for system, utterances in scored.items():
        scores = score(utterances, NORMALISERS[normaliser], by)
        totals[system] = scores[-1].errors
        for index, of_group in enumerate(scores):
            group = [] if by is None else [escape(of_group.group)]
            table.add_row(system, *group, *_cells(of_group), end_section=index == len(scores) - 1)
    console.print(table)
    if "greedy" in totals and "lm" in totals:
        better = relative_improvement(totals["greedy"], totals["lm"])
        shown = "no errors to begin with" if better is None else f"{100 * better:+.1f} % relative improvement"
        console.print(f"lm over greedy, normaliser {normaliser}: {shown}", highlight=False)


def _cells(of_group: Score) -> list[str]:
    errors = of_group.errors
    counts = (errors.substitutions, errors.deletions, errors.insertions)
    failed = str(of_group.failed or "")
    return [str(errors.utterances), failed, str(errors.words), f"{100 * errors.rate:.2f}", *map(str, counts)]


def _show_failures(recordings: Sequence[Recording], transcripts: Transcripts, console: Console) -> None:
    referenced = {recording.recording_id for recording in recordings if REFERENCE in recording.metadata}
    if len(referenced) < len(recordings):
        console.print(f"{len(recordings) - len(referenced)} recordings have no reference and are not scored", highlight=False)
    for system, of_system in transcripts.items():
        reasons = [heard.reason for heard in of_system.values() if heard.reason]
        scored = sum(recording_id in referenced for recording_id, heard in of_system.items() if heard.reason)
        if reasons:
            counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons)))
            console.print(
                f"{system}: failed {len(reasons)} ({counts}), of which {scored} have a reference and count as deletions",
                highlight=False,
            )


def _show_worst(scored: Mapping[str, Sequence[Utterance]], normaliser: str, count: int, console: Console) -> None:
    normalise = NORMALISERS[normaliser]
    for system, utterances in scored.items():
        for utterance, errors in find_worst(utterances, normalise, count):
            console.print(f"\n{system} {utterance.recording_id} WER {100 * errors.rate:.0f} %", highlight=False)
            console.print(f"  said  {escape(normalise(utterance.reference))}", highlight=False)
            console.print(f"  heard {escape(normalise(utterance.hypothesis or ''))}", highlight=False)


def make_report(recordings: Sequence[Recording], transcripts: Transcripts, normalisers: Sequence[str]) -> pa.Table:
    """One row for each recording with a reference, system and normaliser: texts as they were scored, and the counts."""
    rows = []
    for system, heard in transcripts.items():
        for utterance in make_utterances(recordings, heard):
            for normaliser in normalisers:
                reference = NORMALISERS[normaliser](utterance.reference)
                hypothesis = NORMALISERS[normaliser](utterance.hypothesis or "")
                errors = count_errors([(reference, hypothesis)])
                rows.append(
                    {
                        "recording_id": utterance.recording_id,
                        "system": system,
                        "normaliser": normaliser,
                        "error_reason": heard[utterance.recording_id].reason,
                        "reference": reference,
                        "hypothesis": hypothesis,
                        "words": errors.words,
                        "substitutions": errors.substitutions,
                        "deletions": errors.deletions,
                        "insertions": errors.insertions,
                        "labels": [(key, value) for key, value in utterance.labels.items() if key != REFERENCE],
                    }
                )
    return pa.Table.from_pylist(rows, schema=REPORT)


REPORT = pa.schema(
    [
        *((name, pa.string()) for name in ("recording_id", "system", "normaliser", "error_reason", "reference", "hypothesis")),
        *((name, pa.int64()) for name in ("words", "substitutions", "deletions", "insertions")),
        ("labels", pa.map_(pa.string(), pa.string())),
    ]
)


if __name__ == "__main__":
    sys.exit(main())
