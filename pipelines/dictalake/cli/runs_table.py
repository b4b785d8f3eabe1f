"""Who is at work on the lake, and what the last runs did.

dictalake runs --lake.uri gs://lake/speech
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from dictalake.cli.options import make_parser, parse, read_config
from dictalake.lake.claims import LeaseStore, SeenLease
from dictalake.lake.runs import RunLog
from dictalake.observers.progress import format_duration

_SHOWN = 20


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("runs", __doc__ or "")
    parser.add_argument("--last", type=int, default=_SHOWN, help="how many runs to show, the newest last")
    arguments, overrides = parse(parser, argv)
    lake = read_config(arguments, overrides).lake
    rows = list_runs(RunLog(lake, must_exist=True).read().to_pylist(), LeaseStore(lake).read())
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 160))
    console.print(make_table(rows[-arguments.last :] if arguments.last else rows))
    return 0


def list_runs(records: Iterable[dict[str, Any]], claims: Iterable[SeenLease]) -> list[dict[str, Any]]:
    """One dict a run, oldest first. A run without an end is ``running`` where its claim is alive, else it ``died``: what it had
    not committed is taken up by the next run."""
    runs: dict[str, dict[str, Any]] = {}
    for record in records:
        run = runs.setdefault(record["run_id"], {"state": "died", "sign": ""})
        if record["event"] == "started":
            found, not_its_own = record["recordings"], sum(record[name] or 0 for name in ("skipped", "claimed"))
            run |= {name: record[name] for name in ("run_id", "job", "host", "fingerprint")}
            run |= {"started": record["at"], "wanted": None if found is None else found - not_its_own}
        else:
            run |= {name: record[name] for name in ("ok", "failed", "audio_hours", "wall_s")} | {"state": record["event"]}
    for seen in claims:
        claim = seen.claim
        run = runs.setdefault(claim.run_id, {})
        run |= {name: getattr(claim, name) for name in ("run_id", "job", "host", "fingerprint", "ok", "failed", "audio_hours")}
        run |= {"started": datetime.fromisoformat(claim.started_at), "sign": f"{format_duration(max(0.0, seen.age_s))} ago"}
        run |= {"state": claim.state if seen.is_alive else "died", "wanted": claim.wanted}
    return sorted(runs.values(), key=lambda run: run.get("started") or datetime.min.replace(tzinfo=UTC))


def make_table(rows: Iterable[dict[str, Any]]) -> Table:
    table = Table(title="runs, times in UTC")
    for header in ("run", "job", "state", "last sign of life", "started", "took", "host", "fingerprint"):
        table.add_column(header, no_wrap=True)
    for header in ("wanted", "ok", "failed", "audio hours"):
        table.add_column(header, justify="right")
    for run in rows:
        started = run.get("started")
        took = run.get("wall_s")
        table.add_row(
            run.get("run_id") or "",
            run.get("job") or "",
            run["state"],
            run.get("sign") or "",
            "" if started is None else f"{started:%Y-%m-%d %H:%M:%S}",
            "" if took is None else format_duration(took),
            run.get("host") or "",
            run.get("fingerprint") or "",
            str(run.get("wanted") if run.get("wanted") is not None else ""),
            *("" if run.get(name) is None else str(run[name]) for name in ("ok", "failed")),
            "" if run.get("audio_hours") is None else f"{run['audio_hours']:.2f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
