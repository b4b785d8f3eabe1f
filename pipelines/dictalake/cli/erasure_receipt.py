"""What ``dictalake forget`` would erase, the question whether it should, and what it erased, in numbers.

What was named and matches nothing is told one by one, on standard output alone: by value on a terminal, else by its number,
as what is piped may be kept. JSON, for programs, has all values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from platformdirs import user_cache_path
from rich.console import Console

from dictalake import terminal
from dictalake.cli.tables import Column, print_fields, print_json, print_lines, print_table
from dictalake.lake.erase import Plan, Receipt, Subjects
from dictalake.lake.row_search import Row

_SHOWN = 20  # recordings
_WORDS = {"recordings": "recording", "uris": "uri", "studies": "study", "patients": "patient"}


def show_plan(plan: Plan, *, is_forced: bool = False, console: Console | None = None) -> None:
    """Counts, dates and recordings. Their URIs are shown on a terminal alone, as what is piped may be kept."""
    console = console or Console()
    if plan.rows or plan.waiting:
        print_fields(_describe(plan), title="to be erased", console=console)
    found = _group(plan.rows)
    if found:
        columns = [Column("recording_id"), Column("month"), Column("transcribed"), Column("rows", is_number=True)]
        columns += [Column("uri", may_wrap=True)] if console.is_terminal else []
        rows = [
            (one["recording_id"], one["month"], one["transcribed"], str(one["rows"]), one["uri"] or "")[: len(columns)]
            for one in found[:_SHOWN]
        ]
        print_table(columns, rows, console=console)
        if len(found) > _SHOWN:
            print_lines(console, f"… and {len(found) - _SHOWN} more; --format json --dry-run lists them all")
    print_lines(console, *_tell_unknown(plan, is_forced=is_forced, is_kept=not console.is_terminal))


def _describe(plan: Plan) -> list[tuple[str, str]]:
    fields = [("recordings", str(plan.recordings))]
    counts = Counter(row["fingerprint"] for row in plan.rows)
    fields += [(f"  rows under {fingerprint}", str(count)) for fingerprint, count in sorted(counts.items())]
    for name, values in (
        ("recorded", [row["recorded_month"] for row in plan.rows]),
        ("transcribed", [f"{row['transcribed_at']:%Y-%m-%d}" for row in plan.rows if row["transcribed_at"]]),
    ):
        if values:
            fields.append((name, " to ".join(dict.fromkeys((min(values), max(values))))))
    if plan.waiting:
        fields.append(("without a row yet", str(plan.waiting)))
    return fields


def _group(of: Sequence[Row]) -> list[dict[str, Any]]:
    """The recordings with their rows counted, the newest month first."""
    grouped: dict[str, list[Row]] = {}
    for row in of:
        grouped.setdefault(row["recording_id"], []).append(row)
    found = []
    for recording_id, rows in grouped.items():
        seen = [row["transcribed_at"] for row in rows if row["transcribed_at"]]
        found.append(
            {
                "recording_id": recording_id,
                "month": max(row["recorded_month"] for row in rows),
                "transcribed": f"{max(seen):%Y-%m-%d}" if seen else "",
                "rows": len(rows),
                "uri": rows[0]["uri"],
            }
        )
    return sorted(found, key=lambda one: (one["month"], one["recording_id"]), reverse=True)


def _tell_unknown(plan: Plan, *, is_forced: bool, is_kept: bool) -> Iterator[str]:
    """With ``is_kept`` the output may be kept: it says which of the options of a kind is meant, and no value."""
    for name, word in _WORDS.items():
        asked = getattr(plan.asked, name)
        for one in getattr(plan.erased_before, name):
            yield f"{_call(word, one, asked, is_kept=is_kept)}: was erased before"
        for one in getattr(plan.unknown, name):
            outcome = "it is kept out from now on" if is_forced and name != "recordings" else "it is not kept out"
            told = _call(word, one, asked, is_kept=is_kept)
            yield f"{told}: matches nothing in the lake, check the spelling; {outcome}"
    for row in plan.doubtful:
        yield f"--recording {row['recording_id']}: may be meant too, but its path leads to another file now; it is left"
    if plan.unhashed:
        yield f"{plan.unhashed} rows of DICOM objects have no such hash of the patient: nobody can tell whose they are"


def _call(word: str, value: str, asked: Sequence[str], *, is_kept: bool) -> str:
    return f"--{word} number {asked.index(value) + 1}" if is_kept else f"--{word} {value}"


def ask(plan: Plan) -> bool:
    """Asks at the terminal, on standard error."""
    rows = f"{plan.recordings} recordings ({len(plan.rows)} rows)" if plan.rows else "what is named above"
    terminal.stderr().write(f"Erase {rows} for good? [y/N] ")
    terminal.stderr().flush()
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False


def clear_search_indexes(table_id: str) -> None:
    """Deletes this user's indexes of the lake. They are made anew by the next search."""
    root = user_cache_path("dictalake") / "search"
    if root.is_dir():
        from dictalake.lake.search import clear_indexes

        clear_indexes(root, table_id)


def show_receipt(receipt: Receipt, plan: Plan, console: Console | None = None, *, dry_run: bool, form: str = "table") -> None:
    """Numbers only; as JSON also what was found and what was not, for the program that asked."""
    if form == "json":
        named: dict[str, Any] = {"unknown_named": _name(plan.unknown), "erased_before": _name(plan.erased_before)}
        named["doubtful"] = _group(plan.doubtful)
        print_json(asdict(receipt) | {"dry_run": dry_run, "unhashed": plan.unhashed, "found": _group(plan.rows), **named})
        return
    if dry_run:
        return
    if not (receipt.path or receipt.files_deleted):
        print_lines(console or Console(), "nothing was erased")
        return
    fields = [
        ("recordings", str(receipt.recordings)),
        ("files deleted", str(receipt.files_deleted)),
        ("rows blanked in manifests", str(receipt.manifest_rows)),
        ("run records changed", str(receipt.run_records)),
        ("lineage events changed", str(receipt.lineage_events)),
        ("lines taken out of reports", str(receipt.report_lines)),
        ("rechecks removed", str(receipt.rechecks)),
        ("pairs of replaced recordings removed", str(receipt.superseded)),
        ("records of corrections removed", str(receipt.corrections)),
        ("records of who opened them removed", str(receipt.accesses)),
        ("log files cleaned of values of rows", str(receipt.log_files)),
        ("tombstones", str(receipt.tombstones)),
    ]
    if receipt.log_files_left:
        note = "a run wrote values of rows there meanwhile: when none is at work, run the same command again"
        fields.append((f"log files not cleaned: {receipt.log_files_left}", note))
    if receipt.unfinished_left:
        note = "somebody may be writing them; if not, run the same command again in an hour"
        fields.append((f"unfinished files left: {receipt.unfinished_left}", note))
    print_fields(fields, title=f"erased, receipt {receipt.path}", console=console)


def _name(subjects: Subjects) -> dict[str, list[str]]:
    return {name: list(values) for name, values in vars(subjects).items() if values}
