"""The Ray edge: starts or joins a cluster, decides how many workers each stage gets, refuses a plan that cannot fit."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

from dictalake import logs, terminal
from dictalake.config.sections import Config
from dictalake.errors import ConfigError, RunError, name_place
from dictalake.observers.base import Observer
from dictalake.observers.progress import show_stage
from dictalake.observers.stats import RunStats
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow.quarantine import CrashLedger

# Ray reads these when it is imported: no usage reports, no colours or progress of its own.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Nor does a stray call, such as one of a thread that is late at the end, start a second Ray.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
# Beside its actors a small machine has more workers than CPUs, and Ray ends the others a second after they have nothing to do:
# each next block of their stage then waited for a new process, which took a fifth of two CPUs away from the model.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")

import ray
import ray.data
import ray.exceptions
from ray.data import DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


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

    def begin(self, stage: str, key: str, recordings: int) -> int:
        node = ray.get_runtime_context().get_node_id()
        return int(self._ask(self._actor.begin.remote(stage, key, recordings, node)) or 0)

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

    def __init__(self, plan: Plan, ledger: ClusterCrashLedger, stats: RunStats) -> None:
        self._plan, self._ledger, self._stats = plan, ledger, stats

    def time_passed(self) -> None:
        in_work = self._ledger.peek()
        if in_work is not None:
            stages = (stage.name for stage in self._plan.stages)
            self._stats.in_work = {stage: in_work[stage][0] for stage in stages if stage in in_work}


def make_interrupt(flow: ray.data.Dataset) -> Callable[[], None]:
    """A function that ends ``flow`` while it runs. Ray Data has none for an iteration that waits; its executor has.

    It holds neither: whoever holds an executor keeps its actors, and their CPUs, from the next run.
    """
    executors: weakref.WeakSet[Any] = weakref.WeakSet()
    create, weak_flow = type(flow)._create_executor, weakref.ref(flow)

    def create_and_keep() -> Any:
        there = weak_flow()
        assert there is not None
        executor = create(there)
        executors.add(executor)
        return executor

    flow._create_executor = create_and_keep  # type: ignore[method-assign]

    def interrupt() -> None:
        for executor in list(executors):
            executor.shutdown(force=True)

    return interrupt


def describe_wait(plan: Plan, ledger: ClusterCrashLedger, idle_s: float) -> str:
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
        f"{there or 'no CPUs'}; the run asks for {asks}"
    )


class Node(NamedTuple):
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float
    memory_mb: float = math.inf


@dataclass(frozen=True)
class Resources:
    """Logical CPUs, GPUs and memory of the whole cluster, and of each node; no nodes given: all of it is one."""

    cpus: float
    gpus: float
    nodes: tuple[Node, ...] = ()
    memory_mb: float = math.inf

    @property
    def largest_node(self) -> Node:
        return max(self.nodes, default=Node(self.cpus, self.gpus, self.memory_mb))

    def can_host(self, cpus: float, gpus: float, memory_mb: float) -> bool:
        """Whether one worker that asks so much has room on a node by itself."""
        return any(
            cpus <= node.cpus + 1e-6 and gpus <= node.gpus + 1e-6 and memory_mb <= node.memory_mb
            for node in self.nodes or [Node(self.cpus, self.gpus, self.memory_mb)]
        )


@dataclass(frozen=True)
class StagePlan:
    """``workers`` of a stage, each with ``cpus``, ``gpus`` and ``memory_mb``."""

    name: str
    workers: int
    cpus: float
    gpus: float = 0.0
    memory_mb: float = 0.0

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_mb * 1e6)


@dataclass(frozen=True)
class Plan:
    """What each stage asks of the cluster. ``threads`` is what one emit worker may use on a CPU.

    Where an engine gives text itself, ``emit`` is called hear and ``decode`` has no workers.
    """

    load: StagePlan
    emit: StagePlan
    decode: StagePlan
    finish: StagePlan
    threads: int

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        return tuple(stage for stage in (self.load, self.emit, self.decode, self.finish) if stage.workers)


@contextmanager
def running_cluster(config: Config) -> Iterator[Resources]:
    """A started or joined cluster; one that was started here is stopped at the end."""
    started_here = not ray.is_initialized()
    if started_here:
        _start(config)
    _set_context(config)
    try:
        total = ray.cluster_resources()
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = tuple(Node(n.get("CPU", 0.0), n.get("GPU", 0.0), n.get("memory", 0.0) / 1e6) for n in alive)
        yield Resources(total.get("CPU", 0.0), total.get("GPU", 0.0), nodes, total.get("memory", 0.0) / 1e6)
    finally:
        if started_here:
            ray.shutdown()
            if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _stop:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _start(config: Config) -> None:
    address = config.ray.address
    as_json = None
    if config.logs.format == "json":  # what workers and Ray's core write; the driver's own lines are ours again below
        os.environ.setdefault("RAY_BACKEND_LOG_JSON", "1")
        as_json = ray.LoggingConfig(encoding="JSON", log_level="ERROR")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, logging_config=as_json)
        else:
            ray.init(
                # Without an address Ray would join whatever cluster an environment variable names.
                address="local",
                num_cpus=config.ray.cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                logging_config=as_json,
            )
    except ConnectionError:
        if address is None:
            raise RunError(_explain_no_start("ConnectionError")) from None
        raise RunError(f"ray.address = {address}: no Ray cluster answers there; start one, or leave the key out") from None
    except Exception as error:  # Ray raises bare ones when a process of its own does not come up
        if address is None:
            raise RunError(_explain_no_start(name_place(error))) from None
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(f"ray.address = {address}: the cluster there refused this driver: {why}") from None
    finally:
        # Ray's own handler of SIGTERM ends the driver before what is finished is committed, and its handlers of crashes hide
        # ours. A script or a notebook has none: the default would end it without a last commit.
        if threading.current_thread() is threading.main_thread():
            is_none = on_sigterm is None or on_sigterm == signal.SIG_DFL
            signal.signal(signal.SIGTERM, _stop if is_none else on_sigterm)
    terminal.renew_faulthandler()
    logs.take_over_libraries()


def _stop(number: int, frame: FrameType | None) -> None:
    """Ends the run as a stopped one: what is finished is committed."""
    raise SystemExit(128 + number)


def _explain_no_start(what: str) -> str:
    folder = os.environ.get("RAY_TMPDIR")
    where = "RAY_TMPDIR, else /tmp" if folder is None else f"RAY_TMPDIR = {folder}"
    return (
        f"Ray cannot start on this machine ({what}). It needs a folder that it can write to ({where}), with a path of less "
        "than 60 characters, free disk and memory, and open ports on 127.0.0.1"
    )


def _set_context(config: Config) -> None:
    """Blocks by seconds of audio. Ray Data's own reports repeat what our progress says, in pieces nobody asked for."""
    context = DataContext.get_current()
    # Load gives tables of at most so much; Ray would join small ones up to its own size, and cut there.
    context.target_max_block_size = int(config.ray.block_audio_s * SAMPLE_RATE_HZ * 2)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # Ray's own wrapping keeps the text of an error alone
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it prints the tracebacks of workers; transcribe says what failed


def make_plan(config: Config, resources: Resources) -> Plan:
    """Workers per stage for these resources. Raises ConfigError with the numbers when one worker of each does not fit.

    A plan that asks for more than there is would wait for ever without a word: that is Ray's nature.
    """
    on_gpu = config.acoustic.device != "cpu" and resources.gpus > 0
    if config.acoustic.device == "cuda" and not on_gpu:
        raise ConfigError("acoustic.device = cuda, but the cluster has no GPU; use cpu or auto, or add a GPU node")
    scale = min(1.0, resources.cpus / 2)
    gpus = config.acoustic.gpus_per_actor if on_gpu else 0.0
    by_hardware = math.floor(resources.gpus / gpus) if on_gpu else int(resources.cpus // 8)
    actors = max(1, by_hardware) if config.acoustic.actors == "auto" else config.acoustic.actors
    decoders = max(1, int(resources.cpus // 4)) if config.decoding.actors == "auto" else config.decoding.actors
    model, decoders = ("hear", 0) if config.acoustic.gives_text else ("emit", decoders)
    plan = Plan(
        load=StagePlan("load", max(1, int(resources.cpus // 2)), 0.25 * scale, memory_mb=config.ray.load_memory_mb),
        emit=StagePlan(model, actors, config.acoustic.cpus_per_actor * scale, gpus, config.ray.emit_memory_mb),
        decode=StagePlan("decode", decoders, 0.5 * scale, memory_mb=config.ray.decode_memory_mb),
        finish=StagePlan("finish", max(1, int(resources.cpus // 4)), 0.25 * scale, memory_mb=config.ray.finish_memory_mb),
        # No more than the actors that share a node find there, if they spread evenly.
        threads=max(1, int(min(resources.cpus // actors, resources.largest_node.cpus))),
    )
    _check_fits(plan, resources)
    return plan


def _check_fits(plan: Plan, resources: Resources) -> None:
    # Actors hold their share all the time; of the tasks at least one of each stage must find room beside them.
    for stage in plan.stages:
        if not resources.can_host(stage.cpus, stage.gpus, stage.memory_mb):
            raise ConfigError(
                f"the plan does not fit the cluster: one worker of {show_stage(stage.name)} needs {stage.cpus:g} CPUs, "
                f"{stage.gpus:g} GPUs "
                f"and {stage.memory_mb:g} MB on one node, of {len(resources.nodes) or 1} the one with most CPUs has "
                f"{resources.largest_node.cpus:g} CPUs, {resources.largest_node.gpus:g} GPUs and "
                f"{resources.largest_node.memory_mb:.0f} MB; lower acoustic.cpus_per_actor, acoustic.gpus_per_actor or "
                f"ray.{'emit' if stage is plan.emit else stage.name}_memory_mb"
            )
    cpus = plan.emit.workers * plan.emit.cpus + plan.decode.workers * plan.decode.cpus + plan.load.cpus + plan.finish.cpus
    gpus = plan.emit.workers * plan.emit.gpus
    memory_mb = sum(s.memory_mb * (s.workers if s in (plan.emit, plan.decode) else 1) for s in plan.stages)
    if memory_mb > resources.memory_mb:
        asks = ", ".join(f"{show_stage(s.name)} {s.memory_mb:g}" for s in plan.stages)
        raise ConfigError(
            f"the plan does not fit the cluster: it needs {memory_mb:g} MB of memory (each worker in MB: {asks}), Ray counts "
            f"{resources.memory_mb:.0f}; free some, take fewer actors, or lower ray.emit_memory_mb and the like"
        )
    if cpus > resources.cpus + 1e-6 or gpus > resources.gpus + 1e-6:
        asks = ", ".join(f"{show_stage(s.name)} {s.workers} × ({s.cpus:g} CPU, {s.gpus:g} GPU)" for s in plan.stages)
        raise ConfigError(
            f"the plan does not fit the cluster: it needs {cpus:g} CPUs and {gpus:g} GPUs ({asks}), there are "
            f"{resources.cpus:g} and {resources.gpus:g}; lower acoustic.actors, decoding.actors or acoustic.cpus_per_actor"
        )
