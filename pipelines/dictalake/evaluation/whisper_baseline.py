"""Whisper as a baseline: a general-purpose recogniser on the same waveforms, in this process and without a lake.

``acoustic.kind: whisper`` runs the same engine over an archive.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dictalake.acoustic.checkpoint import find_packaged_model as find_packaged_model
from dictalake.acoustic.engines.whisper import WhisperEngine
from dictalake.config.sections import Acoustic
from dictalake.records import Word


class Whisper:
    """A Whisper model in CTranslate2 format. Raises ConfigError as :meth:`WhisperEngine.load` does."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        acoustic = Acoustic.model_validate({"kind": "whisper", "model": str(folder), "device": device})
        self._engine = WhisperEngine.load(acoustic, os.cpu_count() or 1)

    def transcribe(self, waveforms: np.ndarray) -> str:
        """The text of int16 ``(channels, samples)`` at 16 kHz: segments of all channels by time. Equal channels count once."""
        said: list[list[Word]] = []
        for index, waveform in enumerate(waveforms):
            if not any(np.array_equal(waveform, earlier) for earlier in waveforms[:index]):
                said += [segment for segment in self._engine.recognize_segments(waveform) if segment]
        return " ".join(word.word for segment in sorted(said, key=lambda words: words[0].start_s) for word in segment)
