"""The stage Emit: waveforms → emissions, in an actor that holds the acoustic model.

The thread that calls the stage calls the model. Another one fuses the output and makes it sparse while the model computes the
next windows, since a GPU must not wait for numpy. Two threads may call it, each with a block (``calls_at_once``); Ray Data does
so with one as yet. On a CPU the model computes in separate lanes. Their batches are small enough for the arenas from which
glibc gives memory to other threads; large batches were a tenth slower there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.acoustic.fusion import find_exclusive_frames, fuse_in_stretches
from dictalake.acoustic.model import AcousticModel, open_model
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.config.sections import Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import EmitFailed
from dictalake.records import SAMPLE_RATE_HZ, Emissions, Window
from dictalake.workflow import columns
from dictalake.workflow.stages.background import BackgroundTask
from dictalake.workflow.stages.base import DeferredResource, redact_errors
from dictalake.workflow.stages.isolate import Attempt, FailureIsolation

_BLOCKS_AT_ONCE = 2
_CALLS_WAITING = 2  # of the model's output: 8 MB for ten minutes of 512 pieces


@dataclass
class _Call:
    """The windows for one call of the model, each with the frames that no other window covers."""

    windows: list[np.ndarray] = field(default_factory=list)
    exclusive_frames: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class _Batch:
    """Recordings that go through the model together: the windows of each channel, and the calls with all windows in order. A
    long recording takes several calls."""

    channels: Sequence[int]  # of each recording
    plans: Sequence[tuple[Window, ...]]
    calls: Sequence[_Call]


_ModelOutput = list[WindowOutput[Stretch]]


class _Emission:
    """A batch on its way through the model; its emissions are made in another thread."""

    def __init__(self, emissions: BackgroundTask[_ModelOutput, list[list[Emissions]]] | Exception, model_s: float) -> None:
        self._emissions, self.model_s = emissions, model_s

    def result(self) -> list[list[Emissions]]:
        """Waits for the emissions of each channel of each recording. Raises the error of the model or the thread."""
        if isinstance(self._emissions, Exception):
            raise self._emissions
        return self._emissions.result()


class Emit:
    """Waveforms → emissions: windows through the acoustic model, fused and made sparse."""

    def __init__(self, config: Config, vocabulary: Vocabulary, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.set_up(config, vocabulary.blank_id, DeferredResource(lambda: open_model(config.acoustic, config.windows.length_s)))

    def set_up(self, config: Config, blank_id: int, model: DeferredResource[AcousticModel]) -> None:
        """All that the stage needs, with a model that is at hand."""
        self._windows = config.windows
        self._pruning = PruneConfig.below(config.decoding, blank_id)
        self._group_samples = int(4 * config.acoustic.batch_s * SAMPLE_RATE_HZ)
        self._opened = model
        self._isolation = FailureIsolation("emit", EmitFailed, "the acoustic model", lambda: self._opened.get().is_usable())
        self._pool = ThreadPoolExecutor(_BLOCKS_AT_ONCE, thread_name_prefix="sparse")

    @redact_errors
    def __call__(self, table: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = [{"error": error} for error in table["error"].to_pylist()]
        ok = [index for index, row in enumerate(rows) if row["error"] is None]
        self._opened.get()  # a bad model stops the run here; further down it would fail every row
        started = deque[tuple[list[int], _Emission]]()
        for group in columns.group_by_audio(table, ok, self._group_samples / SAMPLE_RATE_HZ):
            started.append((group, self._start([columns.read_waveforms(table, i) for i in group])))
            if len(started) > 1:
                self._fill_rows(table, *started.popleft(), rows)
        for group, emission in started:
            self._fill_rows(table, group, emission, rows)
        new_columns = {"error": columns.ERROR} | columns.EMITTED_COLUMNS | columns.EMISSIONS
        return columns.extend(table, new_columns, rows, drop=columns.WAVEFORMS)

    def _fill_rows(self, table: pa.Table, group: list[int], emission: _Emission, rows: list[dict[str, Any]]) -> None:
        """Puts the emissions of the recordings ``group`` into their rows."""
        model, ids = self._opened.get(), table["recording_id"]

        def try_alone(index: int) -> Attempt[list[Emissions]]:
            waveforms = columns.read_waveforms(table, index)
            return Attempt(ids[index].as_py(), rows[index], lambda: self._start([waveforms]).result()[0])

        emitted, alone_s = self._isolation.run(emission.result, [try_alone(index) for index in group])
        share_ms = 1000 * (emission.model_s + alone_s) / len(group)
        for index, channels in zip(group, emitted, strict=True):
            rows[index] |= {"emissions": [columns.emissions_to_row(channel) for channel in channels or ()]}
            rows[index] |= {"emit_ms": share_ms, "device": model.device, "dtype": model.dtype}

    def _start(self, recordings: list[list[np.ndarray]]) -> _Emission:
        """Runs all windows of all channels of ``recordings`` through the model. ``result`` raises the errors."""
        model, started = self._opened.get(), time.perf_counter()
        try:
            batch = self._plan(recordings)
        except Exception as error:  # a defect of ours must fail a row, not the block
            return _Emission(error, 0.0)
        emissions = BackgroundTask[_ModelOutput, list[list[Emissions]]](
            self._pool, lambda outputs: self._make_sparse(batch, outputs), _CALLS_WAITING
        )
        try:
            for call in batch.calls:
                emissions.submit(model.forward_windows(call.windows, call.exclusive_frames, self._pruning))
        except BaseException as error:
            emissions.fail(error)  # else the thread would wait for ever
            if not isinstance(error, Exception):
                raise
        else:
            emissions.finish()
        return _Emission(emissions, time.perf_counter() - started)

    def _plan(self, recordings: list[list[np.ndarray]]) -> _Batch:
        """All windows of all channels of ``recordings``, in as few calls as memory allows; copies only padded windows."""
        grid = self._opened.get().grid
        channels = [channel for recording in recordings for channel in recording]
        plans = [plan_windows(len(c), grid, self._windows.length_s, self._windows.overlap_s) for c in channels]
        calls: list[_Call] = []
        samples = most = self._group_samples * 5 // 4  # windows overlap, so a group has a little more than its audio
        for channel, plan in zip(channels, plans, strict=True):
            for window, frames in zip(plan, find_exclusive_frames(plan, grid), strict=True):
                if samples + window.length > most:
                    calls.append(_Call())
                    samples = 0
                calls[-1].windows.append(cut_window(channel, window))
                calls[-1].exclusive_frames.append(frames)
                samples += window.length
        return _Batch([len(recording) for recording in recordings], plans, calls)

    def _make_sparse(self, batch: _Batch, outputs: Iterator[_ModelOutput]) -> list[list[Emissions]]:
        """The emissions of each channel of each recording."""
        grid, windows = self._opened.get().grid, chain.from_iterable(outputs)
        fused = (fuse_in_stretches(islice(windows, len(plan)), plan, grid) for plan in batch.plans)
        results = iter([sparsify_stretches(stretches, self._pruning) for stretches in fused])
        return [[next(results) for _ in range(count)] for count in batch.channels]
