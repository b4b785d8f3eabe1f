"""Simulates how a run scales: blocks of recordings go first come, first served through stages with many servers each.

It does not use Ray. The costs of a stage are inputs, measured (``python -m jobs.benchmarks``) or stated.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

_PART_S = 20.0  # a run plans what was listed in so long, and sends it to work, while the listing goes on
_CHECKPOINT_AFTER, _FILES_FOR_ONE_MORE = 25, 200  # commits, and files of the table for one commit more: as the lake does it


@dataclass(frozen=True)
class Costs:
    """Seconds of one core, or of one GPU for ``encode``, and the costs that the whole run shares.

    ``emit_host_s_per_audio_s`` is the work of an actor's core during which its GPU is idle. ``bytes_per_audio_s`` travel from
    the object storage to a node, which takes ``node_bytes_per_s``. Before the first block, ``listing_per_s`` objects a second
    are listed, and each takes ``plan_s_per_row``. The driver spends ``block_s`` on each block; with several runners it spends
    ``report_s``, and a runner ``runner_block_s``. A commit takes ``commit_s``, ``row_s`` for each row in it, and where it
    writes a checkpoint of the log, ``checkpoint_s_per_file`` for each file of the table.
    """

    load_s_per_audio_s: float
    encode_s_per_audio_s: float
    emit_host_s_per_audio_s: float
    decode_s_per_audio_s: float
    write_s_per_audio_s: float
    block_s: float
    commit_s: float
    row_s: float
    listing_per_s: float
    plan_s_per_row: float
    bytes_per_audio_s: float
    node_bytes_per_s: float
    report_s: float = 0.0
    runner_block_s: float = 0.0
    checkpoint_s_per_file: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """``gpus`` in nodes of ``gpus_per_node``, and the workers of each stage. ``runs`` divide the archive beforehand (by folder
    or manifest), each with its own driver, and write to one table. Each run has ``runners``; one is the driver itself.
    ``is_streamed``: blocks come in parts while the archive is listed and planned, not after.
    """

    gpus: int
    load: int
    decode: int
    write: int
    actors_per_gpu: int = 1
    runs: int = 1
    gpus_per_node: int = 8
    runners: int = 1
    is_streamed: bool = False

    @property
    def nodes(self) -> int:
        return -(-self.gpus // self.gpus_per_node)


@dataclass(frozen=True)
class Outcome:
    """``seconds`` from start to last commit, ``rows`` committed, and the share of that time (0–1) that each resource was
    ``busy``; ``bound`` is the busiest one. ``refused`` commits collided with another run's and were repeated. ``working_s`` is
    the time from the first block on.
    """

    seconds: float
    audio_s: float
    rows: int
    refused: int
    busy: dict[str, float]
    working_s: float

    @property
    def bound(self) -> str:
        # A GPU with one actor is as busy as the actor, but for the rounding of sums, in which versions of numpy differ.
        return max(self.busy, key=lambda name: round(self.busy[name], 9))

    @property
    def speed(self) -> float:
        """Audio seconds a second."""
        return self.audio_s / self.seconds


def draw_lengths(count: int, median_s: float, sigma: float, seed: int = 0) -> np.ndarray:
    """Log-normal lengths of recordings in seconds, ``(count,)``, from half a second to six hours."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(np.log(median_s), sigma, count), 0.5, 6 * 3600)


def cut_blocks(lengths_s: np.ndarray, block_audio_s: float, block_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The audio seconds and rows of each block: recordings in order, at most ``block_audio_s`` (a longer one is alone)."""
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


def lay_out(audio_s: np.ndarray, costs: Costs, cluster: Cluster) -> dict[str, tuple[int, np.ndarray]]:
    """The servers of each stage, in order, and the seconds that each block takes one of them.

    A GPU's actors take turns on it. Its speed is limited by its own work, and by what its actors can supply.
    """
    gpu, host = costs.encode_s_per_audio_s, costs.emit_host_s_per_audio_s
    of_driver = costs.block_s if cluster.runners == 1 else costs.report_s
    runners = {"runner": (cluster.runs * cluster.runners, np.full(len(audio_s), costs.runner_block_s))}
    return {
        "driver": (cluster.runs, np.full(len(audio_s), of_driver)),
        **(runners if cluster.runners > 1 else {}),
        "network": (cluster.nodes, audio_s * (costs.bytes_per_audio_s / costs.node_bytes_per_s)),
        "load": (cluster.load, audio_s * costs.load_s_per_audio_s),
        "emit": (cluster.gpus, audio_s * max(gpu, (gpu + host) / cluster.actors_per_gpu)),
        "decode": (cluster.decode, audio_s * costs.decode_s_per_audio_s),
        "write": (cluster.write, audio_s * costs.write_s_per_audio_s),
    }


def find_capacities(audio_s: np.ndarray, costs: Costs, cluster: Cluster) -> dict[str, float]:
    """The audio seconds a second that each stage could do alone; infinite if it costs nothing."""
    total_s = float(audio_s.sum())
    stages = lay_out(audio_s, costs, cluster).items()
    return {name: total_s * servers / work.sum() if work.any() else float("inf") for name, (servers, work) in stages}


def simulate(audio_s: np.ndarray, rows: np.ndarray, costs: Costs, cluster: Cluster, commit_every_s: float = 2.0) -> Outcome:
    """``audio_s`` and ``rows`` are those of the blocks in order. The queues between stages have no limit."""
    listed_s = float(rows.sum()) / costs.listing_per_s / cluster.runs
    planned_s = float(rows.sum()) * costs.plan_s_per_row / cluster.runs
    stages = lay_out(audio_s, costs, cluster)
    ready = np.full(len(audio_s), listed_s + planned_s)
    if cluster.is_streamed:  # planning is the driver's work, between the blocks
        ready = np.minimum(listed_s, _PART_S * np.ceil(listed_s * np.cumsum(rows) / rows.sum() / _PART_S))
        servers, work = stages["driver"]
        stages["driver"] = (servers, work + rows * costs.plan_s_per_row)
    began_s = float(ready.min())
    for servers, work in stages.values():
        ready = serve(ready, work, servers)
    end, committing_s, committed, refused = _commit(ready, rows, costs, cluster.runs, commit_every_s)
    busy = {"gpu": costs.encode_s_per_audio_s * float(audio_s.sum()) / (cluster.gpus * end)}
    busy |= {name: float(work.sum()) / (servers * end) for name, (servers, work) in stages.items()}
    busy |= {"commits": committing_s / end, "listing": listed_s / end}
    busy |= {} if cluster.is_streamed else {"planning": planned_s / end}
    return Outcome(end, float(audio_s.sum()), committed, refused, busy, end - began_s)


def serve(ready_s: np.ndarray, work_s: np.ndarray, servers: int) -> np.ndarray:
    """When each job ends that is ready at ``ready_s`` and takes ``work_s``; ``servers`` serve first come, first served."""
    order = np.argsort(ready_s, kind="stable")
    done = np.empty(len(ready_s))
    if servers == 1:  # the same without a loop (Lindley's recursion, unrolled)
        until = np.cumsum(work_s[order])
        done[order] = until + np.maximum.accumulate(ready_s[order] - until + work_s[order])
        return done
    free = [0.0] * servers
    finished = []
    for ready, work in zip(ready_s[order].tolist(), work_s[order].tolist(), strict=True):
        finished.append(max(ready, free[0]) + work)
        heapq.heapreplace(free, finished[-1])
    done[order] = finished
    return done


def _commit(finished_s: np.ndarray, rows: np.ndarray, costs: Costs, runs: int, every_s: float) -> tuple[float, float, int, int]:
    """Each run commits what it has finished every so often; block ``i`` is run ``i % runs``'s. Delta Lake refuses a commit that
    another one overtook since it began, and it begins anew. The end, seconds in which a commit that was not refused went on,
    rows committed, commits refused.
    """
    queues = []
    for run in range(runs):
        order = np.argsort(finished_s[run::runs], kind="stable")
        queues.append((finished_s[run::runs][order], np.concatenate([[0], np.cumsum(rows[run::runs][order])])))
    taken, since_checkpoint = [0] * runs, [0] * runs
    under_way: list[tuple[float, float, int, int]] = []  # ends, began, run, blocks of it that are in then

    def begin(run: int, earliest_s: float, until: int | None = None) -> None:
        times, sums = queues[run]
        if taken[run] == len(times):
            return
        start = max(earliest_s, float(times[taken[run]])) if until is None else earliest_s
        upto = int(np.searchsorted(times, start, side="right")) if until is None else until
        took = costs.commit_s + costs.row_s * float(sums[upto] - sums[taken[run]])
        if since_checkpoint[run] > _CHECKPOINT_AFTER + sum(taken) / _FILES_FOR_ONE_MORE:
            took += costs.checkpoint_s_per_file * sum(taken)
            since_checkpoint[run] = 0
        heapq.heappush(under_way, (start + took, start, run, upto))

    for run in range(runs):
        begin(run, float(queues[run][0][0]) + every_s if len(queues[run][0]) else 0.0)
    landed_s, spent_s, committed, refused = float("-inf"), 0.0, 0, 0
    while under_way:
        end_s, began_s, run, upto = heapq.heappop(under_way)
        if began_s < landed_s:
            refused += 1
            begin(run, end_s, upto)
            continue
        committed += int(queues[run][1][upto] - queues[run][1][taken[run]])
        landed_s, spent_s, taken[run] = end_s, spent_s + end_s - began_s, upto
        since_checkpoint[run] += 1
        begin(run, end_s + every_s)
    return landed_s, spent_s, committed, refused
