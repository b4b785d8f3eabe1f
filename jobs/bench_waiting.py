"""How long a GPU waits for its actor: the real stage Emit over a block of the usual size, with a device that works as long as a
fast GPU would and takes no core meanwhile. It gives what the model gave to a window of that length.

What Ray does between two blocks is not in it, nor what it takes of a core to start a GPU's kernels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench_arms import list_waveforms
from pipelines.acoustic.model import AcousticModel
from pipelines.blocks import append_waveforms, extend
from pipelines.config import Config
from pipelines.decoding.vocabulary import Vocabulary
from pipelines.emitting import Emit
from pipelines.opened import Opened
from pipelines.records import SAMPLE_RATE_HZ

SPEED_X = 15_000.0
_MEDIAN_S, _SIGMA = 45.0, 1.0


class StandIn:
    """Sleeps while it works, ``SPEED_X`` audio seconds a second."""

    def __init__(self, model: AcousticModel) -> None:
        self._model, self._known = model, dict[int, np.ndarray]()
        self.grid, self.device, self.dtype = model.grid, model.device, model.dtype
        self.worked_s = 0.0

    def emit(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        for window in windows:
            if len(window) not in self._known:
                self._known[len(window)] = self._model.emit([window])[0]
        seconds = sum(map(len, windows)) / SAMPLE_RATE_HZ / SPEED_X
        time.sleep(seconds)
        self.worked_s += seconds
        # A model copies what it padded, and has no full window padded.
        full = max(self._known)
        return [self._known[len(window)] if len(window) == full else self._known[len(window)].copy() for window in windows]

    def is_usable(self) -> bool:
        return True


def measure_waiting(config: Config, vocabulary: Vocabulary, loaded: pa.Table, rounds: int) -> dict[str, Any]:
    """The median of ``rounds``: ``waits_s_per_audio_s`` of the device, and ``busy``, its share of the time."""
    block = _make_block(loaded, config.ray.block_audio_s)
    emit = Emit(config, vocabulary, os.cpu_count() or 1)
    device = StandIn(emit._opened.get())
    emit._opened = Opened(lambda: device)
    audio_s = sum(map(len, list_waveforms(block))) / SAMPLE_RATE_HZ
    waits, shares = [], []
    for turn in range(rounds + 2):
        device.worked_s, started = 0.0, time.perf_counter()
        emit(block)
        took_s = time.perf_counter() - started
        if turn > 1:  # the first ones call the model
            waits.append(took_s - device.worked_s)
            shares.append(device.worked_s / took_s)
    return {
        "device_speed_x": SPEED_X,
        "block_audio_s": audio_s,
        "waits_s_per_audio_s": float(np.median(waits)) / audio_s,
        "busy": float(np.median(shares)),
    }


def _make_block(loaded: pa.Table, audio_s: float) -> pa.Table:
    """Recordings of log-normal lengths cut from those of ``loaded``, ``audio_s`` in all."""
    speech = np.concatenate(list_waveforms(loaded))
    lengths = np.random.default_rng(0).lognormal(np.log(_MEDIAN_S), _SIGMA, 1000)
    # Whole seconds: a length that is new to the stand-in costs a call of the model.
    lengths = np.clip(np.rint(lengths), 1, 600)[: int((lengths.cumsum() < audio_s).sum())]
    sizes = (lengths * SAMPLE_RATE_HZ).astype(int)
    waveforms = [[np.resize(np.roll(speech, -number * 7919), size)] for number, size in enumerate(sizes)]
    names = pa.table({"recording_id": [str(number) for number in range(len(waveforms))]})
    rows: list[dict[str, Any]] = [{"error": None}] * len(waveforms)
    return append_waveforms(extend(names, {"error": loaded.schema.field("error").type}, rows), waveforms)
