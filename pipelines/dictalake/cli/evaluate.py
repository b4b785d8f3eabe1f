"""Scores systems side by side on recordings with reference texts: runs them, prints tables, writes the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from dictalake.cli.score_tables import show_clinical, show_figures
from dictalake.cli.tables import print_json, print_lines
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.evaluation.imported import import_hypotheses
from dictalake.evaluation.normalise import NORMALISERS
from dictalake.evaluation.report import (
    assess_all,
    make_figures,
    open_folder,
    warn_of_few,
    write_report,
)
from dictalake.evaluation.systems import (
    REFERENCE,
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


def evaluate(config: Config, arguments: argparse.Namespace) -> int:
    """The exit code: 3 where a recording failed."""
    recordings = read_references(config.archive)
    _check_label("--by", arguments.by, recordings)
    _check_label("--cluster", arguments.cluster, recordings)
    if arguments.systems is None:
        is_given = arguments.system or arguments.run or arguments.hypotheses
        arguments.systems = [] if is_given else ["greedy", "lm"]
    configs = make_systems(config, arguments.systems, arguments.system)
    order = [*arguments.systems, *(name for name, _ in arguments.system), *(name for _, name in arguments.run)]
    order += [name for name, _ in arguments.hypotheses]
    if len(set(order)) < len(order):
        raise ConfigError(
            f"--run, --hypotheses: each system needs a name of its own (FINGERPRINT=NAME); these are {', '.join(order)}"
        )
    if arguments.run and config.lake.uri is None:
        raise ConfigError("--run: lake.uri is missing: say which lake holds the run's rows")
    if arguments.out:
        open_folder(arguments.out)
    imported = _import(arguments, recordings)  # before hours of work: a file may have a mistake
    transcripts = {**_transcribe(config, configs, arguments, recordings), **imported}
    return _score(config, arguments, recordings, {system: transcripts[system] for system in order})


def _import(arguments: argparse.Namespace, recordings: Sequence[Recording]) -> dict[str, Mapping[str, SystemOutput]]:
    """The texts of each file, after a line that says what it lacks."""
    imported = {}
    for name, file in arguments.hypotheses:
        texts = import_hypotheses(Path(file), recordings)
        there = f"{len(recordings) - texts.missing} of {len(recordings)} recordings have a text"
        missing = f", {texts.missing} have none and count as failed" if texts.missing else ""
        unknown = f"; {texts.unknown} texts are of no recording of the manifest" if texts.unknown else ""
        print_lines(Console(stderr=True), f"{name}: {there}{missing}{unknown}")
        imported[name] = texts.outputs
    return imported


def _transcribe(
    config: Config,
    configs: Mapping[str, Config],
    arguments: argparse.Namespace,
    recordings: Sequence[Recording],
) -> dict[str, Mapping[str, SystemOutput]]:
    """The transcripts of each system that runs here or has run."""
    transcripts: dict[str, Mapping[str, SystemOutput]] = {}
    if "whisper" in arguments.systems:  # first: its package may be missing, and the cluster takes all cores later
        transcripts["whisper"] = run_whisper(recordings, config, arguments.whisper_model)
    if not (configs or arguments.run):
        return transcripts
    with lake_or_temporary(config) as located:
        same = {"lake": located.lake, "archive": config.archive}  # systems are compared on the same recordings
        placed = {name: of_system.model_copy(update=same) for name, of_system in configs.items()}
        transcripts |= run_systems(placed, recordings)
        for fingerprint, name in arguments.run:
            transcripts[name] = join_run(located.lake, fingerprint, recordings)
    return transcripts


def _score(
    config: Config,
    arguments: argparse.Namespace,
    recordings: Sequence[Recording],
    transcripts: Mapping[str, Mapping[str, SystemOutput]],
) -> int:
    normalisers = arguments.normaliser
    scored = {system: make_utterances(recordings, heard) for system, heard in transcripts.items()}
    assessments = assess_all(scored, normalisers, arguments.terms)
    figures = make_figures(assessments, arguments.by, arguments.cluster)
    if arguments.format == "json":
        print_json({"systems": figures})
    else:
        console = Console()
        for normaliser in normalisers:
            show_figures(figures, normaliser, arguments.by, console)
        show_clinical(figures, normalisers[0], console)
        if few := warn_of_few(figures):
            print_lines(console, few)
        _show_failures(recordings, transcripts, console)
        if arguments.show_worst:
            _show_worst(scored, normalisers[0], arguments.show_worst, console)
    if arguments.out:
        reasons = {system: {key: one.reason for key, one in heard.items()} for system, heard in transcripts.items()}
        find_audio = None if arguments.no_audio else make_finder(recordings, config)
        write_report(arguments.out, figures, assessments, reasons, arguments.worst, find_audio)
        line = f"written: {arguments.out}/scores.json, utterances.parquet, report.html"
        print(line, file=sys.stderr if arguments.format == "json" else sys.stdout)
    return 3 if any(heard.reason for of_system in transcripts.values() for heard in of_system.values()) else 0


def _check_label(option: str, by: str | None, recordings: Sequence[Recording]) -> None:
    columns = sorted({column for recording in recordings for column in recording.metadata} - {REFERENCE})
    if by is not None and by not in columns:
        raise ConfigError(f"{option} {by}: the manifest has no such column; columns are {', '.join(columns) or 'none'}")


def _show_failures(recordings: Sequence[Recording], transcripts: Transcripts, console: Console) -> None:
    referenced = {recording.recording_id for recording in recordings if REFERENCE in recording.metadata}
    if len(referenced) < len(recordings):
        print_lines(console, f"{len(recordings) - len(referenced)} recordings have no reference and are not scored")
    for system, of_system in transcripts.items():
        reasons = [heard.reason for heard in of_system.values() if heard.reason]
        scored = sum(recording_id in referenced for recording_id, heard in of_system.items() if heard.reason)
        if reasons:
            counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons)))
            print_lines(
                console,
                f"{system}: failed {len(reasons)} ({counts}), of which {scored} have a reference and count as deletions",
            )


def _show_worst(scored: Mapping[str, Sequence[Utterance]], normaliser: str, count: int, console: Console) -> None:
    normalise = NORMALISERS[normaliser]
    for system, utterances in scored.items():
        for utterance, errors in find_worst(utterances, normalise, count):
            print_lines(console, "", f"{system} {utterance.recording_id} WER {100 * errors.rate:.0f} %")
            print_lines(console, f"  said  {normalise(utterance.reference)}")
            print_lines(console, f"  heard {normalise(utterance.hypothesis or '')}")
