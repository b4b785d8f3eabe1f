"""Whisper through faster-whisper (CTranslate2) with that library's own settings: windows of 30 s that each get the text of
the one before, and sampling at a higher temperature where the beam search loops or is unsure. Only sampling is random: such a
passage may have other words in another run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dictalake.acoustic.checkpoint import find_folder
from dictalake.acoustic.device import name_device, still_computes, warn_of_float32
from dictalake.acoustic.engines.base import INSTALL_WHISPER, EngineSettings, resolve_engine
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ, Word

# As stored if the hardware computes in it, else float32; weights are never quantised for speed.
_COMPUTE_TYPES = {"auto": "default", "float32": "float32", "bfloat16": "bfloat16"}


class WhisperEngine:
    """Loaded once per actor. It takes one stretch at a time, so the words do not depend on other recordings."""

    def __init__(self, model: Any, settings: EngineSettings) -> None:
        self._model, self._settings = model, settings
        self._device = torch.device(model.model.device)

    @classmethod
    def load(cls, acoustic: Acoustic, threads: int) -> WhisperEngine:
        """Raises ConfigError if faster-whisper is missing, or the folder holds no Whisper model with that language."""
        try:
            import ctranslate2
            from faster_whisper import WhisperModel
        except ImportError:
            raise ConfigError(f"acoustic.kind = whisper needs the package faster-whisper; {INSTALL_WHISPER}") from None
        settings = resolve_engine(acoustic)
        device = _choose_device(acoustic.device)
        if device == "cuda" and ctranslate2.get_cuda_device_count() == 0:
            raise ConfigError("acoustic.device = cuda, but CTranslate2 sees no GPU here; use cpu or auto")
        folder, _ = find_folder(acoustic)
        ctranslate2.set_log_level(logging.ERROR)  # hides its warning that a CPU computes float16 weights in float32
        ctranslate2.set_random_seed(0)
        try:
            model = WhisperModel(
                str(folder),
                device=device,
                compute_type=choose_compute_type(acoustic.dtype, device),
                cpu_threads=threads,
                local_files_only=True,
            )
        except Exception as error:  # tokenizers raises a bare one for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(f"acoustic.model = {acoustic.model}: cannot be loaded by faster-whisper: {reason}") from None
        if settings.language not in model.supported_languages:
            allowed = ", ".join(model.supported_languages)
            raise ConfigError(f"acoustic.language = {settings.language}: unknown to this Whisper model (allowed: {allowed})")
        return cls(model, settings)

    @property
    def device(self) -> str:
        return name_device(self._device)

    @property
    def dtype(self) -> str:
        return str(self._model.model.compute_type)

    def recognize(self, stretches: Sequence[np.ndarray]) -> list[list[Word]]:
        """See :class:`dictalake.acoustic.engines.base.TextEngine`; confidence is the mean of a word's token probabilities."""
        return [[word for segment in self.recognize_segments(stretch) for word in segment] for stretch in stretches]

    def is_usable(self) -> bool:
        """See :class:`dictalake.acoustic.engines.base.TextEngine`."""
        return still_computes(self._device)

    def recognize_segments(self, stretch: np.ndarray) -> list[list[Word]]:
        """The words of int16 ``(samples,)``, grouped by Whisper's own segments, in order."""
        segments, _ = self._model.transcribe(
            stretch.astype(np.float32) / 32_768,
            language=self._settings.language,
            beam_size=self._settings.beam_width,
            word_timestamps=True,
        )
        length_s = len(stretch) / SAMPLE_RATE_HZ  # Whisper's windows of 30 s may end later
        return [words_of_segment(segment, length_s) for segment in segments]


def _choose_device(wanted: str) -> str:
    """Resolves ``auto`` as CTranslate2 does."""
    import ctranslate2

    return ("cuda" if ctranslate2.get_cuda_device_count() else "cpu") if wanted == "auto" else wanted


def choose_compute_type(dtype: str, device: str) -> str:
    """CTranslate2's name of ``acoustic.dtype``; float32 if it has no bfloat16 on ``device``. Loads the libraries."""
    import ctranslate2

    has_it = dtype != "bfloat16" or "bfloat16" in ctranslate2.get_supported_compute_types(device)
    return _COMPUTE_TYPES[dtype] if has_it else "float32"


def explain_compute_type(acoustic: Acoustic) -> str | None:
    """As ``explain_dtype``, for Whisper."""
    device = _choose_device(acoustic.device)
    if acoustic.dtype == choose_compute_type(acoustic.dtype, device) or acoustic.dtype == "auto":
        return None
    return warn_of_float32(f"CTranslate2 has no bfloat16 on this {'GPU' if device == 'cuda' else 'processor'}")


def words_of_segment(segment: Any, length_s: float) -> list[Word]:
    """The words of faster-whisper's ``Segment``. Parts that it divides without a space (``24`` ``/7``) become one word.

    If the aligner found no words, those of the text get the segment's times and its mean token probability.
    """
    words: list[Word] = []
    for token in segment.words or ():
        text, end_s = token.word.strip(), min(token.end, length_s)
        if words and not token.word.startswith(" "):
            before = words.pop()
            confidence = min(before.confidence or 0.0, token.probability)
            words.append(Word(before.word + text, before.start_s, max(before.end_s, end_s), confidence))
        elif text:
            words.append(Word(text, min(token.start, length_s), end_s, float(token.probability)))
    if words:
        return words
    start_s, end_s, confidence = min(segment.start, length_s), min(segment.end, length_s), float(np.exp(segment.avg_logprob))
    return [Word(text, start_s, end_s, confidence) for text in segment.text.split()]
