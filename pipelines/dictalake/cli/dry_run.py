"""Shows what a backfill would do."""

from __future__ import annotations

from dataclasses import asdict

from dictalake.cli.tables import print_fields, print_json
from dictalake.workflow.dry_run import DryRun


def show_dry_run(plan: DryRun, form: str) -> None:
    if form == "json":
        print_json(asdict(plan) | {"new": None if plan.new is None else str(plan.new)})
        return
    counts = plan.counts
    fields = [
        ("fingerprint", plan.fingerprint),
        ("model", plan.model),
        ("objects in the archive", f"{counts.found:,}"),
        ("  done before", f"{counts.skipped:,}"),
        ("  erased, left out", f"{counts.erased:,}"),
        ("  to do", f"{counts.pending:,}"),
        ("  of them again", f"{counts.retried:,}"),
        ("stored size", f"{plan.size_bytes / 1e6:,.1f} MB"),
        ("audio, estimated", _about(plan.audio_hours, "hours")),
        ("time, estimated", _about(plan.wall_hours, "hours")),
        ("cost, estimated", _about(plan.cost, plan.currency, unknown="unknown: set report.price_per_hour")),
    ]
    print_fields(fields)
    if plan.new is not None:
        print(f"\n{plan.new}")


def _about(value: float | None, unit: str, unknown: str = "unknown: the lake holds nothing to go by") -> str:
    return unknown if value is None else f"about {value:,.2f} {unit}"
