"""What `dictalake extract` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from dictalake import logs
from dictalake.cli.tables import print_json, print_lines
from dictalake.config.sections import Config
from dictalake.extraction.extract import ExtractSummary, extract
from dictalake.lake.query import connect
from dictalake.observers.stats import format_duration

# Of the rows of one run: items by kind, and items that were dropped by reason.
_ITEMS = """
    SELECT sum(len(findings)), sum(len(medications)), sum(len(lab_values)), sum(len(follow_ups)), sum(len(impressions))
    FROM finding_rows WHERE run_id = ?
"""
_DROPPED = """
    SELECT entry.key, sum(entry.value) FROM (
        SELECT unnest(map_entries(dropped)) AS entry FROM finding_rows WHERE run_id = ?
    ) GROUP BY ALL ORDER BY ALL
"""
_KINDS = ("findings", "medications", "lab_values", "follow_ups", "impressions")


def extract_lake(config: Config, *, retry_failed: bool, form: str) -> int:
    """The exit code: 3 where a transcript failed."""
    summary = extract(config, retry_failed=retry_failed)
    numbers = _count(summary, config)
    line = describe(summary, numbers)

    def show(text: str) -> None:
        if form == "json":
            print_json(numbers)
        else:
            print_lines(Console(), text)

    if logs.is_json() and form == "json":
        show("")
    level = logs.WARNING if summary.exit_code else logs.INFO
    logs.log_event("run_finished", line, show, level, **{key: value for key, value in numbers.items() if key != "failures"})
    return summary.exit_code


def _count(summary: ExtractSummary, config: Config) -> dict[str, Any]:
    with connect(config.lake.uri or "", config.lake.storage_options, names=("finding_rows",)) as database:
        [items] = database.execute(_ITEMS, [summary.run_id]).fetchall()
        dropped = dict(database.execute(_DROPPED, [summary.run_id]).fetchall())
    counts = summary.counts
    return {
        "run_id": summary.run_id,
        "fingerprint": summary.fingerprint,
        "found": counts.found,
        "done": counts.done,
        "claimed": counts.claimed,
        "ok": summary.ok,
        "failed": summary.failed,
        **{kind: int(count or 0) for kind, count in zip(_KINDS, items, strict=True)},
        "dropped": {reason: int(count) for reason, count in dropped.items()},
        "failures": summary.failures,
        "wall_s": round(summary.wall_s, 1),
    }


def describe(summary: ExtractSummary, numbers: dict[str, Any]) -> str:
    """A few lines for people."""
    counts = summary.counts
    if not counts.pending:
        waits = f", {counts.claimed} in work in another run" if counts.claimed else ""
        again = f", {counts.failed} of them failed (--retry-failed)" if counts.failed else ""
        return f"nothing to do: {counts.done} of {counts.found} transcripts are done{again}{waits}"
    items = ", ".join(f"{numbers[kind]} {kind.replace('_', ' ')}" for kind in _KINDS)
    lines = [f"{summary.ok} transcripts read in {format_duration(summary.wall_s)}: {items}"]
    if numbers["dropped"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in numbers["dropped"].items())
        lines.append(f"{sum(numbers['dropped'].values())} items dropped ({reasons})")
    if summary.failed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary.failures.items())
        lines.append(f"{summary.failed} failed ({reasons}); docs/failures.md says what to do")
    return "\n".join(lines)
