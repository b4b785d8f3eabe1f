"""Transcribes every recording of an archive that is not yet in the lake. Stopped at any moment, the same command goes on.

dictalake backfill --config medasr --archive.uri gs://bucket/dictations --lake.uri gs://lake/speech
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from dictalake import logs
from dictalake.cli.options import make_parser, parse, read_config
from dictalake.cli.run_summary import show_summary
from dictalake.workflow.run import RunSummary, transcribe
from dictalake.workflow.summary import number_summary
from dictalake.workflow.worklist import Retry


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
    logs.log_event("run_finished", line, show, level, **number_summary(summary))


if __name__ == "__main__":
    sys.exit(main())
