"""Batches on a device: the next one starts early, and one that does not fit is halved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.sparse_on_device import DeviceSparsifier, FrameSpan
from dictalake.acoustic.weights import load_checkpoint
from dictalake.acoustic.window_output import PruneConfig
from dictalake.config.sections import Acoustic
from tests.ctc_models import make_waveform


class SmallDevice(CtcModel):
    """Has memory for ``most`` windows at once; counts what it was asked for."""

    most = 3
    asked: list[int]

    def _start(self, asked: list[tuple[np.ndarray, FrameSpan]], length: int, pruning: PruneConfig) -> DeviceSparsifier:
        self.asked.append(len(asked))
        if len(asked) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._start(asked, length, pruning)


def test_the_next_batch_is_with_the_device_before_the_last_one_is_read(
    random_lasr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [make_waveform(1.0, seed) for seed in range(6)]
    model, order = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 2.0), []
    expected = [model.emit([window])[0] for window in windows]
    start, read = CtcModel._start, DeviceSparsifier.read
    monkeypatch.setattr(CtcModel, "_start", lambda *given: (order.append("start"), start(*given))[1])
    monkeypatch.setattr(DeviceSparsifier, "read", lambda selection: (order.append("read"), read(selection))[1])
    emitted = model.emit(windows)
    assert order == ["start", "start", "read", "start", "read", "read"]
    assert all(np.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(emitted, expected, strict=True))


def test_a_batch_that_does_not_fit_the_device_is_halved_and_stays_so(random_lasr: Path) -> None:
    windows = [make_waveform(1.0, seed) for seed in range(10)]
    expected = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 10.0).emit(windows)
    small = SmallDevice(*load_checkpoint(random_lasr), "cpu", "float32", 10.0)
    small.asked = []
    emitted = small.emit(windows)
    assert all(np.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(emitted, expected, strict=True))
    assert small.asked == [10, 5, 3, 2, 5, 3, 2]
    small.asked.clear()
    small.emit(windows)
    assert small.asked == [3, 3, 3, 1]


def test_lanes_that_run_out_of_memory_halve_their_batches_too(random_lasr: Path) -> None:
    windows = [make_waveform(1.0, seed) for seed in range(16)]
    expected = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 16.0).emit(windows)
    small = SmallDevice(*load_checkpoint(random_lasr), "cpu", "float32", 16.0, lanes=2)
    small.asked = []
    emitted = small.emit(windows)
    assert all(np.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(emitted, expected, strict=True))
    assert max(small.asked) == 8
    small.asked.clear()
    small.emit(windows)
    assert max(small.asked) <= 3


def test_a_window_that_does_not_fit_by_itself_is_an_error_of_its_recording(random_lasr: Path) -> None:
    small = SmallDevice.load(Acoustic.model_validate({"model": str(random_lasr), "device": "cpu", "dtype": "float32"}))
    small.asked, small.most = [], 0
    with pytest.raises(torch.OutOfMemoryError):
        small.emit([make_waveform(1.0, seed=1)])
    assert small.is_usable()
