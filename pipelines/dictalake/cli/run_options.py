"""What the commands that transcribe an archive have in common on the command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dictalake.cli.options import CommandParser

if TYPE_CHECKING:
    from dictalake.workflow.worklist import Retry


def add_places(parser: CommandParser) -> None:
    """The positional arguments ARCHIVE and LAKE."""
    parser.usage = f"{parser.prog} ARCHIVE LAKE [options]"
    parser.add_argument("archive", nargs="?", metavar="ARCHIVE", help="folder or bucket of recordings (or --archive.uri)")
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="where the transcripts go (or --lake.uri)")
    parser.exit_codes[3] = "finished; some recordings failed"


def add_retry(parser: CommandParser) -> None:
    """The option --retry-failed, alone or with reasons."""
    parser.add_argument(
        "--retry-failed",
        nargs="?",
        const="",
        metavar="REASON,REASON",
        help="try failed recordings again: those that may pass now, or those that failed for these reasons",
    )


def read_retry(arguments: argparse.Namespace) -> Retry | None:
    """None where nothing is tried again. Raises ConfigError for a reason that does not exist."""
    if arguments.retry_failed is None:
        return None
    from dictalake.workflow.worklist import Retry

    return Retry(tuple(reason for reason in arguments.retry_failed.split(",") if reason))
