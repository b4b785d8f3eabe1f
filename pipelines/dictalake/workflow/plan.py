"""How many workers each stage gets on the cluster there is, and a clear refusal of a plan that cannot fit. No Ray in here."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from dictalake.audio.load import share_memory
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.observers.progress import show_stage

_NAMED = 5  # nodes in one warning


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
    """

    load: StagePlan
    emit: StagePlan
    decode: StagePlan
    finish: StagePlan
    threads: int

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
    # As the lake calls the stages; show_stage says what people read.
    model, decoders = ("hear", 0) if config.acoustic.gives_text else ("emit", decoders)
    plan = ResourcePlan(
        load=StagePlan("load", max(1, int(resources.cpus // 2)), 0.25 * scale, memory_mb=config.ray.load_memory_mb),
        emit=StagePlan(model, actors, config.acoustic.cpus_per_actor * scale, gpus, config.ray.emit_memory_mb),
        decode=StagePlan("decode", decoders, 0.5 * scale, memory_mb=config.ray.decode_memory_mb),
        finish=StagePlan("finish", max(1, int(resources.cpus // 4)), 0.25 * scale, memory_mb=config.ray.finish_memory_mb),
        # No more than the actors that share a node find there, if they spread evenly.
        threads=max(1, int(min(resources.cpus // actors, resources.largest_node.cpus))),
    )
    _check_fits(plan, resources)
    return plan


def _check_fits(plan: ResourcePlan, resources: Resources) -> None:
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
