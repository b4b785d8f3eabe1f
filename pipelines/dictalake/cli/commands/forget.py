"""Erase recordings from the lake for good, under every fingerprint, and keep them out.

    dictalake forget ./lake --uri gs://bucket/dictations/a.wav
    dictalake forget ./lake --study 1.2.840.99.1 --dry-run

It erases their rows, and what manifests, run records and reports hold of them; a tombstone keeps them from being transcribed
again. --recording, --uri, --study and --patient may be given many times. The archive's own objects stay. What else keeps old
bytes is for its owner to clear: versioning, soft deletion and backups of the bucket, and copies made of the table.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import CommandParser, add_format, add_lake, read_lake


def add_arguments(parser: CommandParser) -> None:
    add_lake(parser, "(--recording | --uri | --study | --patient) WHAT ")
    for name, what in (
        ("recording", "a recording_id"),
        ("uri", "the URI of an object, of a file in an archive object (URI#PATH), or of such an object with all its files"),
        ("study", "a Study Instance UID"),
        ("patient", "a patient hash, as in the column dicom.patient_id_hash"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="WHAT", help=what)
    parser.add_argument("--dry-run", action="store_true", help="only count what would be erased")
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    lake = read_lake(arguments)
    from dictalake import logs
    from dictalake.cli.erasure_receipt import show_receipt
    from dictalake.config.uris import list_spellings
    from dictalake.lake.erase import Subjects, forget

    uris = tuple(dict.fromkeys(spelling for uri in arguments.uri for spelling in list_spellings(uri)))
    subjects = Subjects(tuple(arguments.recording), uris, tuple(arguments.study), tuple(arguments.patient))
    receipt = forget(lake, subjects, dry_run=arguments.dry_run)
    line = f"{receipt.recordings} recordings {'would be ' if arguments.dry_run else ''}erased"
    counts = {name: getattr(receipt, name) for name in ("recordings", "unknown")} | {"dry_run": arguments.dry_run}

    def show(line: str) -> None:
        show_receipt(receipt, dry_run=arguments.dry_run, form=arguments.format)

    logs.log_event("erased", line, show, **counts)
    return 0
