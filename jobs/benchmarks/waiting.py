"""Measures how long a GPU waits for its actor: the real stage Emit on a block of the usual size, with a stand-in device.

The stand-in sleeps as long as a fast GPU would work, takes no core meanwhile, and returns what the model gave for the same
windows before. The figure does not include Ray's work between two blocks, and a core's work to start a GPU's kernels.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.acoustic.checkpoint import find_folder
from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.sparse_on_device import DeviceSparsifier, read_in_order
from dictalake.acoustic.weights import load_checkpoint
from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput
from dictalake.config.sections import Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow.columns import append_waveforms, extend
from dictalake.workflow.stages.base import DeferredResource
from dictalake.workflow.stages.emit import Emit
from jobs.benchmarks.arms import list_waveforms

SPEED_X = 15_000.0
_MEDIAN_S, _SIGMA = 45.0, 1.0


class StandIn:
    """Does ``SPEED_X`` audio seconds a second, one batch ahead of the one that is read, like the model's device.

    The first call with some windows computes the output, and later calls repeat it. In every call the model's own code puts
    the batches together and reads the selected tokens on the host. The work to launch a batch's kernels is not included.
    """

    def __init__(self, model: CtcModel) -> None:
        self._model, self._known = model, dict[tuple[Any, ...], list[tuple[list[int], list[DeviceSparsifier]]]]()
        self.grid, self.device, self.dtype = model.grid, model.device, model.dtype
        self.worked_s = self._free_at = 0.0

    def forward_windows(
        self, windows: Sequence[np.ndarray], exclusive_frames: Sequence[tuple[int, int]], pruning: PruneConfig
    ) -> list[WindowOutput[Stretch]]:
        call = (*map(len, windows), *exclusive_frames, pruning)
        if call not in self._known:
            self._known[call] = list(self._model.select(windows, exclusive_frames, pruning))
        return read_in_order(self._play(windows, self._known[call]))

    def _play(
        self, windows: Sequence[np.ndarray], batches: list[tuple[list[int], list[DeviceSparsifier]]]
    ) -> Iterator[tuple[list[int], list[DeviceSparsifier]]]:
        """Gives each output when the device would have it."""
        ready = deque[float]()
        for turn, (indices, selections) in enumerate(batches):
            while len(ready) < min(2, len(batches) - turn):
                ahead = [windows[index] for index in batches[turn + len(ready)][0]]
                self._model.put_together(ahead, max(map(len, ahead)))
                ready.append(self._work(sum(map(len, ahead))))
            time.sleep(max(0.0, ready.popleft() - time.perf_counter()))
            yield indices, selections

    def emit(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._model.emit(windows)

    def _work(self, samples: int) -> float:
        """The time when the device will have done these samples, after its earlier work."""
        seconds = samples / SAMPLE_RATE_HZ / SPEED_X
        self.worked_s += seconds
        self._free_at = max(self._free_at, time.perf_counter()) + seconds
        return self._free_at

    def is_usable(self) -> bool:
        return True


def measure_waiting(config: Config, vocabulary: Vocabulary, loaded: pa.Table, rounds: int) -> dict[str, Any]:
    """The medians of ``rounds``: the seconds that the device ``waits`` per second of audio, and its ``busy`` share."""
    block = _make_block(loaded, config.ray.block_audio_s)
    emit = Emit(config, vocabulary, os.cpu_count() or 1)
    device = StandIn(CtcModel(*load_checkpoint(find_folder(config.acoustic)[0]), "cpu", "float32", config.acoustic.batch_s))
    emit._opened = DeferredResource(lambda: device)
    audio_s = sum(map(len, list_waveforms(block))) / SAMPLE_RATE_HZ
    waits, shares = [], []
    for turn in range(rounds + 2):
        device.worked_s, started = 0.0, time.perf_counter()
        emit(block)
        took_s = time.perf_counter() - started
        if turn > 1:  # the first one calls the model
            waits.append(took_s - device.worked_s)
            shares.append(device.worked_s / took_s)
    return {
        "device_speed_x": SPEED_X,
        "block_audio_s": audio_s,
        "waits_s_per_audio_s": float(np.median(waits)) / audio_s,
        "busy": float(np.median(shares)),
    }


def _make_block(loaded: pa.Table, audio_s: float) -> pa.Table:
    """Recordings with log-normal lengths cut from those of ``loaded``, ``audio_s`` in all."""
    speech = np.concatenate(list_waveforms(loaded))
    lengths = np.random.default_rng(0).lognormal(np.log(_MEDIAN_S), _SIGMA, 1000)
    # Whole seconds: each length that is new to the stand-in costs a call of the model.
    lengths = np.clip(np.rint(lengths), 1, 600)[: int((lengths.cumsum() < audio_s).sum())]
    sizes = (lengths * SAMPLE_RATE_HZ).astype(int)
    waveforms = [[np.resize(np.roll(speech, -number * 7919), size)] for number, size in enumerate(sizes)]
    names = pa.table({"recording_id": [str(number) for number in range(len(waveforms))]})
    rows: list[dict[str, Any]] = [{"error": None}] * len(waveforms)
    return append_waveforms(extend(names, {"error": loaded.schema.field("error").type}, rows), waveforms)
