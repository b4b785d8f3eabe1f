"""The simulation of a run: it never does more than its resources can, and does as much where one stage is all there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.scaling import Cluster, Costs, cut_blocks, draw_lengths, serve, simulate

NOTHING = Costs(0, 0, 0, 0, 0, 0, 0, listing_per_s=1e12, bytes_per_audio_s=0, node_bytes_per_s=1)
CLUSTER = Cluster(gpus=4, load_per_gpu=4, decode_per_gpu=4, write_per_gpu=2)
SERVERS = {"load_s_per_audio_s": 16, "encode_s_per_audio_s": 4, "decode_s_per_audio_s": 16, "write_s_per_audio_s": 8}
LENGTHS = st.lists(st.floats(0.5, 5000), min_size=1, max_size=60).map(np.array)
TIMES = st.floats(1e-6, 1e-2)


@pytest.mark.parametrize("stage", SERVERS)
@given(cost=TIMES)
def test_where_one_stage_is_all_its_capacity_is_the_speed(stage: str, cost: float) -> None:
    audio_s, rows = np.full(160_000, 60.0), np.ones(160_000, dtype=int)
    costs = replace(NOTHING, **{stage: cost})
    outcome = simulate(audio_s[:1600], rows[:1600], costs, CLUSTER, commit_every_s=0.0)
    assert outcome.speed == pytest.approx(SERVERS[stage] / cost, rel=1e-6)


@given(LENGTHS, TIMES, TIMES, TIMES)
def test_no_run_is_faster_than_any_of_its_resources(lengths: np.ndarray, load: float, encode: float, decode: float) -> None:
    audio_s, rows = cut_blocks(lengths, 1800, 64)
    costs = replace(
        NOTHING,
        load_s_per_audio_s=load,
        encode_s_per_audio_s=encode,
        decode_s_per_audio_s=decode,
        block_s=0.01,
        bytes_per_audio_s=32_000,
        node_bytes_per_s=1e9,
    )
    outcome = simulate(audio_s, rows, costs, CLUSTER)
    assert outcome.seconds * 4 >= encode * audio_s.sum() * (1 - 1e-9)
    assert all(0 <= share <= 1 + 1e-9 for share in outcome.busy.values())
    slowest_block = audio_s.max() * (load + encode + decode)
    assert outcome.seconds >= slowest_block


@given(LENGTHS, st.floats(0.5, 4000), st.integers(1, 64))
def test_blocks_hold_every_recording_within_their_limits(lengths: np.ndarray, most_s: float, most_rows: int) -> None:
    audio_s, rows = cut_blocks(lengths, most_s, most_rows)
    assert rows.sum() == len(lengths)
    assert audio_s.sum() == pytest.approx(lengths.sum())
    assert rows.max() <= most_rows
    assert all(seconds <= most_s or count == 1 for seconds, count in zip(audio_s, rows, strict=True))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40).map(np.array), st.integers(1, 8), st.randoms())
def test_servers_are_never_idle_while_somebody_waits(ready: np.ndarray, servers: int, random: object) -> None:
    work = np.linspace(0.1, 3.0, len(ready))
    done = serve(ready, work, servers)
    started = done - work
    assert (started >= ready - 1e-9).all()
    for moment in started:  # never more at work than servers
        assert ((started <= moment) & (moment < done - 1e-9)).sum() <= servers
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


def test_lengths_are_drawn_around_their_median_again_and_again() -> None:
    lengths = draw_lengths(100_000, 45.0, 1.0)
    assert np.median(lengths) == pytest.approx(45, rel=0.02)
    assert (lengths >= 0.5).all()
    assert (draw_lengths(100, 45.0, 1.0) == draw_lengths(100, 45.0, 1.0)).all()
