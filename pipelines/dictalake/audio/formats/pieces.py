"""FFmpeg's frames → blocks of float32. Codecs give a few hundred samples at once; they are gathered, and copied in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import av
import numpy as np

from dictalake.audio.formats.joining import RatedBlock

PIECE_FRAMES = 2**16
_PLANES = 7  # PyAV counts one more than there are, and reads it


class Pieces:
    """Gathers frames of one kind that follow one another."""

    def __init__(self) -> None:
        self._fifo: av.AudioFifo | None = None
        self._kind: tuple[str, int, int] | None = None
        self._frames = 0
        self._packer: av.AudioResampler | None = None
        self._packs: tuple[str, str, int] | None = None

    @property
    def is_full(self) -> bool:
        """Whether enough was gathered: it is time for ``take``."""
        return self._frames >= PIECE_FRAMES

    def fits(self, frame: av.AudioFrame) -> bool:
        """Whether ``frame`` has the number type, channels and rate of the gathered ones."""
        return self._fifo is None or _find_kind(frame) == self._kind

    def add(self, frame: av.AudioFrame) -> None:
        """Takes a frame that ``fits``. Its time is forgotten."""
        if self._fifo is None:
            self._fifo, self._kind = av.AudioFifo(), _find_kind(frame)
        frame.pts = None
        self._fifo.write(frame)
        self._frames += frame.samples

    def take(self) -> Iterator[RatedBlock]:
        """What was gathered; nothing if that is nothing."""
        gathered = None if self._fifo is None else self._fifo.read()
        self._fifo, self._frames = None, 0
        if gathered is not None:
            block = self._unpack(gathered)
            if block.size:
                yield gathered.sample_rate, block

    def _unpack(self, frame: av.AudioFrame) -> np.ndarray:
        channels = frame.layout.nb_channels
        if channels <= _PLANES and frame.format.name == "fltp":
            if channels == 1:
                return np.frombuffer(memoryview(frame.planes[0]), dtype=np.float32, count=frame.samples)[None]
            return cast(np.ndarray, frame.to_ndarray())
        # A resampler refuses other names for as many channels, too: "stereo" and "2 channels".
        stored = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._packer is None or self._packs != stored:
            self._packer, self._packs = av.AudioResampler(format="flt"), stored
        parts = []
        for packed in self._packer.resample(frame):
            values = np.frombuffer(memoryview(packed.planes[0]), dtype=np.float32, count=packed.samples * channels)
            parts.append(values.reshape(packed.samples, channels).T.copy())
        return np.concatenate(parts, axis=1) if parts else np.zeros((channels, 0), np.float32)


def _find_kind(frame: av.AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate
