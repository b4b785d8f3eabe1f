"""How many workers each stage gets on the cluster there is, and a clear refusal of a plan that cannot fit. No Ray in here."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from dictalake.audio.load import share_memory
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.observers.progress import show_stage

_NAMED = 5  # nodes in one warning
# For ray.runners: auto. Seconds of processor time that a runner spends on a block (jobs/benchmarks/driver.py measures them),
# the speed that a fast GPU may reach, and how busy a runner may be before its GPUs wait for it.
RUNNER_BLOCK_S, _GPU_SPEED, _MOST_BUSY = 0.03, 25_000.0, 0.9
_CPUS_FOR_ONE_MORE = 8.0  # a runner with so many CPUs takes one of them for itself; one with fewer has too little to do


class Node(NamedTuple):
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float
    memory_mb: float = math.inf
    name: str = ""


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
class ResourcePlan:
    """What each stage asks of the cluster. ``threads`` is what one emit worker may use on a CPU.

    Where an engine gives text itself, ``emit`` is the stage recognize (``hear`` in the lake) and ``decode`` has no workers.
    With more than one of ``runners``, these are the workers of all, and each runner takes ``runner_cpus`` for itself.
    """

    load: StagePlan
    emit: StagePlan
    decode: StagePlan
    finish: StagePlan
    threads: int
    runners: int = 1
    runner_cpus: float = 0.0

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        return tuple(stage for stage in (self.load, self.emit, self.decode, self.finish) if stage.workers)


class HeavyPlan(NamedTuple):
    """The memory of the one recording on each node that may take ``limits.decode_mb``, beside what the stages ask for.

    It is reserved on ``nodes``. ``warning`` names those that cannot hold it.
    """

    memory_mb: float
    nodes: tuple[str, ...] = ()
    warning: str | None = None


def plan_heavy(config: Config, plan: ResourcePlan, resources: Resources) -> HeavyPlan:
    """Where such a recording has room. A node without it is no reason to refuse a run: few recordings need so much."""
    memory_mb = config.limits.decode_mb
    if share_memory(config) >= memory_mb:
        return HeavyPlan(0.0)
    named = [node for node in resources.nodes if node.name]
    hold = {node.name for node in named if node.memory_mb >= memory_mb + plan.load.memory_mb}
    rest = tuple(n._replace(memory_mb=n.memory_mb - memory_mb * (n.name in hold)) for n in resources.nodes)
    try:
        _check_fits(plan, replace(resources, nodes=rest, memory_mb=resources.memory_mb - memory_mb * len(hold)))
    except ConfigError:
        hold = set()
    lack = [f"{node.name} {node.memory_mb:.0f}" for node in named if node.name not in hold]
    if not lack:
        return HeavyPlan(memory_mb, tuple(sorted(hold)))
    more = f" and {len(lack) - _NAMED} more" if len(lack) > _NAMED else ""
    return HeavyPlan(
        memory_mb,
        tuple(sorted(hold)),
        f"decoding one recording may take limits.decode_mb = {memory_mb:g} MB beside the workers, and {len(lack)} of "
        f"{len(named)} nodes cannot hold that (memory in MB, as Ray counts it: {', '.join(lack[:_NAMED])}{more}): there a very "
        "long or hostile recording may end workers; take larger nodes, or lower limits.decode_mb",
    )


def make_plan(config: Config, resources: Resources) -> ResourcePlan:
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
    runners = _count_runners(config, actors, actors * gpus)
    # As the lake calls the stages; show_stage says what people read.
    model, decoders = ("hear", 0) if config.acoustic.gives_text else ("emit", decoders)
    plan = ResourcePlan(
        load=StagePlan("load", max(1, int(resources.cpus // 2)), 0.25 * scale, memory_mb=config.ray.load_memory_mb),
        emit=StagePlan(model, actors, config.acoustic.cpus_per_actor * scale, gpus, config.ray.emit_memory_mb),
        decode=StagePlan("decode", decoders, 0.5 * scale, memory_mb=config.ray.decode_memory_mb),
        finish=StagePlan("finish", max(1, int(resources.cpus // 4)), 0.25 * scale, memory_mb=config.ray.finish_memory_mb),
        # No more than the actors that share a node find there, if they spread evenly.
        threads=max(1, int(min(resources.cpus // max(actors, runners), resources.largest_node.cpus))),
    )
    if config.ray.runners == "auto":
        return _fit_runners(plan, runners, resources)
    if runners > 1:
        plan = _spread(plan, runners, resources.cpus)
        if plan.emit.workers > actors and (on_gpu or config.acoustic.actors != "auto"):
            raise ConfigError(f"ray.runners = {runners}, but there are only {actors} models (acoustic.actors) to share out")
    _check_fits(plan, resources)
    return plan


def _fit_runners(plan: ResourcePlan, most: int, resources: Resources) -> ResourcePlan:
    """``plan`` with as many runners as find room, at most so many: they are there for speed alone."""
    for runners in range(most, 1, -1):
        with suppress(ConfigError):
            spread = _spread(plan, runners, resources.cpus)
            _check_fits(spread, resources)
            return spread
    _check_fits(plan, resources)
    return plan


def _count_runners(config: Config, actors: int, gpus: float) -> int:
    """As ``ray.runners`` says; auto: so many that the ``gpus`` need not wait for them, each with a model at least."""
    if config.ray.runners != "auto":
        return config.ray.runners
    per_runner = max(1, int(_MOST_BUSY * config.ray.block_audio_s / (_GPU_SPEED * RUNNER_BLOCK_S)))
    return max(1, min(actors, math.ceil(gpus / per_runner)))


def _spread(plan: ResourcePlan, runners: int, cpus: float) -> ResourcePlan:
    """``plan`` with at least one worker of each stage for each runner; where there are fewer, these are smaller instead."""

    def spread(stage: StagePlan) -> StagePlan:
        if not 0 < stage.workers < runners:
            return stage
        share = math.floor(1e4 * stage.cpus * stage.workers / runners) / 1e4  # Ray counts no finer
        return replace(stage, workers=runners, cpus=share)

    return replace(
        plan,
        load=spread(plan.load),
        emit=spread(plan.emit),
        decode=spread(plan.decode),
        finish=spread(plan.finish),
        runners=runners,
        runner_cpus=1.0 if cpus / runners >= _CPUS_FOR_ONE_MORE else 0.0,
    )


def split_plan(plan: ResourcePlan) -> list[ResourcePlan]:
    """The part of each runner: the workers of each stage are divided as evenly as can be."""

    def divide(stage: StagePlan, number: int) -> StagePlan:
        return replace(stage, workers=(stage.workers + plan.runners - 1 - number) // plan.runners)

    return [
        replace(
            plan,
            load=divide(plan.load, number),
            emit=divide(plan.emit, number),
            decode=divide(plan.decode, number),
            finish=divide(plan.finish, number),
        )
        for number in range(plan.runners)
    ]


def _check_fits(plan: ResourcePlan, resources: Resources) -> None:
    # Actors hold their share all the time; of the tasks at least one of each stage (and runner) must find room beside them.
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
    least = {s.name: s.workers if s in (plan.emit, plan.decode) else plan.runners for s in plan.stages}
    cpus = sum(s.cpus * least[s.name] for s in plan.stages) + (plan.runners * plan.runner_cpus)
    gpus = plan.emit.workers * plan.emit.gpus
    memory_mb = sum(s.memory_mb * least[s.name] for s in plan.stages)
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
