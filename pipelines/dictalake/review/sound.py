"""The sound of recordings, as 16 kHz WAV in pieces: from the archive through the sandbox, in memory alone.

Loading starts with the page that shows a recording. What was heard last stays, up to ``review.sound_mb``.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from dictalake.archive.load_recording import load_recording
from dictalake.audio.load import AudioLoader
from dictalake.config.sections import Config
from dictalake.errors import ConfigError, NotFound, TranscriptionError
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow.row_origin import find_object

MIX = "mix"
_HEADER_BYTES = 44
_PEAKS = 2000  # of a wave: more than a screen has columns
_SILENT_S = 0.25  # digital silence of this length or more may stand for a hole
_LOADERS = 1  # one decodes while others are heard


@dataclass(frozen=True)
class Sound:
    """``samples`` int16 ``(channels, samples)`` at 16 kHz; ``speech`` has ``[start, end]`` in seconds for each channel."""

    samples: np.ndarray
    speech: list[list[list[float]]]

    @property
    def duration_s(self) -> float:
        return float(self.samples.shape[1]) / SAMPLE_RATE_HZ

    @property
    def channels(self) -> int:
        return int(self.samples.shape[0])

    def count_bytes(self) -> int:
        """Of the WAV of one channel."""
        return _HEADER_BYTES + 2 * self.samples.shape[1]

    def read(self, channel: str, start: int, end: int) -> bytes:
        """Bytes ``[start, end)`` of the WAV of a channel, or of their mean (``MIX``); nothing else is copied."""
        head = _make_header(2 * self.samples.shape[1])[start:end]
        first, last = (max(0, place - _HEADER_BYTES) for place in (start, end))
        if first >= last:
            return head
        part = slice(first // 2, -(-last // 2))
        if channel == MIX and self.channels > 1:
            piece = self.samples[:, part].mean(axis=0, dtype=np.float32).astype(np.int16)
        else:
            piece = self.samples[0 if channel == MIX else int(channel), part]
        content = piece.tobytes()
        return head + content[first - 2 * part.start : last - 2 * part.start]

    def draw(self) -> list[list[int]]:
        """The loudest sample, 0–100, of each of at most ``_PEAKS`` stretches of equal length, for each channel."""
        width = max(1, -(-self.samples.shape[1] // _PEAKS))
        starts = np.arange(0, self.samples.shape[1], width)
        drawn = []
        for channel in self.samples:
            high = np.maximum.reduceat(channel, starts).astype(np.int32)
            low = np.minimum.reduceat(channel, starts).astype(np.int32)
            drawn.append((np.maximum(high, -low) * 100 // 32768).tolist())
        return drawn

    def find_silence(self) -> list[list[float]]:
        """Stretches, in seconds, in which every sample of every channel is zero: silence that a loader put where sound was
        lost, or that a recorder wrote while it was paused."""
        if self.samples.shape[1] == 0:
            return []
        is_silent = np.concatenate([[False], ~self.samples.any(axis=0), [False]])
        edges = np.flatnonzero(np.diff(is_silent.astype(np.int8))).reshape(-1, 2) / SAMPLE_RATE_HZ
        return [[round(float(a), 3), round(float(b), 3)] for a, b in edges if b - a >= _SILENT_S]


def _make_header(data_bytes: int) -> bytes:
    """RIFF with one channel of int16."""
    size = min(data_bytes, 2**32 - 37)
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, 32000, 2, 16)
    return head + struct.pack("<4sI", b"data", size)


class SoundStore:
    """Sounds by recording id. The one heard last is dropped last."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError as AudioLoader."""
        self._most = int(config.review.sound_mb * 1e6)
        step_s = config.windows.length_s - config.windows.overlap_s
        windows = max(1, min(config.limits.windows, int(self._most / (2 * SAMPLE_RATE_HZ * step_s))))
        limits = config.limits.model_copy(update={"windows": windows})
        archive = config.archive.model_copy(update={"patient_fields": (), "fetch_tries": 2})
        self._config = config.model_copy(update={"limits": limits, "archive": archive})
        self._loader: AudioLoader | None = None
        self._pool = ThreadPoolExecutor(_LOADERS, "sound")
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[Sound]] = OrderedDict()

    def load(self, row: Mapping[str, Any]) -> Future[Sound]:
        """Starts to load the sound of a row, unless it is there. The future raises TranscriptionError or ConfigError."""
        recording_id = str(row["recording_id"])
        with self._lock:
            there = self._find(recording_id)
            if there is not None:
                return there
            future = self._pool.submit(self._load_within, row)
            self._kept[recording_id] = future
            return future

    def find(self, recording_id: str) -> Future[Sound] | None:
        """The sound of a recording if it is there, or on its way."""
        with self._lock:
            return self._find(recording_id)

    def _find(self, recording_id: str) -> Future[Sound] | None:
        there = self._kept.get(recording_id)
        if there is None or (there.done() and there.exception()):
            return None
        self._kept.move_to_end(recording_id)
        return there

    def drop(self, recording_id: str) -> None:
        with self._lock:
            self._kept.pop(recording_id, None)

    def count_bytes(self) -> int:
        """Memory that sounds take."""
        done = [one for one in self._kept.values() if one.done() and not one.exception()]
        return sum(one.result().samples.nbytes for one in done)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _load_within(self, row: Mapping[str, Any]) -> Sound:
        """Loads when it is this one's turn: only then is it known what else has come into memory since it was asked for."""
        quality, source = row["quality"] or {}, row["source"] or {}
        self._make_room(int((quality.get("duration_s") or 0) * 2 * SAMPLE_RATE_HZ * (source.get("channels") or 1)))
        sound = self._load(row)
        self._make_room(sound.samples.nbytes)
        return sound

    def _make_room(self, needed: int) -> None:
        with self._lock:
            for recording_id in [key for key, one in self._kept.items() if one.done()]:
                if self.count_bytes() + needed <= self._most:
                    return
                del self._kept[recording_id]

    def _load(self, row: Mapping[str, Any]) -> Sound:
        if self._loader is None:
            self._loader = AudioLoader(self._config, children=1)
        wanted = str(row["recording_id"])
        failure: TranscriptionError = NotFound(wanted, "the archive object holds it no longer")
        with closing(load_recording(find_object(row), self._config, self._loader, only={wanted})) as files:
            for recording, loaded in files:
                if isinstance(loaded, TranscriptionError):
                    failure = loaded
                elif recording.recording_id == wanted:
                    return Sound(np.ascontiguousarray(loaded.waveforms), loaded.speech)
        raise failure


def explain(error: BaseException) -> str:
    """Why there is no sound, for the page: what happened and what to do, without content."""
    if isinstance(error, TranscriptionError):
        return f"{error.reason}: {error.meaning} {error.advice}"
    return "The archive cannot be read with this configuration." if isinstance(error, ConfigError) else "It cannot be loaded."
