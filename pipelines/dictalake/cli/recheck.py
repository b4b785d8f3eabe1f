"""Rechecks the rows of a lake: records what is found, shows the progress, and prints the rows that lost sound."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dictalake import logs
from dictalake.cli.tables import Column, print_json, print_lines, print_table
from dictalake.config.sections import Config
from dictalake.lake.rechecks import Recheck, RecheckLog
from dictalake.observers.stats import format_duration
from dictalake.workflow.recheck import RecheckList, recheck

_COMMIT_EVERY_S = 10.0
_LINE_EVERY_S = 60.0
_SHOWN = 100


@dataclass
class Findings:
    """What was found so far. ``lost`` are the records of rows that lost sound, ``unread`` counts the others by reason."""

    rows: int
    verdicts: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    lost: list[Recheck] = field(default_factory=list)

    def add(self, records: Sequence[Recheck]) -> None:
        for record in records:
            self.verdicts[record.verdict] += 1
            if record.verdict == "lost":
                self.lost.append(record)
            elif record.verdict == "unread":
                self.unread[record.reason or "unknown"] += 1

    @property
    def done(self) -> int:
        return sum(self.verdicts.values())

    @property
    def missing_s(self) -> float:
        return sum(record.missing_s or 0.0 for record in self.lost)

    @property
    def are_clear(self) -> bool:
        """Whether no row lost sound, as far as was compared."""
        return not (self.lost or self.unread or self.verdicts["unknown"])

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{self.done} of {self.rows} rows compared"] if self.rows else ["nothing to compare"]
        parts.append(f"{len(self.lost)} lost sound")
        if self.missing_s:
            parts[-1] += f", {format_duration(self.missing_s)} of it"
        if unknown := self.verdicts["unknown"]:
            parts.append(f"{unknown} may lack sound, nobody can tell")
        if changed := self.verdicts["changed"]:
            parts.append(f"{changed} are of bytes that are there no more")
        if self.unread:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.unread.most_common())
            parts.append(f"{sum(self.unread.values())} could not be read ({reasons})")
        return "; ".join(parts)

    def numbers(self) -> dict[str, Any]:
        """The same for machines."""
        verdicts = {name: self.verdicts[name] for name in ("lost", "complete", "unknown", "changed", "unread")}
        return {
            "rows": self.rows,
            "done": self.done,
            **verdicts,
            "missing_s": round(self.missing_s, 1),
            "reasons": dict(self.unread),
        }


def recheck_lake(config: Config, processes: int | None, *, again: bool, form: str) -> int:
    """The exit code: 3 where a row lost sound, may have lost some, or could not be compared.

    The table of records is there afterwards, also where there is nothing to compare: BigQuery's views read it.
    """
    with closing(RecheckList(config.lake, again=again)) as plan:
        findings = Findings(plan.rows)
        log = RecheckLog(config.lake)
        if plan.rows:
            _work(config, plan, processes or os.cpu_count() or 1, findings, log)

    def show(line: str) -> None:
        if form == "json":
            print_json(findings.numbers() | {"recordings": [_to_json(record) for record in _sort(findings.lost)]})
        else:
            show_findings(findings, line, Console())

    if logs.is_json() and form == "json":
        show("")
    level = logs.INFO if findings.are_clear else logs.WARNING
    logs.log_event("rechecked", findings.describe(), show, level, **findings.numbers())
    return 0 if findings.are_clear else 3


def _work(config: Config, plan: RecheckList, processes: int, findings: Findings, log: RecheckLog) -> None:
    """Records what is found every few seconds, and what is left when it is stopped."""
    console = Console(stderr=True)
    columns = (TextColumn("comparing"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True) if console.is_terminal and not logs.is_json() else None
    waiting: list[Recheck] = []
    last_commit = last_line = time.monotonic()
    with bar or nullcontext():
        task = bar.add_task("", total=plan.rows) if bar else None
        try:
            for records in recheck(config, plan, processes):
                waiting += records
                findings.add(records)
                now = time.monotonic()
                if bar is not None and task is not None:
                    bar.update(task, completed=findings.done)
                elif now - last_line >= _LINE_EVERY_S:
                    last_line = now
                    logs.log_event("progress", findings.describe(), logs.shown_on(console), **findings.numbers())
                if now - last_commit >= _COMMIT_EVERY_S:
                    log.append(waiting)
                    waiting, last_commit = [], now
        finally:
            if waiting:
                log.append(waiting)


def show_findings(findings: Findings, line: str, console: Console) -> None:
    """The rows that lost sound, the worst first, and what to do."""
    if findings.lost:
        worst = _sort(findings.lost)
        of_all = f", the worst {_SHOWN} of {len(worst)}" if len(worst) > _SHOWN else ""
        columns = [Column("recording_id"), *(Column(name, is_number=True) for name in ("lost", "row", "now"))]
        columns.append(Column("why", may_wrap=True))
        print_table(
            columns,
            [_cells(record) for record in worst[:_SHOWN]],
            title=f"rows that lost sound, in seconds{of_all}",
            console=console,
        )
    print_lines(console, line)
    if findings.lost:
        advice = "transcribe them again: dictalake backfill ARCHIVE LAKE --retry lost; the view `incomplete` lists them"
        print_lines(console, advice)


def _sort(lost: Sequence[Recheck]) -> list[Recheck]:
    """The worst first; before all those that are damaged throughout."""
    return sorted(lost, key=lambda one: (one.missing_s is not None, -(one.missing_s or 0.0), one.recording_id))


def _cells(record: Recheck) -> list[str]:
    numbers = (record.missing_s, record.row_duration_s, record.duration_s)
    why = record.reason or ", ".join(record.repairs or ()) or "more is read today"
    return [record.recording_id, *("" if number is None else f"{number:.1f}" for number in numbers), why]


def _to_json(record: Recheck) -> dict[str, Any]:
    names = ("recording_id", "fingerprint", "attempt", "reason", "missing_s", "row_duration_s", "duration_s", "lost_s")
    return {name: getattr(record, name) for name in names} | {"repairs": list(record.repairs or ())}
