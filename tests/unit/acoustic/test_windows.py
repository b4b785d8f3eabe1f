"""Windows cover every frame of a recording on one global grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dictalake.acoustic.windows import cut_at_pauses, cut_window, plan_windows
from dictalake.records import SAMPLE_RATE_HZ, FrameGrid, Window

LASR = FrameGrid(step=640, receptive=2320)
WAV2VEC2 = FrameGrid(step=320, receptive=400)
PARAKEET = FrameGrid(step=1280, receptive=320)
THREE_HOURS = 3 * 3600 * SAMPLE_RATE_HZ
lengths = st.integers(0, 200 * SAMPLE_RATE_HZ) | st.integers(0, 5_000)
grids = st.sampled_from([LASR, WAV2VEC2, PARAKEET])
settings_s = st.floats(1.0, 120.0).flatmap(lambda length: st.tuples(st.just(length), st.floats(0.0, length / 2)))


@given(samples=lengths, grid=grids, seconds=settings_s)
@example(samples=20 * SAMPLE_RATE_HZ, grid=LASR, seconds=(20.0, 2.0))
@example(samples=20 * SAMPLE_RATE_HZ + 1, grid=LASR, seconds=(20.0, 2.0))
@example(samples=3 * SAMPLE_RATE_HZ, grid=LASR, seconds=(1.0, 0.5))
def test_every_frame_of_the_grid_is_in_some_window(samples: int, grid: FrameGrid, seconds: tuple[float, float]) -> None:
    windows = plan_windows(samples, grid, *seconds)
    frames = grid.frames_of(max(samples, grid.receptive))
    covered = np.zeros(frames, dtype=int)
    for window in windows:
        first = window.start // grid.step
        covered[first : first + grid.frames_of(window.length)] += 1
    assert covered.min() >= 1
    assert sum(grid.frames_of(window.length) for window in windows) == covered.sum()  # none beyond the end


@given(samples=lengths, grid=grids, seconds=settings_s)
def test_windows_lie_on_the_grid_and_share_at_least_the_overlap(
    samples: int, grid: FrameGrid, seconds: tuple[float, float]
) -> None:
    length_s, overlap_s = seconds
    windows = plan_windows(samples, grid, length_s, overlap_s)
    assert windows[0].start == 0
    assert windows[-1].start + windows[-1].length == max(samples, grid.receptive)
    assert {window.start % grid.step for window in windows} == {0}
    assert len({window.length for window in windows[:-1]}) <= 1
    assert all(grid.receptive <= window.length for window in windows)
    assert windows[-1].length <= windows[0].length
    for window, after in itertools.pairwise(windows):
        shared = window.start + window.length - after.start
        assert shared >= max(int(overlap_s * SAMPLE_RATE_HZ), grid.receptive)
        assert after.start > window.start


def test_a_twentieth_of_a_second_is_one_window_of_one_frame() -> None:
    windows = plan_windows(800, LASR, 20.0, 2.0)
    assert windows == (Window(0, 2320),)
    piece = cut_window(np.full(800, 7, dtype=np.int16), windows[0])
    assert piece.dtype == np.int16
    assert piece.tolist() == [7] * 800 + [0] * 1520
    assert LASR.frames_of(len(piece)) == 1


def test_twenty_seconds_are_one_window_and_a_sample_more_are_two() -> None:
    assert plan_windows(320_000, LASR, 20.0, 2.0) == (Window(0, 320_000),)
    assert plan_windows(320_001, LASR, 20.0, 2.0) == (Window(0, 320_000), Window(288_000, 32_001))


def test_three_hours_are_six_hundred_windows() -> None:
    windows = plan_windows(THREE_HOURS, LASR, 20.0, 2.0)
    assert len(windows) == 600
    assert windows[1] == Window(288_000, 320_000)
    assert windows[-1].start + windows[-1].length == THREE_HOURS
    assert sum(window.length for window in windows) / THREE_HOURS == pytest.approx(20 / 18, rel=0.01)


def test_pieces_put_together_are_the_recording() -> None:
    waveform = np.random.default_rng(0).integers(-32768, 32768, 1_000_003).astype(np.int16)
    again = np.zeros_like(waveform)
    for window in plan_windows(len(waveform), LASR, 20.0, 2.0):
        again[window.start : window.start + window.length] = cut_window(waveform, window)
    assert (again == waveform).all()


def test_the_grid_is_lasrs() -> None:
    """497 frames of 20 s, one every 40 ms, the first in the middle of its 145 ms."""
    assert [LASR.frames_of(samples) for samples in (0, 2319, 2320, 2959, 2960, 320_000)] == [0, 0, 1, 1, 2, 497]
    assert [LASR.time_s(frame) for frame in (0, 1, 496)] == [0.0725, 0.1125, 19.9125]


@given(samples=st.integers(0, 60 * SAMPLE_RATE_HZ), longest_s=st.floats(1.0, 30.0), seed=st.integers(0, 5))
def test_stretches_cover_everything_once_and_none_is_too_long(samples: int, longest_s: float, seed: int) -> None:
    waveform = np.random.default_rng(seed).integers(-20_000, 20_000, samples).astype(np.int16)
    stretches = cut_at_pauses(waveform, longest_s)
    assert [stretch.start for stretch in stretches] == [0, *itertools.accumulate(s.length for s in stretches[:-1])]
    assert sum(stretch.length for stretch in stretches) == samples
    longest = int(longest_s * SAMPLE_RATE_HZ)
    assert all(stretch.length <= longest for stretch in stretches)
    assert all(stretch.length >= longest / 2 or stretch.length >= longest - 5.1 * SAMPLE_RATE_HZ for stretch in stretches[:-1])


def test_a_stretch_ends_in_the_middle_of_a_pause() -> None:
    waveform = np.full(12 * SAMPLE_RATE_HZ, 9_000, dtype=np.int16)
    waveform[6 * SAMPLE_RATE_HZ : 6 * SAMPLE_RATE_HZ + SAMPLE_RATE_HZ // 10] = 0
    assert cut_at_pauses(waveform, 10.0) == [Window(0, 96_800), Window(96_800, 95_200)]
