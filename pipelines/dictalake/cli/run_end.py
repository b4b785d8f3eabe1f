"""How a run ended: one log line, and what people see of it."""

from __future__ import annotations

from dictalake import logs
from dictalake.workflow.summary import RunSummary, number_summary


def log_end(summary: RunSummary, line: str, show: logs.Show | None, *, is_asked_for: bool = False) -> None:
    """``show`` shows it to people; with ``logs.format: json`` only where they asked for what it prints."""
    if show is not None and is_asked_for and logs.is_json():
        show(line)
    level = logs.WARNING if summary.exit_code else logs.INFO
    logs.log_event("run_finished", line, show, level, **number_summary(summary))
