"""The second protocol: engines that give words by themselves, without emissions that a decoder of ours could search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol

import numpy as np

from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import Word

INSTALL_WHISPER = "install the extra: pip install 'dictalake[whisper]'"


class TextEngine(Protocol):
    """A recogniser: stretches of speech in, written words out."""

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def recognize(self, stretches: Sequence[np.ndarray]) -> list[list[Word]]:
        """int16 stretches ``(samples,)`` at 16 kHz → the words of each, in order; joined by spaces they are the engine's text.

        Times are seconds from the stretch's beginning; an engine without times for words gives each word the times of its
        stretch. ``confidence`` is None where the engine has none.
        """
        ...

    def is_usable(self) -> bool:
        """Whether the device still computes; where it does not, the process has to end."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """What can change an engine's words, besides its weights. ``libraries`` (name → version) are not hashed."""

    language: str
    beam_width: int
    stretch_s: float
    libraries: dict[str, str]

    @property
    def hashed(self) -> dict[str, str | int | float]:
        """What goes into the fingerprint."""
        return {"language": self.language, "beam_width": self.beam_width, "stretch_s": self.stretch_s}

    @property
    def name(self) -> str:
        """For the column ``decoder``."""
        library, version = next(iter(self.libraries.items()))
        return f"{library} {version}, beam {self.beam_width}, {self.language}"


def resolve_engine(acoustic: Acoustic) -> EngineSettings:
    """``auto`` resolved for ``acoustic.kind``. Raises ConfigError for ``ctc`` and where the engine's package is missing."""
    match acoustic.kind:
        case "whisper":
            # Whisper moves its own window of 30 s over a stretch; features of ten minutes take 450 MB for a while.
            beam_width, stretch_s, packages = 5, 600.0, ("faster-whisper", "ctranslate2")
        case "qwen3-asr":
            # It would take 20 minutes, but says no times: those of its words are as long as the stretch.
            beam_width, stretch_s, packages = 1, 60.0, ("transformers", "torch")
        case "ctc":
            raise no_engine()
    try:
        libraries = {package: metadata.version(package) for package in packages}
    except metadata.PackageNotFoundError as error:
        raise ConfigError(f"acoustic.kind = {acoustic.kind} needs the package {error.name}; {INSTALL_WHISPER}") from None
    return EngineSettings(
        language=acoustic.language,
        beam_width=beam_width if acoustic.beam_width == "auto" else acoustic.beam_width,
        stretch_s=stretch_s if acoustic.stretch_s == "auto" else acoustic.stretch_s,
        libraries=libraries,
    )


def no_engine() -> ConfigError:
    """What to say where an engine is asked for and a CTC model is configured."""
    return ConfigError("acoustic.kind = ctc gives emissions, not text; the kinds that give text are whisper and qwen3-asr")
