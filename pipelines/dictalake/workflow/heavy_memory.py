"""Keeps memory of each node free for the one recording that may take ``limits.decode_mb`` there.

Ray counts what each stage asks for. It knows nothing of a decoder that a load worker starts beside itself, so this much is
taken out of its count for the time of a run: by a placement group a node, which needs no process.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext, ExecutionOptions, ExecutionResources
from ray.util.placement_group import placement_group, remove_placement_group

from dictalake.workflow.plan import HeavyPlan

_PATIENCE_S = 10.0
_TRACE = 0.001  # of the resource that stands for a node


def name_node(resources: dict[str, float]) -> str:
    """How Ray calls the node that offers ``resources``, for asking for this very node."""
    names = (name.removeprefix("node:") for name in resources if name.startswith("node:") and "__internal" not in name)
    return next(names, "")


@contextmanager
def reserve_memory(plan: HeavyPlan) -> Iterator[None]:
    """Within, nothing that Ray starts takes the memory of ``plan``. Where another job has it now, that is a warning."""
    log = logging.getLogger("dictalake")
    if plan.warning is not None:
        log.warning(plan.warning, extra={"event": "node_memory"})
    size = int(plan.memory_mb * 1e6)
    groups = {name: placement_group([{"memory": size, f"node:{name}": _TRACE}]) for name in plan.nodes}
    options = DataContext.get_current().execution_options
    try:
        taken = [name for name, group in groups.items() if not group.wait(_PATIENCE_S)]
        if taken:
            log.warning(
                f"{len(taken)} of {len(groups)} nodes have no {plan.memory_mb:g} MB free for one recording that needs "
                f"limits.decode_mb ({', '.join(taken[:5])}): other jobs use their memory, and such a recording may end workers",
                extra={"event": "node_memory"},
            )
        _exclude(options, size * (len(groups) - len(taken)))
        yield
    finally:
        _exclude(options, 0)
        if ray.is_initialized():
            for group in groups.values():
                remove_placement_group(group)


def _exclude(options: ExecutionOptions, memory_bytes: int) -> None:
    """Tells Ray Data, which counts the whole cluster as its own, how much of it is not."""
    with warnings.catch_warnings():  # what Ray is to have instead is for whole nodes
        warnings.simplefilter("ignore")
        options.exclude_resources = ExecutionResources(0, 0, 0, memory_bytes)
