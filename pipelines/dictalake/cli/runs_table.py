"""The runs of a lake, put together from the run records and the leases of those at work."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from dictalake.cli.tables import Column, print_table
from dictalake.lake.claims import SeenLease
from dictalake.observers.progress import format_duration


def list_runs(records: Iterable[dict[str, Any]], claims: Iterable[SeenLease]) -> list[dict[str, Any]]:
    """One dict a run, oldest first. A run without an end is ``running`` where its claim is alive, else it ``died``: what it had
    not committed is taken up by the next run.

    ``objects`` is what the archive listed. ``recordings`` is what the run's own summary says, and while it works what its
    progress counts up to.
    """
    runs: dict[str, dict[str, Any]] = {}
    for record in records:
        run = runs.setdefault(record["run_id"], {"state": "died", "sign": ""})
        if record["event"] == "started":
            run |= {name: record[name] for name in ("run_id", "job", "host", "fingerprint")}
            run |= {"started": record["at"], "objects": record["recordings"]}  # the column's name is older than the words
        else:
            run |= {name: record[name] for name in ("ok", "failed", "audio_hours", "wall_s")} | {"state": record["event"]}
            run |= {"recordings": None if record["ok"] is None else record["ok"] + (record["failed"] or 0)}
    for seen in claims:
        claim = seen.lease
        run = runs.setdefault(claim.run_id, {})
        run |= {name: getattr(claim, name) for name in ("run_id", "job", "host", "fingerprint", "ok", "failed", "audio_hours")}
        run |= {"started": datetime.fromisoformat(claim.started_at), "sign": f"{format_duration(max(0.0, seen.age_s))} ago"}
        run |= {"state": claim.state if seen.is_alive else "died", "recordings": claim.wanted}
    return sorted(runs.values(), key=lambda run: run.get("started") or datetime.min.replace(tzinfo=UTC))


def show_runs(rows: Iterable[dict[str, Any]], console: Console | None = None) -> None:
    """One line a run, or one field a line where that is too wide."""
    columns = [*("run", "job", "state", "last sign of life", "started", "took", "host", "fingerprint")]
    numbers = [Column(name, is_number=True) for name in ("objects", "recordings", "transcribed", "failed", "audio hours")]
    print_table([*columns, *numbers], [_cells(run) for run in rows], title="runs, times in UTC", console=console)


def _cells(run: dict[str, Any]) -> list[str]:
    started, took, hours = run.get("started"), run.get("wall_s"), run.get("audio_hours")
    return [
        run.get("run_id") or "",
        run.get("job") or "",
        run["state"],
        run.get("sign") or "",
        "" if started is None else f"{started:%Y-%m-%d %H:%M:%S}",
        "" if took is None else format_duration(took),
        run.get("host") or "",
        run.get("fingerprint") or "",
        *("" if run.get(name) is None else str(run[name]) for name in ("objects", "recordings", "ok", "failed")),
        "" if hours is None else f"{hours:.2f}",
    ]
