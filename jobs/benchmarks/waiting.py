"""Measures how long a GPU waits for its actor: the real stage Emit on blocks of the usual size, with a stand-in device.

    python -m jobs.benchmarks waiting --out waiting.json

The stand-in works as long as a fast GPU would, takes no core meanwhile, and returns what the model gave for the same windows
before. Each launch of a batch takes its host as long as that of a real one, and holds Python's lock meanwhile as that does:
5 ms for the kernels one by one, 0.3 ms for a CUDA graph. Everything else is the code of a run: cutting, putting together,
reading, fusing, making sparse. One block or two are in the stage at once; a run gives it one. Ray's work is not included.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from dictalake.acoustic.checkpoint import find_checkpoint, find_folder
from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.sparse_on_device import DeviceSparsifier, FrameSpan
from dictalake.acoustic.weights import load_checkpoint
from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput
from dictalake.config.sections import Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow.columns import ERROR, append_waveforms, extend
from dictalake.workflow.identity import read_vocabulary
from dictalake.workflow.stages.base import DeferredResource
from dictalake.workflow.stages.emit import Emit
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.arms import list_waveforms

SPEEDS_X = (15_000.0, 25_000.0, 45_000.0)
LAUNCHES_MS = {"kernels": 5.0, "graph": 0.3}
BUSY = 0.92  # the target, at 25,000 x
_BLOCKS, _ROUNDS = 6, 3
_MEDIAN_S, _SIGMA = 45.0, 1.0


class _Output:
    """A batch's output, which its device has at ``ready``."""

    def __init__(self, output: DeviceSparsifier, ready: float) -> None:
        self._output, self._ready = output, ready

    def read(self) -> list[WindowOutput[Stretch]]:
        time.sleep(max(0.0, self._ready - time.perf_counter()))
        return self._output.read()


class StandIn(CtcModel):
    """Does ``speed_x`` audio seconds a second, padding included, and takes the batches of a GPU, from any number of threads."""

    speed_x, launch_s = SPEEDS_X[0], 0.0

    def __init__(self, folder: Path, batch_s: float, window_s: float) -> None:
        super().__init__(*load_checkpoint(folder), "cpu", "float32", batch_s, window_s=window_s, bucket_s=5.0)
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix="launch")
        self._known = dict[tuple[Any, ...], DeviceSparsifier]()
        self.worked_s = self._free_at = 0.0

    def _launch(self, sent: Any, spans: Sequence[FrameSpan], pruning: PruneConfig) -> DeviceSparsifier:
        waveforms = sent.tensors["waveforms"]
        batch = (*waveforms.shape, *spans)
        if batch not in self._known:
            self._known[batch] = super()._launch(sent, spans, pruning)
        until = time.perf_counter() + self.launch_s
        while time.perf_counter() < until:  # a sleep would give the lock away
            pass
        seconds = waveforms.numel() / SAMPLE_RATE_HZ / self.speed_x
        self.worked_s += seconds
        self._free_at = max(self._free_at, time.perf_counter()) + seconds
        return cast(DeviceSparsifier, _Output(self._known[batch], self._free_at))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks waiting", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    config = Config.model_validate({"acoustic": {"model": "embedded:medasr-mini", "batch_s": 640}})
    vocabulary, _ = read_vocabulary(find_checkpoint(config.acoustic))
    result = measure_waiting(config, vocabulary, _ROUNDS)
    table = Table("speed", "launch", "busy with 1 block in the stage", "with 2", title="share of the time that a GPU works")
    for speed_x in SPEEDS_X:
        for launch in LAUNCHES_MS:
            busy = [f"{100 * result['busy'][f'{speed_x:.0f} x, {launch}, {blocks} at once']:.0f} %" for blocks in (1, 2)]
            table.add_row(f"{speed_x:,.0f} x", f"{launch}, {LAUNCHES_MS[launch]:g} ms", *busy)
    Console().print(table)
    write_result({"benchmark": "waiting", **result}, options.out)
    return 0


def measure_waiting(config: Config, vocabulary: Vocabulary, rounds: int) -> dict[str, Any]:
    """``busy``: for each speed and kind of launch, the median over ``rounds`` of the device's share of the time."""
    from jobs.benchmarks.load import read_demo_speech

    block = _make_block(read_demo_speech(), config.ray.block_audio_s)
    emit = Emit(config, vocabulary, os.cpu_count() or 1)
    device = StandIn(find_folder(config.acoustic)[0], config.acoustic.batch_s, config.windows.length_s)
    emit._opened = DeferredResource(lambda: device)
    emit(block)  # computes what is repeated later
    busy = {}
    for speed_x in SPEEDS_X:
        device.speed_x = speed_x
        for launch, launch_ms in LAUNCHES_MS.items():
            device.launch_s = launch_ms / 1000
            for at_once in (1, 2):
                shares = [_run_blocks(emit, device, block, at_once) for _ in range(rounds)]
                busy[f"{device.speed_x:.0f} x, {launch}, {at_once} at once"] = float(np.median(shares))
    audio_s = sum(map(len, list_waveforms(block))) / SAMPLE_RATE_HZ
    usual = busy[f"{SPEEDS_X[0]:.0f} x, graph, 2 at once"]
    return {
        "device_speed_x": SPEEDS_X[0],
        "block_audio_s": audio_s,
        "batches": len(device._known),
        "launch_ms": LAUNCHES_MS,
        "busy": busy,
        "waits_s_per_audio_s": (1 / usual - 1) / SPEEDS_X[0],
    }


def _run_blocks(emit: Emit, device: StandIn, block: pa.Table, at_once: int) -> float:
    """The share of the time that the device worked, from the first launch to the last output."""
    device.worked_s = device._free_at = 0.0
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as callers:
        for done in [callers.submit(emit, block) for _ in range(_BLOCKS)]:
            done.result()
    return device.worked_s / (time.perf_counter() - started)


def _make_block(speech: np.ndarray, audio_s: float) -> pa.Table:
    """Recordings with log-normal lengths cut from ``speech``, ``audio_s`` in all."""
    lengths = np.random.default_rng(0).lognormal(np.log(_MEDIAN_S), _SIGMA, 1000)
    # Whole seconds: each length that is new to the stand-in costs a call of the model.
    lengths = np.clip(np.rint(lengths), 1, 600)[: int((lengths.cumsum() < audio_s).sum())]
    sizes = (lengths * SAMPLE_RATE_HZ).astype(int)
    waveforms = [[np.resize(np.roll(speech, -number * 7919), size)] for number, size in enumerate(sizes)]
    names = pa.table({"recording_id": [str(number) for number in range(len(waveforms))]})
    rows: list[dict[str, Any]] = [{"error": None}] * len(waveforms)
    return append_waveforms(extend(names, {"error": ERROR}, rows), waveforms)


if __name__ == "__main__":
    sys.exit(main())
