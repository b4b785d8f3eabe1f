"""Erase recordings from the lake for good, under every fingerprint, and keep them out.

    dictalake forget ./lake --uri gs://bucket/dictations/a.wav
    dictalake forget ./lake --study 1.2.840.99.1 --dry-run

It shows what it would erase and asks; scripts give --yes. It erases the rows and what manifests, run records, lineage, reports
and your search index hold of them; a tombstone keeps them from being transcribed again. --recording, --uri, --study and
--patient may be given many times. What matches nothing is named and not kept out, unless you give --force. The archive's own
objects stay. What else keeps old bytes is for its owner to clear: versioning, soft deletion and backups of the bucket, and
copies made of the table.
"""

from __future__ import annotations

import argparse
import sys

from dictalake.cli.options import CommandParser, add_format, add_lake, read_lake
from dictalake.errors import ConfigError

_SOME_UNKNOWN = 3


def add_arguments(parser: CommandParser) -> None:
    add_lake(parser, "(--recording | --uri | --study | --patient) WHAT ")
    for name, what in (
        ("recording", "a recording_id"),
        ("uri", "the URI of an object, of a file in an archive object (URI#PATH), or of such an object with all its files"),
        ("study", "a Study Instance UID"),
        ("patient", "a patient hash, as in the column dicom.patient_id_hash"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="WHAT", help=what)
    parser.add_argument("--dry-run", action="store_true", help="only show what would be erased")
    parser.add_argument("--yes", action="store_true", help="erase without asking")
    parser.add_argument("--force", action="store_true", help="also keep out a URI, study or patient that matches nothing yet")
    parser.add_argument(
        "--leave-unhashed",
        action="store_true",
        help="with --patient: erase what has the hash, although rows were made without hashes and may be of the patient",
    )
    add_format(parser)
    parser.exit_codes |= {
        0: "erased; with --dry-run: all that was named is there",
        1: "the storage failed, or other writers kept coming first; run it again",
        2: "nothing was erased: an option is wrong, --yes is missing, rows have no hash, or the answer was no",
        _SOME_UNKNOWN: "something that was named matches nothing, or files were left; the rest was erased",
    }


def run(arguments: argparse.Namespace) -> int:
    lake = read_lake(arguments)
    is_sure = arguments.yes or arguments.dry_run
    if not is_sure and not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            "it asks before it erases, and nobody can answer here: give --yes, or --dry-run to see what it would erase"
        )
    from dictalake import logs
    from dictalake.cli import erasure_receipt as receipts
    from dictalake.lake.erase import Erasure, Subjects

    subjects = Subjects(*(tuple(dict.fromkeys(getattr(arguments, name))) for name in ("recording", "uri", "study", "patient")))
    erasure = Erasure(lake, subjects)
    plan = erasure.look()
    if arguments.format == "table":
        receipts.show_plan(plan, is_forced=arguments.force)
    if not arguments.dry_run:
        erasure.require_hashes(leave_unhashed=arguments.leave_unhashed)
    has_work = bool(plan.rows or plan.waiting or plan.erased_before or arguments.force)
    if has_work and not is_sure and not receipts.ask(plan):
        raise ConfigError("the answer was no, so nothing was erased")
    receipt = erasure.make_receipt()
    if not arguments.dry_run:
        receipt = erasure.carry_out(force=arguments.force, leave_unhashed=arguments.leave_unhashed)
        if receipt.tombstones or receipt.recordings:
            receipts.clear_search_indexes(erasure.table_id)
    line = f"{receipt.recordings} recordings {'would be ' if arguments.dry_run else ''}erased"
    counts = {name: getattr(receipt, name) for name in ("recordings", "unknown")} | {"dry_run": arguments.dry_run}

    def show(line: str) -> None:
        receipts.show_receipt(receipt, plan, dry_run=arguments.dry_run, form=arguments.format)

    logs.log_event("erased", line, show, **counts)
    if arguments.dry_run:  # it has shown all: a script learns what the command itself would answer
        erasure.require_hashes(leave_unhashed=arguments.leave_unhashed)
    is_unknown = bool(plan.unknown.recordings or (plan.unknown and not arguments.force))
    return _SOME_UNKNOWN if is_unknown or receipt.log_files_left or receipt.unfinished_left else 0
