"""A Ray cluster of several simulated nodes in a separate process, whose nodes can be killed.

python -m tests.chaos_cluster      prints its address; then takes ``kill`` and ``add``, and ends with its standard input

The head has no CPUs: it holds the driver's objects, and all work is on nodes that may die.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests import chaos_victims
from tests.commands import ROOT

NODES, CPUS = 2, 2  # one node alone has room for a worker of each stage
NODE_MEMORY = 2_000_000_000
_STORE_BYTES = 120_000_000
_ANSWER_S = 90.0


class NodeCluster:
    """The cluster, from outside. Its processes have one session."""

    def __init__(self, ray_folder: Path, output: Path) -> None:
        environment = {**os.environ, "RAY_TMPDIR": str(ray_folder), "RAY_USAGE_STATS_ENABLED": "0"}
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos_cluster"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                bufsize=0,
                start_new_session=True,
            )
        self.session = self._process.pid
        try:
            self.address = self._read_answer()
        except BaseException:
            self.close()
            raise

    def kill_node(self) -> str:
        """SIGKILL for one node at random, with all its workers; how many that were, and the stages they worked for."""
        return self._ask("kill")

    def add_node(self) -> None:
        self._ask("add")

    def close(self) -> None:
        chaos_victims.kill_family(self.session)
        self._process.wait()

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        return self._read_answer()

    def _read_answer(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _ANSWER_S)
        answer = self._process.stdout.readline().decode().strip() if ready else ""
        if not answer:
            raise RuntimeError("the simulated cluster does not answer")
        return answer


def main() -> int:
    answers = sys.stdout
    sys.stdout = sys.stderr  # Ray prints too
    from ray.cluster_utils import Cluster

    # By default it takes half a minute until a node that went away in silence counts as dead.
    quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 2000}
    head = {
        "num_cpus": 0,
        "memory": 100_000_000,
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
        "_system_config": quick,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(NODES):
        _add_node(cluster)
    print(cluster.address, file=answers, flush=True)
    for line in sys.stdin:
        print({"kill": _kill_node, "add": _add_node}[line.strip()](cluster), file=answers, flush=True)
    cluster.shutdown()
    return 0


def _add_node(cluster: Any) -> str:
    cluster.add_node(num_cpus=CPUS, memory=NODE_MEMORY, object_store_memory=_STORE_BYTES)
    return "added"


def _kill_node(cluster: Any) -> str:
    node = random.choice(sorted(cluster.worker_nodes, key=lambda node: node.unique_id))
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    processes = [raylet, *raylet.children(recursive=True)]
    stages = sorted({stage for process in processes if (stage := chaos_victims.find_stage(process))})
    killed = sum(chaos_victims.kill(process) for process in processes)
    cluster.remove_node(node, allow_graceful=False)  # what else it has, and its place in the books
    return ", ".join([f"{killed} processes", *stages])


if __name__ == "__main__":
    sys.exit(main())
