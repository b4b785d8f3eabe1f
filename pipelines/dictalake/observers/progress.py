"""The progress of a run: live lines on a terminal, one plain line a minute elsewhere. Never names, URIs or text."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dictalake import logs
from dictalake.observers.base import Observer, RunEnd
from dictalake.observers.stats import RunStats as RunStats
from dictalake.observers.stats import format_duration as format_duration

_LINE_EVERY_S = 60.0
_BAR_WIDTH = 20
_STAGE_NAMES = {"hear": "recognize"}  # stored under the older name


class ProgressReport(Observer):
    """Shows a RunStats while it grows: on a terminal at once what the run is busy with, then a bar and the stages below it."""

    name = "progress"

    def __init__(self, stats: RunStats, console: Console) -> None:
        self._stats = stats
        self._last_line = time.monotonic()
        self._spinner: Spinner | None = Spinner("dots", Text("starting …"))
        self._live: Live | None = None
        if console.is_terminal and not logs.is_json():
            self._live = Live(
                get_renderable=self._render, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
            )

    def step_started(self, step: str) -> None:
        if self._live is not None:
            self._spinner = Spinner("dots", Text(f"{step} …"))
            self._live.start()

    def block_finished(self) -> None:
        self._spinner = None

    def time_passed(self) -> None:
        if self._live is not None:
            self._live.refresh()
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            logs.log_event("progress", self._stats.describe(), **self._stats.numbers())

    def run_ended(self, end: RunEnd) -> None:
        if self._live is not None:
            self._live.stop()

    def _render(self) -> RenderableType:
        """Two lines of less than 80 characters each."""
        stats = self._stats
        if self._spinner is not None:
            return Group(self._spinner, Text(describe_stages(stats.in_work), style="dim")) if stats.in_work else self._spinner
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, stats.wanted), completed=stats.done, width=_BAR_WIDTH)
        line.add_row("transcribing", bar, f"{stats.done} of {stats.shown_wanted} recordings", self._describe_rest())
        return Group(line, Text(describe_stages(stats.in_work), style="dim"))

    def _describe_rest(self) -> str:
        failed = f"{self._stats.failed} failed" if self._stats.failed else ""
        left_s = self._stats.left_s
        return ", ".join(filter(None, [failed, "" if left_s is None else f"{format_duration(left_s)} left"]))


def describe_stages(in_work: Mapping[str, int]) -> str:
    """How many recordings each stage has in hand, in the order of the work."""
    stages = ", ".join(f"{show_stage(stage)} {count}" for stage, count in in_work.items())
    return f"in work: {stages or 'none'}"


def show_stage(name: str) -> str:
    """A stage as people read it; in the lake, in metrics and in errors it has its stored name."""
    return _STAGE_NAMES.get(name, name)


class StallMonitor(Observer):
    """Says what the run waits for when nothing was finished for ``stall_s``, and again each such time after.

    ``describe`` is asked with the seconds.
    """

    name = "stall monitor"

    def __init__(self, stats: RunStats, stall_s: float, describe: Callable[[float], str]) -> None:
        self._stats, self._stall_s, self._describe = stats, stall_s, describe
        self._done, self._since = stats.done, time.monotonic()
        self._told = self._since

    def time_passed(self) -> None:
        now = time.monotonic()
        if self._stats.done != self._done:
            self._done, self._since, self._told = self._stats.done, now, now
        elif now - self._told >= self._stall_s:
            self._told = now
            idle_s = now - self._since
            line = self._describe(idle_s)
            logs.log_event("waiting", line, level=logs.WARNING, idle_s=round(idle_s), **self._stats.numbers())
