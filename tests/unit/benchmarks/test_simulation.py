"""The simulation of a run: it never does more than its resources can, does as much where one stage is all there is, loses no
recording, and agrees with a simulator that others wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.errors import ConfigError
from jobs.benchmarks.simulate import main, share_cpus
from jobs.benchmarks.simulation import Cluster, Costs, cut_blocks, draw_lengths, find_capacities, lay_out, serve, simulate

ROOT = Path(__file__).parents[3]
NOTHING = Costs(0, 0, 0, 0, 0, 0, 0, 0, listing_per_s=1e12, plan_s_per_row=0, bytes_per_audio_s=0, node_bytes_per_s=1)
CLUSTER = Cluster(gpus=4, load=16, decode=16, write=8)
LENGTHS = st.lists(st.floats(0.5, 5000), min_size=1, max_size=60).map(np.array)
TIMES = st.floats(1e-6, 1e-2)
COSTS = st.builds(
    Costs,
    *[TIMES] * 5,
    block_s=st.just(0.0) | st.floats(1e-6, 1),
    commit_s=st.floats(0, 5),
    row_s=st.floats(0, 1e-3),
    listing_per_s=st.floats(10, 1e5),
    plan_s_per_row=st.floats(0, 1e-3),
    bytes_per_audio_s=st.floats(1, 64_000),
    node_bytes_per_s=st.floats(1e7, 1e10),
)
SMALL = st.integers(1, 6)
CLUSTERS = st.builds(
    Cluster, SMALL, SMALL, SMALL, SMALL, actors_per_gpu=st.integers(1, 3), runs=st.integers(1, 4), runners=st.integers(1, 3)
)
ALONE = {  # capacity of CLUSTER in audio seconds a second where the only cost is this one, of blocks of 60 s
    "load_s_per_audio_s": lambda cost: 16 / cost,
    "encode_s_per_audio_s": lambda cost: 4 / cost,
    "emit_host_s_per_audio_s": lambda cost: 4 / cost,
    "decode_s_per_audio_s": lambda cost: 16 / cost,
    "write_s_per_audio_s": lambda cost: 8 / cost,
    "block_s": lambda cost: 60 / cost,
    "bytes_per_audio_s": lambda cost: 1 / cost,  # one node that takes a byte a second
}


@pytest.mark.parametrize("stage", ALONE)
@given(cost=TIMES)
def test_where_one_stage_is_all_its_capacity_is_the_speed(stage: str, cost: float) -> None:
    audio_s, rows = np.full(1600, 60.0), np.ones(1600, dtype=int)
    outcome = simulate(audio_s, rows, replace(NOTHING, **{stage: cost}), CLUSTER, commit_every_s=0.0)
    assert outcome.speed == pytest.approx(ALONE[stage](cost), rel=1e-4)


@given(LENGTHS, COSTS, CLUSTERS)
def test_no_run_is_faster_than_any_of_its_resources(lengths: np.ndarray, costs: Costs, cluster: Cluster) -> None:
    audio_s, rows = cut_blocks(lengths, 1800, 64)
    outcome = simulate(audio_s, rows, costs, cluster)
    assert outcome.speed <= min(find_capacities(audio_s, costs, cluster).values()) * (1 + 1e-9)
    assert all(0 <= share <= 1 + 1e-9 for share in outcome.busy.values())
    in_a_row = sum(work[audio_s.argmax()] for _, work in lay_out(audio_s, costs, cluster).values())
    assert outcome.seconds >= in_a_row + len(lengths) * costs.plan_s_per_row / cluster.runs


@given(LENGTHS, COSTS, CLUSTERS)
def test_every_recording_is_committed_once_whoever_else_commits(lengths: np.ndarray, costs: Costs, cluster: Cluster) -> None:
    audio_s, rows = cut_blocks(lengths, 1800, 3)
    outcome = simulate(audio_s, rows, costs, cluster)
    assert outcome.rows == len(lengths)
    assert cluster.runs > 1 or outcome.refused == 0


@given(LENGTHS, COSTS, CLUSTERS, st.integers(1, 4))
def test_more_gpus_are_not_slower_by_more_than_a_block_that_comes_late(
    lengths: np.ndarray, costs: Costs, cluster: Cluster, more: int
) -> None:
    audio_s, rows = cut_blocks(lengths, 1800, 64)
    costs, cluster = replace(costs, commit_s=0.0, row_s=0.0), replace(cluster, gpus_per_node=10**6, runs=1)
    fewer_s = simulate(audio_s, rows, costs, cluster, 0.0).seconds
    more_s = simulate(audio_s, rows, costs, replace(cluster, gpus=cluster.gpus + more), 0.0).seconds
    # Blocks may overtake each other, so the last one of a stage may come in late by one block's work there.
    assert more_s <= fewer_s + sum(work.max() for _, work in lay_out(audio_s, costs, cluster).values()) + 1e-6


@settings(max_examples=50)
@given(st.lists(st.floats(0.5, 5000), min_size=1, max_size=30, unique=True).map(np.array), COSTS, CLUSTERS)
def test_blocks_leave_when_simpy_says_so(audio_s: np.ndarray, costs: Costs, cluster: Cluster) -> None:
    stages = list(lay_out(audio_s, costs, cluster).values())
    environment = simpy.Environment()
    resources = [simpy.Resource(environment, servers) for servers, _ in stages]
    left = {}

    def travel(block: int) -> Any:
        for resource, (_, work) in zip(resources, stages, strict=True):
            with resource.request() as turn:
                yield turn
                yield environment.timeout(work[block])
        left[block] = environment.now

    for block in range(len(audio_s)):
        environment.process(travel(block))
    environment.run()
    ready = np.zeros(len(audio_s))
    for servers, work in stages:
        ready = serve(ready, work, servers)
    assert sorted(left.values()) == pytest.approx(np.sort(ready), rel=1e-6)


@given(LENGTHS, st.floats(0.5, 4000), st.integers(1, 64))
def test_blocks_hold_every_recording_within_their_limits(lengths: np.ndarray, most_s: float, most_rows: int) -> None:
    audio_s, rows = cut_blocks(lengths, most_s, most_rows)
    assert rows.sum() == len(lengths)
    assert audio_s.sum() == pytest.approx(lengths.sum())
    assert rows.max() <= most_rows
    assert all(seconds <= most_s or count == 1 for seconds, count in zip(audio_s, rows, strict=True))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40).map(np.array), st.integers(1, 8))
def test_servers_are_never_idle_while_somebody_waits(ready: np.ndarray, servers: int) -> None:
    work = np.linspace(0.1, 3.0, len(ready))
    done = serve(ready, work, servers)
    started = done - work
    assert (started >= ready - 1e-9).all()
    for moment in started:  # never more at work than servers
        assert ((started <= moment + 1e-9) & (moment < done - 1e-9)).sum() <= servers
    for waited_until, since in zip(started, ready, strict=True):
        if waited_until > since + 1e-9:  # who waits, waits because all are at work until that moment
            assert ((started < waited_until - 1e-9) & (done >= waited_until - 1e-9)).sum() >= servers


def test_twice_the_gpus_are_twice_as_fast_until_something_else_is_the_bound() -> None:
    audio_s, rows = cut_blocks(draw_lengths(200_000, 45.0, 1.0), 1800, 64)
    costs = replace(NOTHING, encode_s_per_audio_s=1 / 15_000, block_s=0.004)
    speeds = {gpus: simulate(audio_s, rows, costs, replace(CLUSTER, gpus=gpus), commit_every_s=1.0) for gpus in (1, 2, 32, 64)}
    assert speeds[2].speed == pytest.approx(2 * speeds[1].speed, rel=0.02)
    assert speeds[1].bound == "gpu"
    assert speeds[64].bound == "driver"
    assert speeds[64].speed < 1.2 * speeds[32].speed


def test_runners_share_what_a_block_costs_until_the_reports_are_the_bound() -> None:
    audio_s, rows = cut_blocks(draw_lengths(200_000, 45.0, 1.0), 1800, 64)
    costs = replace(NOTHING, encode_s_per_audio_s=1 / 15_000, block_s=0.03, runner_block_s=0.03, report_s=0.0005)
    sizes = [replace(CLUSTER, gpus=64, runners=runners) for runners in (1, 2, 4, 32)]
    one, two, four, many = (simulate(audio_s, rows, costs, cluster, commit_every_s=1.0) for cluster in sizes)
    assert (one.bound, two.bound, four.bound, many.bound) == ("driver", "runner", "runner", "gpu")
    assert four.speed == pytest.approx(4 * one.speed, rel=0.05)
    assert many.busy["gpu"] > 0.9
    slow = simulate(audio_s, rows, replace(costs, report_s=0.01), sizes[-1], commit_every_s=1.0)
    assert slow.bound == "driver"


def test_streamed_work_begins_with_the_listing_and_ends_no_sooner_than_it() -> None:
    audio_s, rows = np.full(100, 60.0), np.ones(100, dtype=int)
    costs = replace(NOTHING, load_s_per_audio_s=0.1, listing_per_s=1.0)
    after = simulate(audio_s, rows, costs, CLUSTER, 0.0)
    streamed = simulate(audio_s, rows, costs, replace(CLUSTER, is_streamed=True), 0.0)
    assert after.seconds == pytest.approx(100 + after.working_s)
    assert 100 <= streamed.seconds < after.seconds
    assert (after.rows, streamed.rows) == (100, 100)


def test_checkpoints_of_a_long_log_cost_something() -> None:
    audio_s, rows = np.full(4000, 60.0), np.ones(4000, dtype=int)
    costs = replace(NOTHING, load_s_per_audio_s=0.01, commit_s=0.01)
    plain, long = (
        simulate(audio_s, rows, replace(costs, checkpoint_s_per_file=one), CLUSTER, 0.0).busy["commits"] for one in (0.0, 1e-4)
    )
    assert long > plain


def test_a_gpu_waits_for_the_core_of_its_only_actor_and_not_with_two() -> None:
    audio_s, rows = np.full(1000, 1800.0), np.full(1000, 24)
    costs = replace(NOTHING, encode_s_per_audio_s=1e-4, emit_host_s_per_audio_s=5e-5)
    one, two = (simulate(audio_s, rows, costs, replace(CLUSTER, actors_per_gpu=count), 0.0) for count in (1, 2))
    assert (one.bound, one.busy["gpu"]) == ("emit", pytest.approx(2 / 3, rel=0.01))
    assert (two.bound, two.busy["gpu"]) == ("gpu", pytest.approx(1, rel=0.01))


def test_commits_of_several_runs_go_in_one_after_the_other() -> None:
    audio_s, rows = np.full(400, 60.0), np.ones(400, dtype=int)
    costs = replace(NOTHING, load_s_per_audio_s=0.1, commit_s=3.0)
    outcome = simulate(audio_s, rows, costs, replace(CLUSTER, runs=4), commit_every_s=1.0)
    assert outcome.refused > 0
    assert outcome.rows == 400
    assert 0.8 < outcome.busy["commits"] <= 1


def test_lengths_are_drawn_around_their_median_again_and_again() -> None:
    lengths = draw_lengths(100_000, 45.0, 1.0)
    assert np.median(lengths) == pytest.approx(45, rel=0.02)
    assert (lengths >= 0.5).all()
    assert (draw_lengths(100, 45.0, 1.0) == draw_lengths(100, 45.0, 1.0)).all()


@given(st.integers(1, 64), st.integers(5, 32), COSTS, st.integers(1, 2))
def test_no_core_is_given_to_two_stages_and_none_is_left(gpus: int, per_gpu: int, costs: Costs, actors: int) -> None:
    cluster = share_cpus(gpus, per_gpu, costs, actors)
    assert cluster.load + cluster.decode + cluster.write + gpus * actors == gpus * per_gpu
    assert min(cluster.load, cluster.decode, cluster.write) >= 1


MEASURED = ["--measured", str(ROOT / "infra/benchmarks/bench.json"), "--driver", str(ROOT / "infra/benchmarks/driver.json")]


def test_the_sizing_table_has_the_figures_of_the_simulation_and_says_what_was_not_measured(tmp_path: Path) -> None:
    assert main([*MEASURED, "--recordings", "3000", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "simulate.json").read_text())
    sizing = (tmp_path / "sizing.md").read_text()
    for one in result["results"]:
        if one["gpus"] in (1, 4, 8, 16, 64) and one["cpus"] == 16 * one["gpus"]:
            assert f"| {one['gpus']} | {one['cpus']} | {one['decoding_actors']} | {one['audio_hours_an_hour']:,} |" in sizing
    assert "projected, not measured" in sizing
    assert "stated, not quoted" in sizing
    assert result["stated"]["gpu_speed"] == 15_000
    assert "block_s" not in result["stated"]  # --driver has measured it
    page = (tmp_path / "simulate.html").read_text()
    assert "<svg" in page
    assert not [mark for mark in ("<script", "<link", "src=", "@import") if mark in page]  # one file by itself


def test_keys_of_the_configuration_change_the_blocks(tmp_path: Path) -> None:
    assert main([*MEASURED, "--recordings", "3000", "--ray.block_rows", "1", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "simulate.json").read_text())["blocks"] == 3000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measured", str(ROOT / "pyproject.toml")], "is not a bench.json; python -m jobs.benchmarks --out DIR writes one"),
        (
            [*MEASURED[:2], "--driver", MEASURED[1]],
            "is not a driver.json; python -m jobs.benchmarks driver --out FILE writes one",
        ),
        ([*MEASURED, "--recordings", "0"], "--recordings 0: must be more than 0"),
        ([*MEASURED, "--acoustic.gpus_per_actor", "0.1"], "10 actors a GPU leave -2 of 8 CPUs"),
    ],
)
def test_what_it_cannot_work_with_is_refused_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        main([*arguments, "--out", str(tmp_path)])
