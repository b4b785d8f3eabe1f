"""What ``dictalake forget`` erased, in numbers."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from dictalake.cli.tables import print_fields, print_json
from dictalake.lake.erase import Receipt


def show_receipt(receipt: Receipt, console: Console | None = None, *, dry_run: bool, form: str = "table") -> None:
    """Numbers only."""
    if form == "json":
        print_json(asdict(receipt) | {"dry_run": dry_run})
        return
    fields = [("recordings", str(receipt.recordings))]
    fields += [(f"  rows under {fingerprint}", str(count)) for fingerprint, count in sorted(receipt.rows.items())]
    if not dry_run:
        fields += [
            ("files deleted", str(receipt.files_deleted)),
            ("rows blanked in manifests", str(receipt.manifest_rows)),
            ("run records changed", str(receipt.run_records)),
            ("lines taken out of reports", str(receipt.report_lines)),
            ("rechecks removed", str(receipt.rechecks)),
            ("log files cleaned of values of rows", str(receipt.log_files)),
            ("tombstones", str(receipt.tombstones)),
        ]
    if not receipt.recordings and not receipt.unknown:
        kept_out = "" if dry_run else "; what you named is kept out all the same"
        fields.append(("note", f"the lake has no such row: check the spelling{kept_out}"))
    if receipt.unknown:
        fields.append(("recordings that the lake does not know", str(receipt.unknown)))
    if receipt.log_files_left:
        note = "a run wrote values of rows there meanwhile: when none is at work, run the same command again"
        fields.append((f"log files not cleaned: {receipt.log_files_left}", note))
    print_fields(fields, title="would be erased" if dry_run else f"erased, receipt {receipt.path}", console=console)
