"""Scores systems side by side on recordings with reference texts.

    dictalake evaluate --archive.manifest refs.csv --by voice --out evaluation/
    dictalake evaluate --archive.manifest refs.csv --systems greedy,lm,hotwords,whisper --decoding.hotwords drugs.txt
    dictalake evaluate --archive.manifest refs.csv --system medasr=medasr.yaml --system large-v3=whisper.yaml
    dictalake evaluate --archive.manifest refs.csv --lake.uri gs://lake/speech --run 3f09c1d2ab44=tonight

The manifest has the columns `uri` and `reference`; any other one can be given to --by. The systems greedy, lm and hotwords are
runs of the whole pipeline, into lake.uri if it is given (stopped, the same command goes on there), else into a lake that is
thrown away; so is each --system, a YAML file that lies over the configuration. --run scores the rows that a lake holds under
a fingerprint. whisper hears the same waveforms through faster-whisper; compare it under the normaliser whisper, where
numbers are the same in words and digits. A recording that failed counts with all its words deleted.

--out gets scores.json, utterances.parquet, and report.html with the worst transcripts to read and to hear.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from jobs.evaluation_report import assess_all, make_figures, show_clinical, show_figures, write_report
from jobs.options import make_parser, parse, read_config
from pipelines.archive import read_audio
from pipelines.archive.fetch import fetch
from pipelines.archive.manifest import find_recordings
from pipelines.audio.resample import resample_blocks
from pipelines.config import Archive, Config, Lake, lay_over
from pipelines.errors import ConfigError, TranscriptionError
from pipelines.lake.query import open_lake
from pipelines.progress import format_duration
from pipelines.records import Recording
from pipelines.scoring.normalise import NORMALISERS
from pipelines.scoring.utterances import Utterance, find_worst
from pipelines.scoring.whisper import Whisper, find_packaged_model

PIPELINE_SYSTEMS = ("greedy", "lm", "hotwords")
SYSTEMS = (*PIPELINE_SYSTEMS, "whisper")
DEFAULT_NORMALISERS = ("medasr", "multimed", "whisper")
REFERENCE = "reference"

NO_ROW = "no_row"  # another run took the recording on and has not committed it yet


@dataclass(frozen=True)
class Heard:
    """What a system made of one recording: raw text, readable text and confidence, or the reason and detail of its failure."""

    text_raw: str | None = None
    text: str | None = None
    reason: str | None = None
    detail: str | None = None
    confidence: float | None = None


Transcripts = Mapping[str, Mapping[str, Heard]]  # system → recording_id → Heard


def main(argv: list[str] | None = None) -> int:
    arguments, overrides = parse(_make_parser(), argv)
    config = read_config(arguments, overrides)
    recordings = read_references(config.archive)
    _check_label(arguments.by, recordings)
    if arguments.systems is None:
        arguments.systems = [] if arguments.system or arguments.run else ["greedy", "lm"]
    configs = make_systems(config, arguments.systems, arguments.system)
    if arguments.run and config.lake.uri is None:
        raise ConfigError("--run: lake.uri is missing: say which lake holds the run's rows")

    transcripts: dict[str, Mapping[str, Heard]] = {}
    if "whisper" in arguments.systems:  # first: its package may be missing, and the cluster takes all cores later
        transcripts["whisper"] = _run_whisper(recordings, config, arguments.whisper_model)
    with lake_or_temporary(config) as located:
        placed = {name: of_system.model_copy(update={"lake": located.lake}) for name, of_system in configs.items()}
        transcripts |= run_systems(placed, recordings)
        for fingerprint, name in arguments.run:
            transcripts[name] = read_transcripts(located.lake, fingerprint, recordings)
    order = [*arguments.systems, *(name for name, _ in arguments.system), *(name for _, name in arguments.run)]
    transcripts = {system: transcripts[system] for system in order}

    console = _make_console()
    scored = {system: make_utterances(recordings, heard) for system, heard in transcripts.items()}
    assessments = assess_all(scored, arguments.normaliser, arguments.terms)
    figures = make_figures(assessments, arguments.by)
    for normaliser in arguments.normaliser:
        show_figures(figures, normaliser, arguments.by, console)
    show_clinical(figures, arguments.normaliser[0], console)
    _show_failures(recordings, transcripts, console)
    if arguments.show_worst:
        _show_worst(scored, arguments.normaliser[0], arguments.show_worst, console)
    if arguments.out:
        reasons = {system: {key: one.reason for key, one in heard.items()} for system, heard in transcripts.items()}
        find_audio = None if arguments.no_audio else make_finder(recordings, config)
        write_report(arguments.out, figures, assessments, reasons, arguments.worst, find_audio)
        console.print(f"written: {arguments.out}/scores.json, utterances.parquet, report.html", highlight=False, soft_wrap=True)
    return 3 if any(heard.reason for of_system in transcripts.values() for heard in of_system.values()) else 0


def _make_parser() -> argparse.ArgumentParser:
    parser = make_parser("evaluate", __doc__ or "")
    parser.add_argument(
        "--systems", type=_names(SYSTEMS), help=f"of {', '.join(SYSTEMS)}; default greedy,lm, or none beside others"
    )
    parser.add_argument(
        "--system",
        type=_pair("NAME=FILE"),
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another system: a YAML that lies over the configuration",
    )
    parser.add_argument(
        "--run",
        type=_run_name,
        action="append",
        default=[],
        metavar="FINGERPRINT[=NAME]",
        help="another system: rows that lake.uri holds already",
    )
    parser.add_argument("--by", help="a column of the manifest: scores for each of its values, and the total")
    parser.add_argument(
        "--normaliser",
        type=_names(tuple(NORMALISERS)),
        default=list(DEFAULT_NORMALISERS),
        help=f"of {', '.join(NORMALISERS)}; default {','.join(DEFAULT_NORMALISERS)}; the page takes the first",
    )
    parser.add_argument("--terms", type=Path, help="your own medical terms, one a line, behind a tab a category where wanted")
    parser.add_argument("--whisper-model", type=Path, help="folder of another Whisper model in CTranslate2 form")
    parser.add_argument("--show-worst", type=int, default=0, metavar="N", help="print the N worst transcripts of each system")
    parser.add_argument("--out", type=Path, help="folder for scores.json, utterances.parquet and report.html")
    parser.add_argument("--worst", type=int, default=20, metavar="N", help="transcripts on the page; default 20")
    parser.add_argument("--no-audio", action="store_true", help="leave the sound out of the page")
    return parser


def _pair(form: str) -> Callable[[str], tuple[str, str]]:
    def read(given: str) -> tuple[str, str]:
        name, equals, value = given.partition("=")
        if not (name and equals and value):
            raise argparse.ArgumentTypeError(f"{given!r} is not of the form {form}")
        return name, value

    return read


def _run_name(given: str) -> tuple[str, str]:
    fingerprint, _, name = given.partition("=")
    return fingerprint, name or fingerprint


def make_systems(config: Config, names: list[str] | None, files: Sequence[tuple[str, str]]) -> dict[str, Config]:
    """The configuration of each system that is a run of the pipeline. Raises ConfigError for one that cannot be."""
    systems = {}
    for name in names or ():
        if name == "hotwords" and config.decoding.hotwords is None:
            raise ConfigError("the system hotwords needs decoding.hotwords: a text file of terms, one a line")
        if name in PIPELINE_SYSTEMS:
            changed = {"kind": "greedy" if name == "greedy" else "beam"}
            kept = config.decoding.hotwords if name == "hotwords" else None
            systems[name] = config.model_copy(
                update={"decoding": config.decoding.model_copy(update={**changed, "hotwords": kept})}
            )
    for name, file in files:
        if name in SYSTEMS or name in systems:
            raise ConfigError(f"--system {name}: the name is taken")
        systems[name] = lay_over(config, file)
    return systems


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


def run_systems(configs: Mapping[str, Config], recordings: Sequence[Recording]) -> dict[str, dict[str, Heard]]:
    """Transcribes under each of ``configs`` (system → configuration) in one Ray session, and reads the rows from the lake."""
    if not configs:
        return {}
    from pipelines import cluster
    from pipelines.transcribe import transcribe

    console = Console(stderr=True)
    transcripts = {}
    with cluster.running_cluster(next(iter(configs.values()))):
        for system, config in configs.items():
            summary = transcribe(config, console)
            has_lm = config.decoding.kind == "greedy" or config.decoding.lm is not None
            without = "" if has_lm else ", without a language model: decoding.lm is null"
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
    columns = ["recording_id", "attempt", "text", "text_raw", "error", "confidence"]
    rows = open_lake(lake.uri, lake.storage_options).to_table(columns=columns, filter=ds.field("fingerprint") == fingerprint)
    wanted = {recording.recording_id for recording in recordings}
    heard = {recording_id: Heard(reason=NO_ROW, detail="the lake has no row of this recording") for recording_id in wanted}
    for row in sorted(rows.to_pylist(), key=lambda row: row["attempt"]):
        if row["recording_id"] in wanted:
            error = row["error"] or {"reason": None, "detail": None}
            heard[row["recording_id"]] = Heard(
                row["text_raw"], row["text"], error["reason"], error["detail"], row["confidence"]
            )
    return heard


def _run_whisper(recordings: Sequence[Recording], config: Config, folder: Path | None) -> dict[str, Heard]:
    whisper = Whisper(folder or find_packaged_model(), config.acoustic.device)
    heard = {}
    console = Console(stderr=True)
    for recording in track(recordings, "whisper", console=console, disable=not console.is_terminal):
        try:
            text = whisper.transcribe(_read_waveforms(recording, config))
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
            heard[recording.recording_id].confidence,
        )
        for recording in recordings
        if REFERENCE in recording.metadata
    ]


def _make_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


def make_finder(recordings: Sequence[Recording], config: Config) -> Callable[[str], np.ndarray | None]:
    """What gives the first channel of a recording by its id, int16 at 16 kHz; None where it cannot be read."""
    by_id = {recording.recording_id: recording for recording in recordings}

    def find(recording_id: str) -> np.ndarray | None:
        try:
            waveform: np.ndarray = _read_waveforms(by_id[recording_id], config)[0]
        except TranscriptionError:
            return None
        return waveform

    return find


def _read_waveforms(recording: Recording, config: Config) -> np.ndarray:
    data = fetch(recording, config.archive, limits=config.limits)
    return read_audio(data, recording.recording_id, config.limits, consume=resample_blocks).samples


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


if __name__ == "__main__":
    sys.exit(main())
