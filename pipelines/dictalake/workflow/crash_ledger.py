"""The ledger of crashes as a run on a cluster has it: one actor beside the driver, and what the run reads in it.

Its rules are those of ``quarantine.CrashLedger``. It also knows what each stage has in hand, so the progress and the line about
a run that waits come from here.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from dictalake.observers.base import Observer
from dictalake.observers.progress import show_stage
from dictalake.observers.stats import RunStats
from dictalake.workflow import cluster  # noqa: F401  # first: it sets what Ray reads when it is imported
from dictalake.workflow.plan import ResourcePlan
from dictalake.workflow.quarantine import CrashLedger

import ray  # isort: skip
import ray.exceptions  # isort: skip
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # isort: skip


class ClusterCrashLedger:
    """The ledger of a run, an actor on the driver's node, as workers ask it; dead, it is started again and has forgotten.

    One that does not answer holds nobody up: work is then done as if nothing had happened.
    """

    _PATIENCE_S = 60.0

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._actor: Any = (
            ray.remote(CrashLedger)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
            # A lambda travels as itself: by the name of a function of this module the actor would have to import Ray Data.
            .remote(lambda: {node["NodeID"] for node in ray.nodes() if node["Alive"]})
        )
        self._question: Any = None
        self._runner = ""

    def for_runner(self, runner: str) -> ClusterCrashLedger:
        """The same ledger, as the workers of ``runner`` ask it."""
        ledger = copy(self)
        ledger._runner = runner
        return ledger

    def begin(self, stage: str, key: str, recordings: int) -> int:
        node = ray.get_runtime_context().get_node_id()
        return int(self._ask(self._actor.begin.remote(stage, key, recordings, node, self._runner)) or 0)

    def forgive(self, runner: str) -> None:
        """See CrashLedger.forgive. Nobody waits for the answer: a ledger that is gone would hold up all runners."""
        self._actor.forgive.remote(runner)

    def end(self, stage: str, key: str) -> None:
        self._actor.end.remote(stage, key)

    def in_work(self) -> dict[str, tuple[int, float]]:
        """See CrashLedger.in_work; empty where the ledger does not answer."""
        return self._ask(self._actor.in_work.remote()) or {}

    def peek(self) -> dict[str, tuple[int, float]] | None:
        """The newest answer of ``in_work`` without a wait for it; None where there is none yet."""
        if self._question is None:
            self._question = self._actor.in_work.remote()
        if not ray.wait([self._question], timeout=0)[0]:
            return None
        answer, self._question = self._ask(self._question), None
        return answer

    def _ask(self, answer: Any) -> Any:
        try:
            return ray.get(answer, timeout=self._PATIENCE_S)
        except ray.exceptions.RayError:
            return None


class StageCounter(Observer):
    """Keeps ``stats.in_work`` up to date: what each stage of ``plan`` has in hand."""

    name = "stage counter"

    def __init__(self, plan: ResourcePlan, ledger: ClusterCrashLedger, stats: RunStats) -> None:
        self._plan, self._ledger, self._stats = plan, ledger, stats

    def time_passed(self) -> None:
        in_work = self._ledger.peek()
        if in_work is not None:
            stages = (stage.name for stage in self._plan.stages)
            self._stats.in_work = {stage: in_work[stage][0] for stage in stages if stage in in_work}


def describe_wait(plan: ResourcePlan, ledger: ClusterCrashLedger, idle_s: float) -> str:
    """What a run waits for that has finished nothing for ``idle_s``."""
    in_work = ledger.in_work()
    nodes = sum(node["Alive"] for node in ray.nodes())
    has, free = ray.cluster_resources(), ray.available_resources()
    parts = []
    for stage in plan.stages:
        count, age_s = in_work.get(stage.name, (0, 0.0))
        parts.append(f"{show_stage(stage.name)} {count} in work" + (f" for {age_s:.0f} s" if count else ""))
    there = ", ".join(f"{free.get(kind, 0):g} of {has.get(kind, 0):g} {kind}s free" for kind in ("CPU", "GPU") if has.get(kind))
    asks = "; ".join(
        f"{show_stage(s.name)} {s.workers} x ({s.cpus:g} CPU, {s.gpus:g} GPU, {s.memory_mb:g} MB)" for s in plan.stages
    )
    what = "a worker to finish what it has" if in_work else "workers to start"
    return (
        f"nothing finished for {idle_s:.0f} s, waiting for {what}: {', '.join(parts)}; the cluster has {nodes} nodes, "
        f"{there or 'no CPUs'}; the run asks for {f'{plan.runners} runners, ' if plan.runners > 1 else ''}{asks}"
    )
