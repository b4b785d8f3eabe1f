"""Posteriors of overlapping windows become those of the recording."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.fusion import cut_window_outputs, fuse_in_stretches, fuse_windows
from dictalake.acoustic.windows import plan_windows
from dictalake.records import FrameGrid, Window

LASR = FrameGrid(step=640, receptive=2320)
WAV2VEC2 = FrameGrid(step=320, receptive=400)


def make_log_probs(frames: int, seed: int, vocabulary: int = 7) -> np.ndarray:
    logits = 3 * np.random.default_rng(seed).normal(size=(frames, vocabulary))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def cut(matrix: np.ndarray, windows: tuple[Window, ...], grid: FrameGrid) -> list[np.ndarray]:
    starts = [window.start // grid.step for window in windows]
    return [matrix[start : start + grid.frames_of(w.length)] for start, w in zip(starts, windows, strict=True)]


@settings(max_examples=60)
@given(
    samples=st.integers(0, 1_600_000),
    grid=st.sampled_from([LASR, WAV2VEC2]),
    seconds=st.sampled_from([(20.0, 2.0), (20.0, 0.0), (5.0, 2.5), (1.0, 0.5)]),
    seed=st.integers(0, 100),
)
def test_windows_cut_from_one_matrix_give_that_matrix_back(
    samples: int, grid: FrameGrid, seconds: tuple[float, float], seed: int
) -> None:
    whole = make_log_probs(grid.frames_of(max(samples, grid.receptive)), seed)
    windows = plan_windows(samples, grid, *seconds)
    fused = fuse_windows(cut(whole, windows, grid), windows, grid)
    assert (fused.shape, fused.dtype) == (whole.shape, np.float32)
    np.testing.assert_allclose(fused, whole, atol=1e-4)


@given(samples=st.integers(330_000, 900_000), seed=st.integers(0, 100))
@settings(max_examples=30)
def test_windows_that_disagree_still_give_probabilities(samples: int, seed: int) -> None:
    windows = plan_windows(samples, LASR, 20.0, 2.0)
    emitted = [make_log_probs(LASR.frames_of(window.length), seed + i) for i, window in enumerate(windows)]
    fused = fuse_windows(emitted, windows, LASR)
    assert len(fused) == LASR.frames_of(samples)
    np.testing.assert_allclose(np.exp(fused.astype(np.float64)).sum(axis=1), 1.0, atol=1e-4)


@given(
    samples=st.integers(0, 1_600_000),
    seconds=st.sampled_from([(20.0, 2.0), (20.0, 10.0), (5.0, 2.5), (1.0, 0.5)]),
    seed=st.integers(0, 100),
)
@settings(max_examples=30)
def test_stretches_come_out_as_if_all_had_been_fused_at_once(samples: int, seconds: tuple[float, float], seed: int) -> None:
    windows = plan_windows(samples, LASR, *seconds)
    emitted = [make_log_probs(LASR.frames_of(window.length), seed + i) for i, window in enumerate(windows)]
    frames = LASR.frames_of(windows[-1].start + windows[-1].length)
    fused, weight_sum = np.zeros((frames, 7), np.float32), np.zeros((frames, 1), np.float32)
    shared = len(emitted[0]) - windows[1].start // 640 if len(windows) > 1 else 1
    for log_probs, window in zip(emitted, windows, strict=True):
        beside = np.minimum(np.arange(1, len(log_probs) + 1), np.arange(len(log_probs), 0, -1))
        ramp = 0.54 - 0.46 * np.cos(2 * np.pi * beside / (2 * shared + 1))
        weights = np.where(beside <= shared, ramp, 1.0).astype(np.float32)[:, None]
        fused[window.start // 640 :][: len(log_probs)] += weights * np.exp(log_probs)
        weight_sum[window.start // 640 :][: len(log_probs)] += weights
    stretches = list(fuse_in_stretches(cut_window_outputs(emitted, windows, LASR), windows, LASR))
    assert max(len(stretch) for stretch in stretches) <= LASR.frames_of(windows[0].length)
    if len(windows) > 1:
        np.testing.assert_allclose(np.concatenate(stretches), np.log(fused / weight_sum), atol=1e-5)


def test_in_an_overlap_the_window_that_hears_more_around_counts_more() -> None:
    windows = plan_windows(600_000, LASR, 20.0, 2.0)
    assert [window.start for window in windows] == [0, 288_000]
    first, second = (
        np.log(np.full((LASR.frames_of(w.length), 2), p, dtype=np.float32)) for w, p in zip(windows, (0.2, 0.6), strict=True)
    )
    fused = np.exp(fuse_windows([first, second], windows, LASR))[:, 0]
    overlap = fused[450:497]
    np.testing.assert_allclose(fused[:450], 0.2, atol=1e-5)
    np.testing.assert_allclose(fused[497:], 0.6, atol=1e-5)
    assert (np.diff(overlap) > 0).all()  # from the one window's opinion to the other's, without a step
    np.testing.assert_allclose(overlap + overlap[::-1], 0.8, atol=0.01)  # neither has an advantage
    assert 0.2 < overlap[0] < 0.35


def test_one_window_passes_through_unchanged() -> None:
    emitted = make_log_probs(497, seed=0)
    fused = fuse_windows([emitted], [Window(0, 320_000)], LASR)
    assert (fused == emitted).all()


def test_impossible_tokens_stay_finite() -> None:
    windows = plan_windows(600_000, LASR, 20.0, 2.0)
    sure = np.array([0.0, -np.inf], dtype=np.float32)
    fused = fuse_windows([np.tile(sure, (LASR.frames_of(window.length), 1)) for window in windows], windows, LASR)
    assert np.isfinite(fused).all()
    assert (fused[:, 1] < -60).all()
