"""The stage Recognize: what stands in the place of Emit and Decode (``stages.py``) where an engine gives text by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.acoustic.engines.base import TextEngine, settle
from dictalake.acoustic.engines.open import open_engine
from dictalake.acoustic.windows import cut_at_pauses, cut_window
from dictalake.config.sections import Config
from dictalake.errors import RecognizeFailed
from dictalake.records import SAMPLE_RATE_HZ, Word
from dictalake.workflow import columns
from dictalake.workflow.quarantine import end_worker
from dictalake.workflow.stages.base import capture_row_error, redact_errors
from dictalake.workflow.stages.deferred import DeferredResource


class Recognize:
    """Waveforms → the words of each channel: stretches of the recordings through the engine. Channels that are equal are heard
    once.
    """

    def __init__(self, config: Config, threads: int) -> None:
        self._stretch_s = settle(config.acoustic).stretch_s
        self._group_s = 4 * config.acoustic.batch_s
        self._opened: DeferredResource[TextEngine] = DeferredResource(lambda: open_engine(config.acoustic, threads))

    @redact_errors
    def __call__(self, table: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = [{"error": error} for error in table["error"].to_pylist()]
        ok = [index for index, row in enumerate(rows) if row["error"] is None]
        ids = table["recording_id"].to_pylist()
        engine = self._opened.get()  # a bad engine stops the run here; below it would cost every row
        for group in columns.group_by_audio(table, ok, self._group_s):
            started = time.perf_counter()
            try:
                heard = self._hear([columns.read_waveforms(table, i) for i in group])
            except Exception:
                if not engine.is_usable():
                    end_worker()
                # Something in this company is too much for the engine: find the guilty one, alone.
                heard = [self._hear_alone(columns.read_waveforms(table, i), ids[i], rows[i]) for i in group]
            share_ms = 1000 * (time.perf_counter() - started) / len(group)
            for index, channels in zip(group, heard, strict=True):
                rows[index] |= {"heard": columns.words_to_row(channels), "emit_ms": share_ms}
                rows[index] |= {"device": engine.device, "dtype": engine.dtype}
        new_columns = {"error": columns.ERROR} | columns.EMITTED_COLUMNS | columns.DECODED_COLUMNS | columns.HEARD
        return columns.extend(table, new_columns, rows, drop=columns.WAVEFORMS)

    def _hear_alone(self, channels: list[np.ndarray], recording_id: str, row: dict[str, Any]) -> list[list[Word]]:
        heard: list[list[Word]] = []
        with capture_row_error(recording_id, "hear", row):
            try:
                heard = self._hear([channels])[0]
            except (RuntimeError, MemoryError) as error:
                if not self._opened.get().is_usable():
                    end_worker()
                raise RecognizeFailed(recording_id, f"the engine failed on this recording: {type(error).__name__}") from None
        return heard

    def _hear(self, recordings: Sequence[Sequence[np.ndarray]]) -> list[list[list[Word]]]:
        """Of each recording the words of each channel, in as few calls as memory allows."""
        places = [[_find_equal(channels, number) for number in range(len(channels))] for channels in recordings]
        distinct = [
            channels[number] for channels, equals in zip(recordings, places, strict=True) for number in sorted(set(equals))
        ]
        plans = [cut_at_pauses(waveform, self._stretch_s) for waveform in distinct]
        stretches = [cut_window(waveform, s) for waveform, plan in zip(distinct, plans, strict=True) for s in plan]
        heard = iter(self._opened.get().hear(stretches))
        words = iter([[w for stretch in plan for w in _shift(next(heard), stretch.start)] for plan in plans])
        results = []
        for equals in places:
            known = {number: next(words) for number in sorted(set(equals))}
            results.append([known[number] for number in equals])
        return results


def _find_equal(channels: Sequence[np.ndarray], number: int) -> int:
    """The first channel that is the same as ``number``, itself if there is none before."""
    return next(earlier for earlier in range(number + 1) if np.array_equal(channels[earlier], channels[number]))


def _shift(words: Sequence[Word], samples: int) -> list[Word]:
    by_s = samples / SAMPLE_RATE_HZ
    return [replace(word, start_s=word.start_s + by_s, end_s=word.end_s + by_s) for word in words]
