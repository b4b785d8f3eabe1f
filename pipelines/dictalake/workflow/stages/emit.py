"""The stage Emit: waveforms → emissions, in an actor that holds the acoustic model.

What the model says is fused and made sparse in a thread beside it, while the model hears the next windows: a GPU must not wait
for numpy. The model is called from the actor's own thread. On a CPU it computes in lanes of its own, in batches small enough
for the arenas from which glibc gives memory to other threads: with large batches it was a tenth slower there.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.acoustic.fusion import find_exclusive_frames, fuse_in_stretches
from dictalake.acoustic.model import AcousticModel, open_model
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.window_output import Heard, PruneConfig, Stretch
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.config.sections import Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import EmitFailed
from dictalake.records import SAMPLE_RATE_HZ, Emissions, Window
from dictalake.workflow import columns
from dictalake.workflow.quarantine import end_worker
from dictalake.workflow.stages.base import capture_row_error, redact_errors
from dictalake.workflow.stages.deferred import DeferredResource

_CALLS_WAITING = 2  # of what the model said: 8 MB for ten minutes of 512 pieces


@dataclass
class _Call:
    """Windows that the model gets at once, each with its frames that no other hears."""

    windows: list[np.ndarray] = field(default_factory=list)
    alone: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class _Batch:
    """Recordings that are heard together: how the windows of each channel lie, and the calls in which the model gets them all
    in order; of a long recording a few minutes at a time."""

    channels: Sequence[int]  # of each recording
    plans: Sequence[tuple[Window, ...]]
    calls: Sequence[_Call]


@dataclass(frozen=True)
class _Emitted:
    """``emissions`` of each channel of each recording, as soon as they are made; ``took_s`` is what the model took."""

    emissions: Future[list[list[Emissions]]]
    took_s: float


_Said = queue.Queue[list[Heard[Stretch]] | BaseException]


class Emit:
    """Waveforms → emissions: windows through the acoustic model, fused and made sparse."""

    def __init__(self, config: Config, vocabulary: Vocabulary, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._windows = config.windows
        self._pruning = PruneConfig.below(config.decoding, vocabulary.blank_id)
        self._group_samples = int(4 * config.acoustic.batch_s * SAMPLE_RATE_HZ)
        self._opened: DeferredResource[AcousticModel] = DeferredResource(
            lambda: open_model(config.acoustic, config.windows.length_s)
        )
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="sparse")

    @redact_errors
    def __call__(self, table: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = [{"error": error} for error in table["error"].to_pylist()]
        ok = [index for index, row in enumerate(rows) if row["error"] is None]
        self._opened.get()  # a bad model stops the run here; below it would cost every row
        underway = deque[tuple[list[int], _Emitted]]()
        for group in columns.group_by_audio(table, ok, self._group_samples / SAMPLE_RATE_HZ):
            underway.append((group, self._hear([columns.read_waveforms(table, i) for i in group])))
            if len(underway) > 1:
                self._settle(table, *underway.popleft(), rows)
        for group, heard in underway:
            self._settle(table, group, heard, rows)
        new_columns = {"error": columns.ERROR} | columns.EMITTED_COLUMNS | columns.EMISSIONS
        return columns.extend(table, new_columns, rows, drop=columns.WAVEFORMS)

    def _settle(self, table: pa.Table, group: list[int], heard: _Emitted, rows: list[dict[str, Any]]) -> None:
        """Puts what was heard of the recordings ``group`` into their rows."""
        model, started = self._opened.get(), time.perf_counter()
        try:
            emitted, took_s = heard.emissions.result(), heard.took_s
        except Exception:  # something in this company is too much for the model: find the guilty one, alone
            self._require_usable()
            ids = table["recording_id"]
            emitted = [self._emit_alone(columns.read_waveforms(table, i), ids[i].as_py(), rows[i]) for i in group]
            took_s = heard.took_s + time.perf_counter() - started
        for index, emissions in zip(group, emitted, strict=True):
            rows[index] |= {"emissions": [columns.emissions_to_row(e) for e in emissions]}
            rows[index] |= {"emit_ms": 1000 * took_s / len(group), "device": model.device, "dtype": model.dtype}

    def _emit_alone(self, channels: list[np.ndarray], recording_id: str, row: dict[str, Any]) -> list[Emissions]:
        emissions: list[Emissions] = []
        with capture_row_error(recording_id, "emit", row):
            try:
                emissions = self._hear([channels]).emissions.result()[0]
            except (RuntimeError, MemoryError) as error:
                self._require_usable()
                raise EmitFailed(recording_id, f"the acoustic model failed on this recording: {type(error).__name__}") from None
        return emissions

    def _require_usable(self) -> None:
        """Ends the process where the device no longer computes."""
        if not self._opened.get().is_usable():
            end_worker()

    def _hear(self, recordings: list[list[np.ndarray]]) -> _Emitted:
        """All windows of all channels of ``recordings`` through the model, of a long recording a few minutes at a time. What
        the model raises is raised by ``emissions``."""
        model, started = self._opened.get(), time.perf_counter()
        said: _Said = queue.Queue(_CALLS_WAITING)
        try:
            batch = self._plan(recordings)
        except Exception as error:  # a defect of ours must cost a row, not the block: it comes up where the others do
            unplanned = Future[list[list[Emissions]]]()
            unplanned.set_exception(error)
            return _Emitted(unplanned, 0.0)
        emissions = self._beside.submit(self._make_sparse, batch, said)

        def pass_on(words: list[Heard[Stretch]] | BaseException) -> None:
            while not emissions.done():  # it is over where making them sparse failed
                with suppress(queue.Full):
                    said.put(words, timeout=1.0)
                    return

        try:
            for call in batch.calls:
                pass_on(model.hear(call.windows, call.alone, self._pruning))
        except BaseException as error:
            pass_on(error)  # else the thread would wait for ever
            if not isinstance(error, Exception):
                raise
        return _Emitted(emissions, time.perf_counter() - started)

    def _plan(self, recordings: list[list[np.ndarray]]) -> _Batch:
        """All windows of all channels of ``recordings``, in as few calls as memory allows; only what is padded is copied."""
        grid = self._opened.get().grid
        channels = [channel for recording in recordings for channel in recording]
        plans = [plan_windows(len(c), grid, self._windows.length_s, self._windows.overlap_s) for c in channels]
        calls: list[_Call] = []
        samples = most = self._group_samples * 5 // 4  # windows overlap: a group is a little more than its audio
        for channel, plan in zip(channels, plans, strict=True):
            for window, alone in zip(plan, find_exclusive_frames(plan, grid), strict=True):
                if samples + window.length > most:
                    calls.append(_Call())
                    samples = 0
                calls[-1].windows.append(cut_window(channel, window))
                calls[-1].alone.append(alone)
                samples += window.length
        return _Batch([len(recording) for recording in recordings], plans, calls)

    def _make_sparse(self, batch: _Batch, said: _Said) -> list[list[Emissions]]:
        """The emissions of each channel of each recording. Raises what was said instead of windows."""
        grid, heard = self._opened.get().grid, _take(said)
        fused = (fuse_in_stretches(islice(heard, len(plan)), plan, grid) for plan in batch.plans)
        results = iter([sparsify_stretches(stretches, self._pruning) for stretches in fused])
        return [[next(results) for _ in range(count)] for count in batch.channels]


def _take(said: _Said) -> Iterator[Heard[Stretch]]:
    while True:
        words = said.get()
        if isinstance(words, BaseException):
            raise words
        yield from words
