"""Keeps memory of each node free for the one recording that may take ``limits.decode_mb`` there.

Ray counts what each stage asks for. It knows nothing of a decoder that a load worker starts beside itself, so this much is
taken out of its count for the time of a run: by a placement group a node, which needs no process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext, ExecutionResources
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
    before = options.exclude_resources
    try:
        taken = [name for name, group in groups.items() if not group.wait(_PATIENCE_S)]
        if taken:
            log.warning(
                f"{len(taken)} of {len(groups)} nodes have no {plan.memory_mb:g} MB free for one recording that needs "
                f"limits.decode_mb ({', '.join(taken[:5])}): other jobs use their memory, and such a recording may end workers",
                extra={"event": "node_memory"},
            )
        options.exclude_resources = ExecutionResources(0, 0, 0, size * (len(groups) - len(taken)))
        yield
    finally:
        options.exclude_resources = before
        if ray.is_initialized():
            for group in groups.values():
                remove_placement_group(group)
