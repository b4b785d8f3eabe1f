"""Batches as a GPU gets them: tails in buckets of 5 s, launched by one thread for callers in several."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.weights import load_checkpoint
from dictalake.acoustic.windows import plan_windows
from tests.ctc_models import make_waveform

LENGTHS_S = (20.0, 0.2, 20.0, 19.5, 7.3, 1.3, 0.145, 15.1, 5.0)


class LikeGpu(CtcModel):
    """Computes on the CPU, and takes its batches as on a GPU."""

    def __init__(self, folder: Path, batch_s: float) -> None:
        super().__init__(*load_checkpoint(folder), "cpu", "float32", batch_s, window_s=20.0, bucket_s=5.0)
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix="launch")
        self.launched_by: set[str] = set()

    def _launch(self, *given):  # type: ignore[no-untyped-def]
        self.launched_by.add(threading.current_thread().name)
        return super()._launch(*given)


@pytest.fixture(scope="module")
def windows() -> list[np.ndarray]:
    return [make_waveform(seconds, seed) for seed, seconds in enumerate(LENGTHS_S)]


def test_a_window_gives_the_same_in_any_company_and_from_any_thread(random_lasr: Path, windows: list[np.ndarray]) -> None:
    model = LikeGpu(random_lasr, batch_s=1000.0)
    alone = [model.emit([window])[0] for window in windows]
    usual = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 40.0).emit(windows)
    with ThreadPoolExecutor(3) as callers:
        for emitted in callers.map(lambda _: model.emit(windows), range(6)):
            for got, wanted, other in zip(emitted, alone, usual, strict=True):
                assert (got.argmax(axis=1) == wanted.argmax(axis=1)).all()
                np.testing.assert_allclose(got[wanted > -10], wanted[wanted > -10], atol=0.01)
                assert (got.argmax(axis=1) == other.argmax(axis=1)).all()
    assert model.launched_by == {"launch_0"}
    assert model.calls_at_once == 2


def test_a_block_is_few_batches_with_little_padding(random_lasr: Path) -> None:
    """1,800 s of dictations of log-normal lengths (median 45 s), with conf/medasr.yaml."""
    model, random = LikeGpu(random_lasr, batch_s=640.0), np.random.default_rng(0)
    counts, paddings = [], []
    for _ in range(50):
        lengths = np.clip(random.lognormal(np.log(45), 1, 200), 1, 600)
        samples = [int(16_000 * length) for length in lengths[lengths.cumsum() < 1800]]
        cut = [window.length for one in samples for window in plan_windows(one, model.grid, 20.0, 2.0)]
        batches = list(model.batches(cut))
        assert sorted(index for _, indices in batches for index in indices) == list(range(len(cut)))
        counts.append(len(batches))
        paddings.append(sum(length * len(indices) for length, indices in batches) / sum(cut) - 1)
    assert max(counts) <= 8
    assert np.mean(paddings) <= 0.04


@pytest.mark.parametrize("window_s", [8.0, 20.0])
def test_full_windows_are_never_padded(random_lasr: Path, window_s: float) -> None:
    model = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 80.0, window_s=window_s, bucket_s=5.0)
    full = model.grid.window_of(window_s)
    assert list(model.batches([full, full])) == [(full, [0, 1])]
    assert [length for length, _ in model.batches([full - 1, full, 16_000])] == [full, full, 5 * 16_000]


def test_an_error_of_one_call_is_not_one_of_the_next(random_lasr: Path, windows: list[np.ndarray]) -> None:
    model = LikeGpu(random_lasr, batch_s=20.0)
    with pytest.raises((TypeError, ValueError)):
        model.emit([*windows[:2], "no waveform".ljust(64_000)])  # type: ignore[list-item]
    assert [len(one) for one in model.emit(windows[:2])] == [model.grid.frames_of(len(one)) for one in windows[:2]]
