"""Voice activity detection: where somebody speaks, per channel, on int16 at 16 kHz.

============  =========================================================================================
``webrtc``    WebRTC's detector: Gaussian mixtures on six bands, thousands of times real time on one core
``silero``    silero-vad: a small recurrent network, better in noise, about a hundred times real time
============  =========================================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ

Detector = Literal["webrtc", "silero", "none"]
DETECTOR_MODULES: dict[Detector, tuple[str, ...]] = {"webrtc": ("webrtcvad",), "silero": ("silero_vad",), "none": ()}
Intervals = np.ndarray  # float64 (n, 2): start and end in seconds, in order, not overlapping

_WEBRTC_FRAME = 480  # 30 ms
_WEBRTC_MODE = 2  # of 0 (lets most through) to 3
_SHORTEST_S = 0.12  # clicks are shorter
_PAUSE_S = 0.3  # shorter pauses are inside a word or between two words


def find_speech(waveform: np.ndarray, detector: Detector) -> Intervals:
    """Intervals of speech in int16 ``(samples,)`` at 16 kHz, in seconds ``(n, 2)``; pauses under 0.3 s count as speech."""
    if detector == "none" or len(waveform) == 0:
        return np.zeros((0, 2))
    found = _find_with_webrtc(waveform) if detector == "webrtc" else _find_with_silero(waveform)
    joined = join_intervals([found], gap_s=_PAUSE_S)
    return joined[joined[:, 1] - joined[:, 0] >= _SHORTEST_S]


def join_intervals(parts: Iterable[Intervals], gap_s: float = 0.0) -> Intervals:
    """The union of all intervals; intervals at most ``gap_s`` apart become one."""
    together = [part for part in parts if len(part)]
    if not together:
        return np.zeros((0, 2))
    intervals = np.concatenate(together)
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    ends = np.maximum.accumulate(intervals[:, 1])
    first = np.concatenate([[True], intervals[1:, 0] > ends[:-1] + gap_s])
    last = np.concatenate([first[1:], [True]])
    return np.stack([intervals[first, 0], ends[last]], axis=1)


def subtract_intervals(whole: Intervals, parts: Intervals) -> Intervals:
    """The parts of ``whole`` that lie in none of ``parts``; both are in order and do not overlap."""
    left = []
    at = 0
    for start, end in whole:
        while at < len(parts) and parts[at, 1] <= start:
            at += 1
        index = at
        while index < len(parts) and parts[index, 0] < end:
            if parts[index, 0] > start:
                left.append((start, parts[index, 0]))
            start = max(start, parts[index, 1])
            index += 1
        if start < end:
            left.append((start, end))
    return np.array(left, dtype=np.float64).reshape(-1, 2)


def total_s(intervals: Intervals) -> float:
    """The total length in seconds."""
    return float((intervals[:, 1] - intervals[:, 0]).sum())


def _find_with_webrtc(waveform: np.ndarray) -> Intervals:
    import webrtcvad

    detector = webrtcvad.Vad(_WEBRTC_MODE)
    usable, is_speech = len(waveform) // _WEBRTC_FRAME * _WEBRTC_FRAME, detector.is_speech
    samples = np.ascontiguousarray(waveform[:usable]).data.cast("B")
    size = 2 * _WEBRTC_FRAME
    flags = [is_speech(samples[at : at + size], SAMPLE_RATE_HZ, _WEBRTC_FRAME) for at in range(0, len(samples), size)]
    return _runs(flags, _WEBRTC_FRAME)


def _runs(flags: Sequence[bool], frame: int) -> Intervals:
    edges = np.diff(np.concatenate([[0], np.asarray(flags, dtype=np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return np.stack([starts, ends], axis=1) * (frame / SAMPLE_RATE_HZ)


def _find_with_silero(waveform: np.ndarray) -> Intervals:
    import torch
    from silero_vad import get_speech_timestamps

    sound = torch.from_numpy(waveform.astype(np.float32) / 32_768)
    found = get_speech_timestamps(sound, _load_silero(), sampling_rate=SAMPLE_RATE_HZ)
    return np.array([(f["start"], f["end"]) for f in found], dtype=np.float64).reshape(-1, 2) / SAMPLE_RATE_HZ


@functools.cache
def _load_silero() -> Any:
    from silero_vad import load_silero_vad

    return load_silero_vad(onnx=True)


def require_detector(detector: Detector) -> None:
    """Raises ConfigError where the package of ``detector`` is missing."""
    if detector == "silero":
        try:
            import onnxruntime
            import silero_vad  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"quality.vad = silero needs packages that are missing ({error.name}): pip install 'dictalake[silero]'"
            ) from None
        del onnxruntime
