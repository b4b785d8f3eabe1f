"""What the commands that transcribe an archive have in common on the command line."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from dictalake.cli.options import CommandParser
from dictalake.config.locations import EMBEDDED
from dictalake.errors import ConfigError, list_reasons

if TYPE_CHECKING:
    from dictalake.workflow.worklist import Retry


def add_places(parser: CommandParser) -> None:
    """The positional arguments ARCHIVE and LAKE."""
    parser.usage = f"{parser.prog} ARCHIVE LAKE [options]"
    parser.add_argument("archive", nargs="?", metavar="ARCHIVE", help="folder or bucket of recordings (or --archive.uri)")
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="where the transcripts go (or --lake.uri)")
    parser.exit_codes[3] = "finished; some recordings failed"


def add_retry(parser: CommandParser) -> None:
    """The options --retry-failed, alone or with reasons, and --retry."""
    parser.add_argument(
        "--retry-failed",
        nargs="?",
        const="",
        metavar="REASON,REASON",
        help="try failed recordings again: those that may pass now, or those that failed for these reasons",
    )
    parser.add_argument(
        "--retry",
        choices=("lost", "headerless"),
        help="lost: transcribe again, once, recordings whose rows lost sound, as `dictalake recheck` found; headerless: those "
        "that were read otherwise than archive.headerless and archive.vox_rate_hz say now",
    )


def add_allow_empty(parser: CommandParser) -> None:
    """The option --allow-empty."""
    parser.add_argument(
        "--allow-empty",
        action="store_true",
        help="go on where the archive lists nothing although the lake holds recordings from there",
    )


def read_retry(arguments: argparse.Namespace) -> Retry | None:
    """None where nothing is tried again. Raises ConfigError for what is no reason."""
    is_lost, is_misread = arguments.retry == "lost", arguments.retry == "headerless"
    if arguments.retry_failed is None and arguments.retry is None:
        return None
    from dictalake.workflow.worklist import Retry

    if arguments.retry_failed is None:
        return Retry(failed=False, lost=is_lost, misread=is_misread)
    given = arguments.retry_failed
    if given not in list_reasons() and _is_place(given):
        raise ConfigError(f"--retry-failed {given}: this is a place, not a reason; put --retry-failed after the places")
    return Retry(tuple(reason for reason in given.split(",") if reason), lost=is_lost, misread=is_misread)


def _is_place(given: str) -> bool:
    return "/" in given or given.startswith((".", "~", EMBEDDED)) or (given != "" and os.path.exists(given))
