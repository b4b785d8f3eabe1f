"""Scores systems side by side on recordings with reference texts.

    dictalake evaluate --archive.manifest refs.csv --by voice --out evaluation/
    dictalake evaluate --archive.manifest refs.csv --systems greedy,lm,hotwords,whisper --decoding.hotwords drugs.txt
    dictalake evaluate --archive.manifest refs.csv --system medasr=medasr.yaml --system large-v3=whisper.yaml
    dictalake evaluate --archive.manifest refs.csv --lake.uri gs://lake/speech --run 3f09c1d2ab44=tonight

The manifest has the columns `uri` and `reference`; any other one can be given to --by. The systems greedy, lm and hotwords are
runs of the whole pipeline, into lake.uri if it is given (stopped, the same command goes on there), else into a lake that is
thrown away; so is each --system, a YAML file that lies over the configuration. --run scores the rows that a lake holds under
a fingerprint, found by recording, or by URI where the object has another version now; it transcribes nothing. whisper hears
the same waveforms through faster-whisper; compare it under the normaliser whisper, where numbers are the same in words and
digits. A recording that failed counts with all its words deleted. Each system is compared with the first.

--out gets scores.json, utterances.parquet, and report.html with the worst transcripts to read and to hear.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from dictalake.cli.options import make_parser, parse, read_config
from dictalake.errors import ConfigError
from dictalake.evaluation.normalise import NORMALISERS
from dictalake.evaluation.report import (
    assess_all,
    make_figures,
    open_folder,
    show_clinical,
    show_figures,
    warn_of_few,
    write_report,
)
from dictalake.evaluation.systems import (
    REFERENCE,
    SYSTEMS,
    SystemOutput,
    Transcripts,
    join_run,
    lake_or_temporary,
    make_finder,
    make_systems,
    make_utterances,
    read_references,
    run_systems,
    run_whisper,
)
from dictalake.evaluation.utterances import Utterance, find_worst
from dictalake.records import Recording

DEFAULT_NORMALISERS = ("medasr", "multimed", "whisper")


def main(argv: list[str] | None = None) -> int:
    arguments, overrides = parse(_make_parser(), argv)
    config = read_config(arguments, overrides)
    recordings = read_references(config.archive)
    _check_label("--by", arguments.by, recordings)
    _check_label("--cluster", arguments.cluster, recordings)
    if arguments.systems is None:
        arguments.systems = [] if arguments.system or arguments.run else ["greedy", "lm"]
    configs = make_systems(config, arguments.systems, arguments.system)
    order = [*arguments.systems, *(name for name, _ in arguments.system), *(name for _, name in arguments.run)]
    if len(set(order)) < len(order):
        raise ConfigError(f"--run: each system needs a name of its own (FINGERPRINT=NAME); these are {', '.join(order)}")
    if arguments.run and config.lake.uri is None:
        raise ConfigError("--run: lake.uri is missing: say which lake holds the run's rows")
    if arguments.out:
        open_folder(arguments.out)

    transcripts: dict[str, Mapping[str, SystemOutput]] = {}
    if "whisper" in arguments.systems:  # first: its package may be missing, and the cluster takes all cores later
        transcripts["whisper"] = run_whisper(recordings, config, arguments.whisper_model)
    with lake_or_temporary(config) as located:
        same = {"lake": located.lake, "archive": config.archive}  # systems are compared on the same recordings
        placed = {name: of_system.model_copy(update=same) for name, of_system in configs.items()}
        transcripts |= run_systems(placed, recordings)
        for fingerprint, name in arguments.run:
            transcripts[name] = join_run(located.lake, fingerprint, recordings)
    transcripts = {system: transcripts[system] for system in order}

    console = _make_console()
    scored = {system: make_utterances(recordings, heard) for system, heard in transcripts.items()}
    assessments = assess_all(scored, arguments.normaliser, arguments.terms)
    figures = make_figures(assessments, arguments.by, arguments.cluster)
    for normaliser in arguments.normaliser:
        show_figures(figures, normaliser, arguments.by, console)
    show_clinical(figures, arguments.normaliser[0], console)
    if few := warn_of_few(figures):
        console.print(few, highlight=False, soft_wrap=True)
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
    parser.add_argument("--cluster", help="a column of the manifest, as speaker: recordings of one value are drawn together")
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


def _names(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """An argument type: comma-separated names, each at most once."""

    def read(given: str) -> list[str]:
        names = list(dict.fromkeys(name.strip() for name in given.split(",")))
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(allowed)}")
        return names

    return read


def _check_label(option: str, by: str | None, recordings: Sequence[Recording]) -> None:
    columns = sorted({column for recording in recordings for column in recording.metadata} - {REFERENCE})
    if by is not None and by not in columns:
        raise ConfigError(f"{option} {by}: the manifest has no such column; columns are {', '.join(columns) or 'none'}")


def _make_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


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
