"""Transcribes every recording of an archive that is not yet in the lake. Stopped at any moment, the same command goes on.

dictalake backfill --config medasr --archive.uri gs://bucket/dictations --lake.uri gs://lake/speech
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.table import Table

from jobs.options import make_parser, parse, read_config
from pipelines import logs
from pipelines.pending import Retry
from pipelines.progress import format_duration
from pipelines.run_record import number_summary
from pipelines.transcribe import RunSummary, transcribe

_WORST = 20


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("backfill", __doc__ or "")
    add_retry(parser)
    arguments, overrides = parse(parser, argv)
    summary = transcribe(read_config(arguments, overrides), retry=read_retry(arguments))
    line = f"run {summary.run_id}: {summary.ok} transcribed, {summary.failed} failed"
    tell_end(summary, line, lambda _: show_summary(summary, Console()))
    return 3 if summary.failed else 0


def add_retry(parser: argparse.ArgumentParser) -> None:
    """The option --retry-failed, alone or with reasons."""
    parser.add_argument(
        "--retry-failed",
        nargs="?",
        const="",
        metavar="REASON,REASON",
        help="try failed recordings again, as the next attempt: those that may pass (retryable), or those of the reasons given",
    )


def read_retry(arguments: argparse.Namespace) -> Retry | None:
    """None where nothing is tried again. Raises ConfigError for a reason that does not exist."""
    if arguments.retry_failed is None:
        return None
    return Retry(tuple(reason for reason in arguments.retry_failed.split(",") if reason))


def tell_end(summary: RunSummary, line: str, show: logs.Show | None) -> None:
    """How a run ended, for people by ``show``."""
    level = logs.WARNING if summary.failed else logs.INFO
    logs.tell("run_finished", line, show, level, **number_summary(summary))


def show_summary(summary: RunSummary, console: Console) -> None:
    """One table: counts, hours, speed, and failures by reason."""
    table = Table(title=f"run {summary.run_id}, fingerprint {summary.fingerprint}", show_header=False)
    table.add_row("recordings found", str(summary.found))
    of_them = f", {summary.skipped_failed} of them failed" if summary.skipped_failed else ""
    table.add_row("done before", f"{summary.skipped}{of_them}")
    if summary.claimed:
        table.add_row("left to other runs", f"{summary.claimed} ({', '.join(summary.others)})")
    if summary.erased:
        table.add_row("erased, left out", str(summary.erased))
    if summary.retried:
        table.add_row("tried again", str(summary.retried))
    if summary.archives:
        table.add_row("archives unpacked", str(summary.archives))
    table.add_row("transcribed", str(summary.ok))
    table.add_row("failed", str(summary.failed))
    for reason, count in sorted(summary.failures.items(), key=lambda item: -item[1]):
        table.add_row(f"  {reason}", str(count))
    table.add_row("audio hours", f"{summary.audio_s / 3600:.3f}")
    table.add_row("time", format_duration(summary.wall_s))
    speed = summary.audio_s / summary.wall_s if summary.wall_s else 0.0
    table.add_row("speed", f"{speed:.1f}x real time" if summary.ok + summary.failed else "nothing to do")
    if summary.retries:
        table.add_row("storage requests made again", str(summary.retries))
    if summary.uncovered:
        lost_s = sum(summary.uncovered.values())
        table.add_row("speech without words", f"{len(summary.uncovered)} recordings, {format_duration(lost_s)}")
    console.print(table)
    _show_uncovered(summary.uncovered, console)


def _show_uncovered(uncovered: dict[str, float], console: Console) -> None:
    """The recordings where speech was heard and nothing was written: silent loss, worst first."""
    if not uncovered:
        return
    title = (
        f"speech without words, the worst {_WORST} of {len(uncovered)}" if len(uncovered) > _WORST else "speech without words"
    )
    table = Table("recording_id", "seconds", title=title)
    for recording_id, seconds in sorted(uncovered.items(), key=lambda item: -item[1])[:_WORST]:
        table.add_row(recording_id, f"{seconds:.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
