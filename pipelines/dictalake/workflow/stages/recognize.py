"""The stage Recognize, which replaces Emit and Decode for an engine that gives text (Whisper, Qwen3-ASR)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.acoustic.engines.base import TextEngine, resolve_engine
from dictalake.acoustic.engines.open import open_engine
from dictalake.acoustic.windows import cut_at_pauses, cut_window
from dictalake.config.sections import Config
from dictalake.errors import RecognizeFailed
from dictalake.records import SAMPLE_RATE_HZ, Word
from dictalake.workflow import columns
from dictalake.workflow.stages.base import DeferredResource, redact_errors
from dictalake.workflow.stages.isolate import Attempt, FailureIsolation

_STAGE = "hear"  # what the lake's error.stage and the metrics call this stage; a stored value, so it keeps its old name


class Recognize:
    """Waveforms → the words of each channel. Stretches of the recordings go through the engine, equal channels only once."""

    def __init__(self, config: Config, threads: int) -> None:
        self._stretch_s = resolve_engine(config.acoustic).stretch_s
        self._group_s = 4 * config.acoustic.batch_s
        self._opened: DeferredResource[TextEngine] = DeferredResource(lambda: open_engine(config.acoustic, threads))
        self._isolation = FailureIsolation(_STAGE, RecognizeFailed, "the engine", lambda: self._opened.get().is_usable())

    @redact_errors
    def __call__(self, table: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = [{"error": error} for error in table["error"].to_pylist()]
        ok = [index for index, row in enumerate(rows) if row["error"] is None]
        self._opened.get()  # a bad engine stops the run here; further down it would fail every row
        for group in columns.group_by_audio(table, ok, self._group_s):
            self._fill_rows(table, group, rows)
        new_columns = {"error": columns.ERROR} | columns.EMITTED_COLUMNS | columns.DECODED_COLUMNS | columns.RECOGNIZED
        return columns.extend(table, new_columns, rows, drop=columns.WAVEFORMS)

    def _fill_rows(self, table: pa.Table, group: list[int], rows: list[dict[str, Any]]) -> None:
        """Puts the words of the recordings ``group`` into their rows."""
        engine, ids, started = self._opened.get(), table["recording_id"], time.perf_counter()
        recordings = [columns.read_waveforms(table, index) for index in group]

        def try_alone(index: int, channels: list[np.ndarray]) -> Attempt[list[list[Word]]]:
            return Attempt(ids[index].as_py(), rows[index], lambda: self._recognize([channels])[0])

        attempts = [try_alone(index, channels) for index, channels in zip(group, recordings, strict=True)]
        recognized, _ = self._isolation.run(lambda: self._recognize(recordings), attempts)
        share_ms = 1000 * (time.perf_counter() - started) / len(group)
        for index, words in zip(group, recognized, strict=True):
            rows[index] |= {"recognized_words": columns.words_to_row(words or []), "emit_ms": share_ms}
            rows[index] |= {"device": engine.device, "dtype": engine.dtype}

    def _recognize(self, recordings: Sequence[Sequence[np.ndarray]]) -> list[list[list[Word]]]:
        """The words of each channel of each recording, in as few calls as memory allows."""
        places = [[_find_equal(channels, number) for number in range(len(channels))] for channels in recordings]
        distinct = [
            channels[number] for channels, equals in zip(recordings, places, strict=True) for number in sorted(set(equals))
        ]
        plans = [cut_at_pauses(waveform, self._stretch_s) for waveform in distinct]
        stretches = [cut_window(waveform, s) for waveform, plan in zip(distinct, plans, strict=True) for s in plan]
        outputs = iter(self._opened.get().recognize(stretches))
        words = iter([[w for stretch in plan for w in _shift(next(outputs), stretch.start)] for plan in plans])
        results = []
        for equals in places:
            known = {number: next(words) for number in sorted(set(equals))}
            results.append([known[number] for number in equals])
        return results


def _find_equal(channels: Sequence[np.ndarray], number: int) -> int:
    """The first channel that equals channel ``number``; ``number`` itself if no earlier one does."""
    return next(earlier for earlier in range(number + 1) if np.array_equal(channels[earlier], channels[number]))


def _shift(words: Sequence[Word], samples: int) -> list[Word]:
    by_s = samples / SAMPLE_RATE_HZ
    return [replace(word, start_s=word.start_s + by_s, end_s=word.end_s + by_s) for word in words]
