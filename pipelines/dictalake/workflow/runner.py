"""A runner: an actor that executes one Ray Data pipeline over the shares that the driver gives it.

Its first stage asks it for a share at a time, so a runner that is slow takes fewer. The driver asks for reports, and gives
shares along with the question (``poll``). The runner knows nothing of the lake's table: only the driver commits.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from dictalake.config.sections import Config, Lake
from dictalake.errors import DictalakeError, RunError, name_place
from dictalake.workflow import cluster
from dictalake.workflow.flow import MOST_TASKS, Flow, connect, open_source, read_reports
from dictalake.workflow.package_hash import Package, read_own_package, require_same_package
from dictalake.workflow.plan import ResourcePlan
from dictalake.workflow.quarantine import Ledger, read_umask, with_display_name
from dictalake.workflow.report_reader import ReportReader
from dictalake.workflow.shares import Share
from dictalake.workflow.stages.load import FromManifest

import ray  # isort: skip
from ray.data import DataContext, ExecutionResources  # isort: skip

SHARE = "share"  # the column that says to which share a row, or a report, belongs
_GATHER_S = 0.25  # reports of so long go to the driver at once: an answer costs it more than a report
_WAIT_S = 0.2  # a first stage without a share asks again after this
_TICK_S, _PATIENCE_S = 0.1, 10.0  # with a pipeline: looks whether it is over so often; waits so long for its end
_STOCK = 2  # shares for each worker of the first stage that lie ready


@dataclass(frozen=True)
class Limits:
    """The part of the cluster that Ray Data may count as this runner's."""

    cpus: float
    gpus: float
    memory_bytes: float
    object_store_bytes: float


@dataclass(frozen=True)
class Order:
    """What a runner is made for: a part of the cluster, and at most so many ``shares``. The last two are the driver's."""

    name: str
    flow: Flow
    config: Config
    plan: ResourcePlan
    limits: Limits
    shares: int
    package: Package = field(default_factory=read_own_package)
    umask: int = field(default_factory=read_umask)


@dataclass(frozen=True)
class Answer:
    """What a runner says to the driver: new reports with their shares, shares that are finished, how many it would like, and
    the error that ended it. ``is_idle``: no pipeline is open. ``cpu_s`` is the processor time of its process so far."""

    reports: pa.Table | None = None
    completed: tuple[int, ...] = ()
    wants: int = 0
    is_idle: bool = True
    error: DictalakeError | None = None
    cpu_s: float = 0.0


@dataclass
class _Taken:
    """A share in work: how many rows were loaded of it, once that is known, and how many were reported."""

    share: Share
    loaded: int | None = None
    reported: int = 0

    @property
    def is_complete(self) -> bool:
        return self.loaded is not None and self.reported >= self.loaded


@dataclass
class Tickets:
    """Which share each task of the first stage got. A task that is run again gets the same one.

    ``take`` gives a share, "wait" while none is there, or "end" when there will be none.
    """

    stock: deque[Share] = field(default_factory=deque)
    taken: dict[int, _Taken] = field(default_factory=dict)  # by number of the share
    is_draining: bool = False
    _by_ticket: dict[int, Share | None] = field(default_factory=dict)

    def begin_pipeline(self) -> None:
        self._by_ticket.clear()
        self.taken.clear()

    def take(self, ticket: int) -> Share | Literal["wait", "end"]:
        if ticket not in self._by_ticket:
            if not self.stock and not self.is_draining:
                return "wait"
            share = self.stock.popleft() if self.stock else None
            self._by_ticket[ticket] = share
            if share is not None:
                self.taken[share.number] = _Taken(share)
        return self._by_ticket[ticket] or "end"

    def note_loaded(self, number: int, rows: int) -> bool:
        """All of a share was loaded; whether it is complete now."""
        if number not in self.taken:
            return False
        self.taken[number].loaded = rows
        return self.taken[number].is_complete

    def note_reported(self, number: int, rows: int) -> bool:
        if number not in self.taken:
            return False
        self.taken[number].reported += rows
        return self.taken[number].is_complete

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for an open pipeline."""
        return self.is_draining and not self.stock and not self.taken


class Runner:
    """The actor. ``poll`` comes from the driver, ``take`` and ``note_loaded`` from workers of the first stage."""

    def __init__(self, order: Order, ledger: Ledger) -> None:
        os.umask(order.umask)
        self._order, self._ledger = order, ledger
        self._tickets, self._pipeline = Tickets(), 0
        self._reports: list[pa.Table] = []
        self._completed: list[int] = []
        self._is_idle = True
        self._error: DictalakeError | None = None
        self._changed, self._answered_at = threading.Condition(), 0.0
        cluster.set_context(order.config)
        _limit(order.limits)
        self._me = ray.get_runtime_context().current_actor
        threading.Thread(target=self._work, name="pipelines", daemon=True).start()

    def poll(self, shares: list[Share], is_draining: bool, patience_s: float) -> Answer:
        """Takes in ``shares`` and says what is new, at the latest after ``patience_s``. ``is_draining``: there are no more."""
        with self._changed:
            self._tickets.stock.extend(shares)
            self._tickets.is_draining = is_draining
            self._changed.notify_all()
            until = time.monotonic() + patience_s
            while not self._has_news() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            while self._error is None and (left := self._answered_at + _GATHER_S - time.monotonic()) > 0:
                self._changed.wait(left)
            self._answered_at = time.monotonic()
            reports, self._reports = self._reports, []
            completed, self._completed = tuple(self._completed), []
            table = pa.concat_tables(reports) if reports else None
            return Answer(table, completed, self._find_wants(), self._is_idle, self._error, time.process_time())

    def take(self, pipeline: int, ticket: int) -> Share | Literal["wait", "end"]:
        """The share of task number ``ticket``."""
        with self._changed:
            if pipeline != self._pipeline:
                return "end"
            share = self._tickets.take(ticket)
            self._changed.notify_all()
            return share

    def note_loaded(self, pipeline: int, number: int, rows: int) -> None:
        """All ``rows`` of a share have been loaded."""
        with self._changed:
            if pipeline == self._pipeline and self._tickets.note_loaded(number, rows):
                self._finish(number)

    def _has_news(self) -> bool:
        lacks = self._find_wants() > 0 and not self._tickets.is_draining
        return bool(self._reports or self._completed or self._error or lacks)

    def _find_wants(self) -> int:
        return max(0, _STOCK * self._order.plan.load.workers - len(self._tickets.stock))

    def _finish(self, number: int) -> None:
        del self._tickets.taken[number]
        self._completed.append(number)
        self._changed.notify_all()

    def _work(self) -> None:
        """Opens a pipeline whenever there are shares and none is open, until the actor ends."""
        try:
            require_same_package(self._order.package)
            while True:
                with self._changed:
                    self._is_idle = True
                    self._changed.notify_all()
                    while not self._tickets.stock:
                        self._changed.wait()
                    self._is_idle = False
                    self._pipeline += 1
                    self._tickets.begin_pipeline()
                self._run_pipeline()
        except DictalakeError as error:
            self._fail(error)
        except Exception as error:  # its message may quote a row
            self._fail(RunError(f"runner {self._order.name} failed: {name_place(error)}; run the same command again to resume"))

    def _fail(self, error: DictalakeError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _run_pipeline(self) -> None:
        """Ends when no more shares come. It need not wait for the tasks that got none: each of them has a cost."""
        order = self._order
        source = with_display_name("Load", FromRunner)(*open_source(order.flow, self._ledger), self._me, self._pipeline)
        tickets = [pa.table({"ticket": [number]}) for number in range(min(MOST_TASKS, order.shares))]
        data = connect(order.flow, tickets, source, WithShare(order.flow.finish), order.plan, self._ledger)
        reader = ReportReader(read_reports(data), _TICK_S, cluster.make_interrupt(data))
        try:
            for report in reader:
                with self._changed:
                    if report is not None and report.num_rows:
                        self._take_in(report)
                    if self._tickets.is_over:
                        break
        finally:
            reader.stop(_PATIENCE_S)
        with self._changed:  # a pipeline that ended has reported all that it will ever report
            for number in list(self._tickets.taken):
                self._finish(number)

    def _take_in(self, report: pa.Table) -> None:
        self._reports.append(report)
        for number, ids in zip(report[SHARE].to_pylist(), report["recording_ids"], strict=True):
            if self._tickets.note_reported(number, len(ids)):
                self._finish(number)
        self._changed.notify_all()


class FromRunner(FromManifest):
    """Tickets → the output of ``load`` for the shares that the runner has for them; each row says which share."""

    def __init__(
        self, lake: Lake, run_id: str, load: Callable[[pa.Table], Iterator[pa.Table]], runner: Any, pipeline: int
    ) -> None:
        super().__init__(lake, run_id, load)
        self._runner, self._pipeline = runner, pipeline

    def __call__(self, tickets: pa.Table) -> Iterator[pa.Table]:  # type: ignore[override]
        for ticket in tickets["ticket"].to_pylist():
            share = self._take(ticket)
            if share is None:
                continue
            rows = 0
            for table in super().__call__(share.places, share.reported.leave_out):
                rows += table.num_rows
                yield table.append_column(SHARE, pa.array([share.number] * table.num_rows, pa.int64()))
            self._runner.note_loaded.remote(self._pipeline, share.number, rows)

    def _take(self, ticket: int) -> Share | None:
        while (share := ray.get(self._runner.take.remote(self._pipeline, ticket))) == "wait":
            time.sleep(_WAIT_S)
        return None if share == "end" else share


class WithShare:
    """The last stage, and the share of each report beside it."""

    def __init__(self, finish: Callable[[pa.Table], pa.Table]) -> None:
        self._finish = finish

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for number in pc.unique(table[SHARE]).to_pylist():
            report = self._finish(table.filter(pc.equal(table[SHARE], number)))
            yield report.append_column(SHARE, pa.array([number] * report.num_rows, pa.int64()))


def _limit(limits: Limits) -> None:
    """Ray Data counts the whole cluster as its own; here it may count this much."""
    DataContext.get_current().execution_options.resource_limits = ExecutionResources(
        cpu=limits.cpus, gpu=limits.gpus, memory=limits.memory_bytes, object_store_memory=limits.object_store_bytes
    )
