"""Says when a machine of the cluster is lost or joins while a run is at work. Ray itself tells a driver nothing of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from dictalake import logs
from dictalake.observers.base import Observer
from dictalake.workflow import cluster  # noqa: F401  # first: it sets what Ray reads when it is imported

import ray  # isort: skip

_LOOK_EVERY_S = 5.0


def list_nodes() -> dict[str, str]:
    """The machines that Ray counts as alive: their ids, and the addresses by which they joined."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


class NodeWatch(Observer):
    """Compares what ``list_alive`` gives with what it gave before; ids differ each time that a machine joins."""

    name = "node watch"

    def __init__(self, list_alive: Callable[[], dict[str, str]] = list_nodes) -> None:
        self._list_alive = list_alive
        self._alive = list_alive()
        self._looked_at = time.monotonic()

    def time_passed(self) -> None:
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()  # before it asks: a head that does not answer is not asked each second
        before, self._alive = self._alive, self._list_alive()
        left = f"{len(self._alive)} machines are in the cluster now"
        for node in before.keys() - self._alive.keys():
            line = f"machine {before[node]} is lost, and others do its work; {left}; join it again with `ray start`"
            logs.log_event("nodes", line, level=logs.WARNING, machines=len(self._alive))
        for node in self._alive.keys() - before.keys():
            logs.log_event("nodes", f"machine {self._alive[node]} has joined; {left}", machines=len(self._alive))
