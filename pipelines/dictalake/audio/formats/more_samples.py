"""Whether bytes behind the announced end of uncompressed sound are more of it: the samples themselves decide."""

from __future__ import annotations

import io

import numpy as np
import soundfile

_EXCERPT_BYTES = 2**16
_QUIET = 0.05  # of full scale: nothing but sound is so quiet on average
_SMOOTH = 0.5  # correlation of neighbours: speech has 0.7 to 0.99, text and compressed data at most 0.3


def is_more_sound(head: bytes, sound: bytes, tail: bytes, frame_bytes: int) -> bool:
    """Whether ``tail`` is sound of the same kind as ``sound``. ``head`` is a header that announces no length.

    What libsndfile cannot decode is taken for sound: then FFmpeg decodes it, and counts what it cannot.
    """
    if not tail.strip(b"\0"):
        return False
    step = max(frame_bytes, 1)
    announced = _decode(head + sound[-(min(len(sound), _EXCERPT_BYTES) // step * step) :])
    following = _decode(head + tail[: max(min(len(tail), _EXCERPT_BYTES) // step * step, step)])
    if following is None:
        return True
    if following.size < 2:
        return False
    loudness = float(np.sqrt(np.mean(np.square(following))))
    usual = float(np.sqrt(np.mean(np.square(announced)))) if announced is not None and announced.size else 0.0
    return loudness <= max(_QUIET, 2 * usual) and (loudness <= _QUIET or _correlate_neighbours(following) >= _SMOOTH)


def _decode(data: bytes) -> np.ndarray | None:
    """The first channel, float32 ``(samples,)``; None where libsndfile refuses."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            samples: np.ndarray = file.read(dtype="float32", always_2d=True)[:, 0]
    except (soundfile.SoundFileError, ValueError, OverflowError):
        return None
    return np.nan_to_num(samples, nan=1.0, posinf=1.0, neginf=1.0)


def _correlate_neighbours(samples: np.ndarray) -> float:
    centred = samples - samples.mean()
    power = float(np.dot(centred, centred))
    return float(np.dot(centred[:-1], centred[1:])) / power if power > 0 else 1.0
