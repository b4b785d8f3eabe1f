"""The runs of a lake, put together from the run records and the leases of those at work."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from dictalake.cli.tables import Column, print_table
from dictalake.lake.claims import SeenLease
from dictalake.observers.progress import format_duration

_KEYS = (
    *("run_id", "job", "state", "last_sign_s", "started", "took_s", "host", "fingerprint"),
    *("objects", "recordings", "transcribed", "failed", "audio_hours"),
)


def list_runs(records: Iterable[dict[str, Any]], claims: Iterable[SeenLease]) -> list[dict[str, Any]]:
    """One dict a run, oldest first, with the keys ``_KEYS``; what is not known is None.

    A run without an end is ``running`` where its claim is alive, else it ``died``: what it had not committed is taken up by the
    next run. ``last_sign_s`` says how many seconds ago a claim was renewed; without a claim it is None. ``objects`` is what the
    archive listed. ``recordings`` is what the run's own summary says, and while it works what its progress counts up to.
    """
    runs: dict[str, dict[str, Any]] = {}
    for record in records:
        run = runs.setdefault(record["run_id"], {**dict.fromkeys(_KEYS), "state": "died"})
        if record["event"] == "started":
            run |= {name: record[name] for name in ("run_id", "job", "host", "fingerprint")}
            run |= {"started": record["at"], "objects": record["recordings"]}  # the column's name is older than the words
        else:
            run |= {name: record[name] for name in ("run_id", "failed", "audio_hours")}
            run |= {"state": record["event"], "transcribed": record["ok"], "took_s": record["wall_s"]}
            if record["recordings"] is not None:  # it was listed while the run was at work
                run["objects"] = record["recordings"]
            run |= {"recordings": None if record["ok"] is None else record["ok"] + (record["failed"] or 0)}
    for seen in claims:
        claim = seen.lease
        run = runs.setdefault(claim.run_id, dict.fromkeys(_KEYS))
        run |= {name: getattr(claim, name) for name in ("run_id", "job", "host", "fingerprint", "failed", "audio_hours")}
        run |= {"started": datetime.fromisoformat(claim.started_at), "last_sign_s": round(max(0.0, seen.age_s), 1)}
        run |= {"state": claim.state if seen.is_alive else "died", "recordings": claim.wanted, "transcribed": claim.ok}
    return sorted(runs.values(), key=lambda run: run["started"] or datetime.min.replace(tzinfo=UTC))


def show_runs(rows: Iterable[dict[str, Any]], console: Console | None = None) -> None:
    """One line a run, or one field a line where that is too wide."""
    columns = [*("run", "job", "state", "last sign of life", "started", "took", "host", "fingerprint")]
    numbers = [Column(name, is_number=True) for name in ("objects", "recordings", "transcribed", "failed", "audio hours")]
    print_table([*columns, *numbers], [_cells(run) for run in rows], title="runs, times in UTC", console=console)


def _cells(run: dict[str, Any]) -> list[str]:
    sign, started, took, hours = run["last_sign_s"], run["started"], run["took_s"], run["audio_hours"]
    return [
        run["run_id"],
        run["job"] or "",
        run["state"],
        "" if sign is None else f"{format_duration(sign)} ago",
        "" if started is None else f"{started:%Y-%m-%d %H:%M:%S}",
        "" if took is None else format_duration(took),
        run["host"] or "",
        run["fingerprint"] or "",
        *("" if run[name] is None else str(run[name]) for name in ("objects", "recordings", "transcribed", "failed")),
        "" if hours is None else f"{hours:.2f}",
    ]
