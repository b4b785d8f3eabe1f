"""The stage Emit: waveforms → emissions, in an actor that holds the acoustic model.

The model has a thread of its own and is one call ahead: it hears the next windows while the emissions of the last ones are
fused and made sparse, for a GPU must not wait for numpy. All its calls go through that thread, so there is never more than one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import blocks
from pipelines.acoustic.compaction import compact_stretches
from pipelines.acoustic.fusion import fuse_in_stretches
from pipelines.acoustic.model import AcousticModel, open_model
from pipelines.audio.windows import cut_window, plan_windows
from pipelines.boundary import guard, sealed
from pipelines.config import Config
from pipelines.crashes import end_worker
from pipelines.decoding.vocabulary import Vocabulary
from pipelines.errors import EmitFailed
from pipelines.opened import Opened
from pipelines.records import SAMPLE_RATE_HZ, Emissions, Window

# Emissions are kept a little below what the decoder tries, so that float16 rounding cannot push a token over its threshold.
_PRUNING_MARGIN = 0.5


@dataclass(frozen=True)
class _Batch:
    """Recordings that are heard together: how the windows of each channel lie, and the calls in which the model gets them all
    in order; of a long recording a few minutes at a time."""

    channels: Sequence[int]  # of each recording
    plans: Sequence[tuple[Window, ...]]
    calls: Sequence[Sequence[np.ndarray]]


class Emit:
    """Waveforms → emissions: windows through the acoustic model, fused and made sparse."""

    def __init__(self, config: Config, vocabulary: Vocabulary, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._windows, self._vocabulary = config.windows, vocabulary
        self._min_logp = config.decoding.token_min_logp - _PRUNING_MARGIN
        self._collapse_blank = config.decoding.collapse_blank
        self._group_samples = int(4 * config.acoustic.batch_s * SAMPLE_RATE_HZ)
        self._opened: Opened[AcousticModel] = Opened(lambda: open_model(config.acoustic))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    @sealed
    def __call__(self, table: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = [{"error": error} for error in table["error"].to_pylist()]
        ok = [index for index, row in enumerate(rows) if row["error"] is None]
        ids = table["recording_id"].to_pylist()
        model = self._opened.get()  # a bad model stops the run here; below it would cost every row
        groups = list(blocks.group_by_audio(table, ok, self._group_samples / SAMPLE_RATE_HZ))
        batches = [self._plan([blocks.read_waveforms(table, i) for i in group]) for group in groups]
        heard = self._hear_ahead(batches)
        for group, batch in zip(groups, batches, strict=True):
            started = time.perf_counter()
            of_batch = islice(heard, len(batch.calls))
            try:
                emitted = self._make_sparse(batch, of_batch)
            except Exception:
                for call in of_batch:
                    call.cancel()
                self._require_usable()
                # Something in this company is too much for the model: find the guilty one, alone.
                emitted = [self._emit_alone(blocks.read_waveforms(table, i), ids[i], rows[i]) for i in group]
            share_ms = 1000 * (time.perf_counter() - started) / len(group)
            for index, emissions in zip(group, emitted, strict=True):
                rows[index] |= {"emissions": [blocks.emissions_to_row(e) for e in emissions], "emit_ms": share_ms}
                rows[index] |= {"device": model.device, "dtype": model.dtype}
        columns = {"error": blocks.ERROR} | blocks.EMITTED_COLUMNS | blocks.EMISSIONS
        return blocks.extend(table, columns, rows, drop=blocks.WAVEFORMS)

    def _emit_alone(self, channels: list[np.ndarray], recording_id: str, row: dict[str, Any]) -> list[Emissions]:
        emissions: list[Emissions] = []
        with guard(recording_id, "emit", row):
            batch = self._plan([channels])
            try:
                emissions = self._make_sparse(batch, self._hear_ahead([batch]))[0]
            except (RuntimeError, MemoryError) as error:
                self._require_usable()
                raise EmitFailed(recording_id, f"the acoustic model failed on this recording: {type(error).__name__}") from None
        return emissions

    def _require_usable(self) -> None:
        """Ends the process where the device no longer computes; asked between two calls, when its memory is free."""
        if not self._thread.submit(self._opened.get().is_usable).result():
            end_worker()

    def _plan(self, recordings: list[list[np.ndarray]]) -> _Batch:
        """All windows of all channels of ``recordings``, in as few calls as memory allows. Nothing is copied."""
        grid = self._opened.get().grid
        channels = [channel for recording in recordings for channel in recording]
        plans = [plan_windows(len(c), grid, self._windows.length_s, self._windows.overlap_s) for c in channels]
        calls: list[list[np.ndarray]] = []
        samples = most = self._group_samples * 5 // 4  # windows overlap: a group is a little more than its audio
        for channel, plan in zip(channels, plans, strict=True):
            for window in plan:
                if samples + window.length > most:
                    calls.append([])
                    samples = 0
                calls[-1].append(cut_window(channel, window))
                samples += window.length
        return _Batch([len(recording) for recording in recordings], plans, calls)

    def _hear_ahead(self, batches: Iterable[_Batch]) -> Iterator[Future[list[np.ndarray]]]:
        """The model's calls in order, each when the next two are at the model's door: one may be a short one."""
        model, begun = self._opened.get(), deque[Future[list[np.ndarray]]]()
        for call in (call for batch in batches for call in batch.calls):
            begun.append(self._thread.submit(model.emit, call))
            if len(begun) > 2:
                yield begun.popleft()
        yield from begun

    def _make_sparse(self, batch: _Batch, heard: Iterable[Future[list[np.ndarray]]]) -> list[list[Emissions]]:
        """The emissions of each channel of each recording. Raises what the model raised."""
        grid = self._opened.get().grid
        emitted = (window for call in heard for window in call.result())
        made = []
        for plan in batch.plans:
            stretches = fuse_in_stretches(islice(emitted, len(plan)), plan, grid)
            made.append(compact_stretches(stretches, self._min_logp, self._collapse_blank, self._vocabulary.blank_id))
        results = iter(made)
        return [[next(results) for _ in range(count)] for count in batch.channels]
