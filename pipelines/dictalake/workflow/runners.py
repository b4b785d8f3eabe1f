"""The runners of a run, as the driver has them: gives them shares, takes their reports, and replaces those that die."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from dictalake import logs
from dictalake.config.sections import Config
from dictalake.errors import RunError
from dictalake.workflow import cluster  # noqa: F401  # first: it sets what Ray reads when it is imported
from dictalake.workflow.crash_ledger import ClusterCrashLedger
from dictalake.workflow.flow import MOST_TASKS, Flow, put_plainly
from dictalake.workflow.plan import ResourcePlan, split_plan
from dictalake.workflow.runner import SHARE, Answer, Limits, Order, Runner
from dictalake.workflow.shares import ShareBook

import ray  # isort: skip
import ray.exceptions  # isort: skip

_PATIENCE_S = 1.0  # a runner without news answers after this
_TICK_S = 0.5
_MOST_PAUSE_S = 30.0  # before a runner is replaced whose predecessors died without a report
_MOST_SILENCE_S = 300.0  # of a runner that has answered before; Ray says nothing of a process that hangs
_MOST_COUNTED_S = 2 * _TICK_S  # of one look: while this process is held up, so are the answers
MOST_DEATHS = 30  # of runners, one after the other without any report in between
_CALLS_AT_ONCE = 32  # beside those of the workers of the first stage
_OBJECT_STORE_SHARE = 0.5  # of the cluster's: what Ray Data itself takes by default
# How Ray says that a runner is gone, that it is out of reach, or that its answer is gone with its node.
_GONE = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,  # Ray's memory monitor ended it
    ray.exceptions.NodeDiedError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.ObjectLostError,
)


class RunnerPool:
    """``plan.runners`` actors that work off ``book``."""

    def __init__(self, flow: Flow, config: Config, plan: ResourcePlan, ledger: ClusterCrashLedger, book: ShareBook) -> None:
        self._flow, self._config, self._ledger, self._book = flow, config, ledger, book
        self._plans = split_plan(plan)
        self._limits = [_find_limits(part, plan.runners) for part in self._plans]
        self._actors: dict[str, Any] = {}  # by name
        self._polls: dict[Any, str] = {}  # question → name
        self._places: dict[str, int] = {}  # name → which part of the plan
        self._starts: list[tuple[float, int]] = [(0.0, place) for place in range(plan.runners)]  # when, and which part
        self._started, self._deaths = 0, 0
        self.cpu_s: dict[str, float] = {}  # name → processor time
        self._silent_s: dict[str, float] = {}  # name, once it has answered → for how long it has not
        self._looked_at = time.monotonic()
        self._is_over = threading.Event()

    def read_reports(self) -> Iterator[pa.Table]:
        """The reports of all runners, until all shares are finished. Raises RunError, ConfigError."""
        try:
            while not self._book.is_over and not self._is_over.is_set():
                self._start_due()
                for question in self._wait():
                    name = self._polls.pop(question)
                    try:
                        answer = ray.get(question)
                    except _GONE as error:
                        self._bury(name, type(error).__name__)
                        continue
                    except ray.exceptions.RayError as error:
                        raise put_plainly(error) from None
                    report = self._take_in(name, answer)
                    if self._is_over.is_set():  # nobody may come back here after a report: the runners end now
                        return
                    if report is not None:
                        yield report
                    self._ask(name, answer.wants)
                self._bury_silent()
        finally:
            for actor in self._actors.values():
                ray.kill(actor)

    def interrupt(self) -> None:
        """Ends ``read_reports`` soon."""
        self._is_over.set()

    def _wait(self) -> list[Any]:
        """The questions that are answered, or that nobody will answer any more."""
        if not self._polls:
            time.sleep(_TICK_S)
            return []
        return list(ray.wait(list(self._polls), num_returns=len(self._polls), timeout=0)[0]) or list(
            ray.wait(list(self._polls), timeout=_TICK_S)[0]
        )

    def _start_due(self) -> None:
        now = time.monotonic()
        for start in [one for one in self._starts if one[0] <= now]:
            self._starts.remove(start)
            self._start(start[1])

    def _start(self, place: int) -> None:
        self._started += 1
        name, plan = f"{place + 1}-{self._started}", self._plans[place]
        most = len(self._book) if self._book.is_closed else MOST_TASKS
        order = Order(name, self._flow, self._config, plan, self._limits[place], most)
        options = ray.remote(Runner).options(
            num_cpus=plan.runner_cpus, max_concurrency=_CALLS_AT_ONCE + plan.load.workers, max_restarts=0, max_task_retries=0
        )
        self._actors[name] = options.remote(order, self._ledger.for_runner(name))
        self._places[name] = place
        self._ask(name, 0)

    def _ask(self, name: str, wants: int) -> None:
        shares = self._book.take(name, wants)
        question = self._actors[name].poll.remote(shares, self._book.is_draining, _PATIENCE_S)
        self._polls[question] = name

    def _take_in(self, name: str, answer: Answer) -> pa.Table | None:
        if answer.error is not None:
            raise answer.error
        self.cpu_s[name], self._silent_s[name] = answer.cpu_s, 0.0
        if answer.reports is not None:
            self._deaths = 0
        return take_in(self._book, name, answer)

    def _bury_silent(self) -> None:
        """A runner that hangs is as good as dead."""
        now = time.monotonic()
        passed_s, self._looked_at = min(now - self._looked_at, _MOST_COUNTED_S), now
        for question, name in list(self._polls.items()):
            if name in self._silent_s:
                self._silent_s[name] += passed_s
                if self._silent_s[name] >= _MOST_SILENCE_S:
                    del self._polls[question]
                    self._bury(name, "no answer")

    def _bury(self, name: str, why: str) -> None:
        """Others do the work of a runner that died, and a new one takes its place."""
        self._deaths += 1
        self._silent_s.pop(name, None)
        place = self._places.pop(name)
        ray.kill(self._actors.pop(name))  # one that is only out of reach would keep the CPUs and GPUs of the new one
        self._ledger.forgive(name)
        shares = self._book.give_back(name)
        if self._deaths >= MOST_DEATHS:
            raise RunError(
                f"{self._deaths} runners died one after the other without finishing anything ({why}); what is committed stays: "
                "see that each machine has memory for its runners, or set ray.runners lower, and run the same command again"
            )
        line = f"a runner died ({why}): {shares} shares of the work go to others, and a new one starts"
        logs.log_event("runners", line, level=logs.WARNING, shares=shares)
        pause_s = 0.0 if self._deaths <= len(self._plans) else min(_MOST_PAUSE_S, 2.0 ** (self._deaths - len(self._plans)))
        self._starts.append((time.monotonic() + pause_s, place))


def take_in(book: ShareBook, runner: str, answer: Answer) -> pa.Table | None:
    """Notes in the book what ``runner`` says; returns its reports."""
    if answer.reports is not None:
        columns = (answer.reports[kind].to_pylist() for kind in (SHARE, "recording_ids", "archive_ids", "archive_rows"))
        for number, *rows in zip(*columns, strict=True):
            if number not in answer.completed:  # of these nobody will ask any more
                book.note(runner, number, zip(*rows, strict=True))
    for number in answer.completed:
        book.complete(runner, number)
    return answer.reports


def _find_limits(plan: ResourcePlan, runners: int) -> Limits:
    """What a runner with ``plan`` may count as its own: what its workers ask for, and as much of the object store as others."""
    cpus = sum(stage.cpus * stage.workers for stage in plan.stages)
    memory = sum(stage.memory_bytes * stage.workers for stage in plan.stages)
    store = ray.cluster_resources().get("object_store_memory", 0.0) * _OBJECT_STORE_SHARE / runners
    return Limits(cpus, plan.emit.workers * plan.emit.gpus, memory, store)
