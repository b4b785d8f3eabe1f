"""The second protocol: engines that give words directly, without emissions for one of our decoders."""

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
    """A recogniser: it takes stretches of speech and gives written words."""

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def recognize(self, stretches: Sequence[np.ndarray]) -> list[list[Word]]:
        """int16 stretches ``(samples,)`` at 16 kHz → the words of each in order. Joined by spaces they are the engine's text.

        Times are seconds from the stretch's beginning. An engine without word times gives each word the times of its stretch.
        ``confidence`` is None if the engine has none.
        """
        ...

    def is_usable(self) -> bool:
        """Whether the device still computes. If it does not, the process has to end."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """The settings that can change an engine's words. ``libraries`` (name → version) are not hashed."""

    language: str
    beam_width: int
    stretch_s: float
    libraries: dict[str, str]

    @property
    def hashed(self) -> dict[str, str | int | float]:
        """The part that the fingerprint includes."""
        return {"language": self.language, "beam_width": self.beam_width, "stretch_s": self.stretch_s}

    @property
    def name(self) -> str:
        """For the column ``decoder``."""
        library, version = next(iter(self.libraries.items()))
        return f"{library} {version}, beam {self.beam_width}, {self.language}"


def resolve_engine(acoustic: Acoustic) -> EngineSettings:
    """Resolves ``auto`` for ``acoustic.kind``. Raises ConfigError for ``ctc``, and if the engine's package is missing."""
    match acoustic.kind:
        case "whisper":
            # Whisper moves its own window of 30 s over a stretch. The features of ten minutes take 450 MB for a while.
            beam_width, stretch_s, packages = 5, 600.0, ("faster-whisper", "ctranslate2")
        case "qwen3-asr":
            # It could take 20 minutes, but gives no times: each word gets the times of its stretch, so stretches are short.
            beam_width, stretch_s, packages = 1, 60.0, ("transformers", "torch")
        case "parakeet-tdt":
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
    """The error if an engine is needed and a CTC model is configured."""
    return ConfigError(
        "acoustic.kind = ctc gives emissions, not text; kinds that give text are: whisper, qwen3-asr, parakeet-tdt"
    )
