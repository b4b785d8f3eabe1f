"""Erases recordings from the lake for good: every fingerprint, manifests, run records and reports; a tombstone keeps them out.

    dictalake forget --lake.uri gs://lake/speech --uri gs://bucket/dictations/a.wav
    dictalake forget --lake.uri gs://lake/speech --study 1.2.840.99.1 --dry-run

--recording, --uri, --study and --patient (a hash of the column dicom.patient_id_hash and the like) may be given many times. The
archive's own objects are not touched. Beside the lake, what keeps old bytes is for its owner to end: versioning, soft deletion
and backups of the bucket, and copies made of the table.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dictalake import logs
from dictalake.cli.options import make_parser, parse, read_config
from dictalake.lake.erase import Receipt, Subjects, forget


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("forget", __doc__ or "")
    for name, what in (
        ("recording", "a recording_id"),
        ("uri", "the URI of an object, of a file in an archive object (URI#PATH), or of such an object with all its files"),
        ("study", "a Study Instance UID"),
        ("patient", "a patient hash"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], help=what)
    parser.add_argument("--dry-run", action="store_true", help="only count what would be erased")
    arguments, overrides = parse(parser, argv)
    uris = tuple(normalise_uri(uri) for uri in arguments.uri)
    subjects = Subjects(tuple(arguments.recording), uris, tuple(arguments.study), tuple(arguments.patient))
    receipt = forget(read_config(arguments, overrides).lake, subjects, dry_run=arguments.dry_run)
    line = f"{receipt.recordings} recordings {'would be ' if arguments.dry_run else ''}erased"
    counts = {name: getattr(receipt, name) for name in ("recordings", "unknown")} | {"dry_run": arguments.dry_run}
    logs.log_event("erased", line, lambda _: show_receipt(receipt, Console(), dry_run=arguments.dry_run), **counts)
    return 0


def normalise_uri(uri: str) -> str:
    """As the lake writes it: ``/data/a.wav`` is ``file:///data/a.wav``, ``gcs://`` is ``gs://``."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return f"file://{Path(uri).expanduser().absolute()}"
    return f"{ {'gcs': 'gs', 's3a': 's3', 'local': 'file'}.get(scheme, scheme) }://{rest}"


def show_receipt(receipt: Receipt, console: Console, *, dry_run: bool) -> None:
    """Numbers only."""
    table = Table(title="would be erased" if dry_run else f"erased, receipt {receipt.path}", show_header=False)
    table.add_row("recordings", str(receipt.recordings))
    for fingerprint, count in sorted(receipt.rows.items()):
        table.add_row(f"  rows under {fingerprint}", str(count))
    if not dry_run:
        table.add_row("files deleted", str(receipt.files_deleted))
        table.add_row("rows blanked in manifests", str(receipt.manifest_rows))
        table.add_row("run records changed", str(receipt.run_records))
        table.add_row("lines taken out of reports", str(receipt.report_lines))
        table.add_row("log files cleaned of values of rows", str(receipt.log_files))
        table.add_row("tombstones", str(receipt.tombstones))
    if not receipt.recordings and not receipt.unknown:
        table.add_row("note", "no row of the lake is of what was named: check its spelling; it is kept out all the same")
    if receipt.unknown:
        table.add_row("recordings that the lake does not know", str(receipt.unknown))
    if receipt.log_files_left:
        note = "a run put values of rows there meanwhile: when none is at work, run the same command again"
        table.add_row(f"log files not cleaned: {receipt.log_files_left}", note)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
