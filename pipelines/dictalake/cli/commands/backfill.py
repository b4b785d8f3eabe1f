"""Transcribe every recording of an archive that is not yet in the lake.

    dictalake backfill ./archive ./lake
    dictalake backfill gs://bucket/dictations gs://lake/speech --config medasr

    dictalake backfill ./archive ./lake --dry-run     say what would be done, and what it would cost

Stop it at any moment; run the same command again to resume.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import RUN_KEYS, CommandParser, read_config
from dictalake.cli.run_options import add_allow_empty, add_places, add_retry, read_retry


def add_arguments(parser: CommandParser) -> None:
    add_places(parser)
    add_retry(parser)
    add_allow_empty(parser)
    parser.add_argument(
        "--promote", action="store_true", help="once everything has its row, make it what the view transcripts shows"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of the summary; default: table")
    parser.add_config(RUN_KEYS)


def run(arguments: argparse.Namespace) -> int:
    config, retry = read_config(arguments), read_retry(arguments)
    if arguments.dry_run:
        from dictalake.cli.dry_run import show_dry_run
        from dictalake.workflow.dry_run import plan_dry_run

        show_dry_run(plan_dry_run(config, retry, allow_empty=arguments.allow_empty), arguments.format)
        return 0
    from rich.console import Console

    from dictalake.cli.run_end import log_end
    from dictalake.cli.run_summary import show_summary
    from dictalake.cli.tables import print_json
    from dictalake.workflow.run import transcribe
    from dictalake.workflow.summary import number_summary

    summary = transcribe(config, retry=retry, promote=arguments.promote, allow_empty=arguments.allow_empty)

    def show(line: str) -> None:
        if arguments.format == "json":
            print_json(number_summary(summary))
        else:
            show_summary(summary, Console())

    log_end(
        summary,
        f"run {summary.run_id}: {summary.ok} transcribed, {summary.failed} failed",
        show,
        is_asked_for=arguments.format == "json",
    )
    return summary.exit_code
