"""How a run scales, by simulation: blocks of recordings go first come, first served through stages of many servers each.

Nothing here knows Ray: what a stage costs is measured (``dictalake bench``) or stated, and handed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Costs:
    """Seconds of one core, or of one GPU for ``encode``, and what is shared by the whole run.

    ``bytes_per_audio_s`` travel from the object storage to a node, ``node_bytes_per_s`` is how fast a node takes them.
    ``listing_per_s`` objects are listed before the first block; ``block_s`` of the driver's time goes to each block,
    ``commit_s`` to each commit and ``row_s`` to each row in it.
    """

    load_s_per_audio_s: float
    encode_s_per_audio_s: float
    decode_s_per_audio_s: float
    write_s_per_audio_s: float
    block_s: float
    commit_s: float
    row_s: float
    listing_per_s: float
    bytes_per_audio_s: float
    node_bytes_per_s: float


@dataclass(frozen=True)
class Cluster:
    """``gpus``, as many nodes of ``gpus_per_node`` as that takes, and the workers that each GPU comes with."""

    gpus: int
    load_per_gpu: float
    decode_per_gpu: float
    write_per_gpu: float
    gpus_per_node: int = 8

    @property
    def nodes(self) -> int:
        return -(-self.gpus // self.gpus_per_node)


@dataclass(frozen=True)
class Outcome:
    """``seconds`` from start to last commit, ``busy`` 0–1 of each resource over that time, ``bound`` the busiest of them."""

    seconds: float
    audio_s: float
    busy: dict[str, float]

    @property
    def bound(self) -> str:
        return max(self.busy, key=lambda name: self.busy[name])

    @property
    def speed(self) -> float:
        """Audio seconds a second."""
        return self.audio_s / self.seconds


def draw_lengths(count: int, median_s: float, sigma: float, seed: int = 0) -> np.ndarray:
    """Seconds ``(count,)`` of recordings, log-normal, between half a second and six hours."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(np.log(median_s), sigma, count), 0.5, 6 * 3600)


def cut_blocks(lengths_s: np.ndarray, block_audio_s: float, block_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Audio seconds and rows of each block: recordings in order, at most ``block_audio_s`` together (a longer one alone)."""
    audio, rows, held, count = [], [], 0.0, 0
    for length in lengths_s.tolist():
        if count and (held + length > block_audio_s or count == block_rows):
            audio.append(held)
            rows.append(count)
            held, count = 0.0, 0
        held += length
        count += 1
    if count:
        audio.append(held)
        rows.append(count)
    return np.array(audio), np.array(rows)


def simulate(audio_s: np.ndarray, rows: np.ndarray, costs: Costs, cluster: Cluster, commit_every_s: float = 30.0) -> Outcome:
    """``audio_s`` and ``rows`` are those of the blocks, in order. Between two stages there is room for all that waits."""
    listed_s = float(rows.sum()) / costs.listing_per_s
    per_byte = costs.bytes_per_audio_s / costs.node_bytes_per_s
    stages = {
        "driver": (1, np.full(len(audio_s), costs.block_s)),
        "network": (cluster.nodes, audio_s * per_byte),
        "load": (round(cluster.load_per_gpu * cluster.gpus), audio_s * costs.load_s_per_audio_s),
        "gpu": (cluster.gpus, audio_s * costs.encode_s_per_audio_s),
        "decode": (round(cluster.decode_per_gpu * cluster.gpus), audio_s * costs.decode_s_per_audio_s),
        "write": (round(cluster.write_per_gpu * cluster.gpus), audio_s * costs.write_s_per_audio_s),
    }
    ready = np.full(len(audio_s), listed_s)
    for servers, work in stages.values():
        ready = serve(ready, work, max(1, servers))
    end, committing_s = _commit(np.sort(ready), rows[np.argsort(ready, kind="stable")], costs, commit_every_s)
    busy = {name: float(work.sum()) / (max(1, servers) * end) for name, (servers, work) in stages.items()}
    return Outcome(end, float(audio_s.sum()), busy | {"commits": committing_s / end, "listing": listed_s / end})


def serve(ready_s: np.ndarray, work_s: np.ndarray, servers: int) -> np.ndarray:
    """When each job is done that is ready at ``ready_s`` and takes ``work_s``: first come, first served by ``servers``."""
    done = np.empty(len(ready_s))
    free = [0.0] * servers
    ready, work = ready_s.tolist(), work_s.tolist()
    for job in np.argsort(ready_s, kind="stable").tolist():
        done[job] = max(ready[job], free[0]) + work[job]
        heapq.heapreplace(free, done[job])
    return done


def _commit(finished_s: np.ndarray, rows: Sequence[int] | np.ndarray, costs: Costs, every_s: float) -> tuple[float, float]:
    """The driver commits what is finished every so often, one commit after the other: the end, and seconds spent on it."""
    now, spent, taken = 0.0, 0.0, 0
    while taken < len(finished_s):
        now = max(now + every_s, float(finished_s[taken]))
        until = int(np.searchsorted(finished_s, now, side="right"))
        took = costs.commit_s + costs.row_s * float(np.sum(rows[taken:until]))
        now, spent, taken = now + took, spent + took, until
    return now, spent
