"""The acoustic model's protocol: windows of audio in, frame-wise log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dictalake.acoustic.window_output import Heard, PruneConfig, Stretch
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import FrameGrid


class AcousticModel(Protocol):
    """A model that gives, for each window, log-probabilities over a vocabulary whose ``blank_id`` is CTC's blank."""

    @property
    def grid(self) -> FrameGrid: ...

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def hear(
        self, windows: Sequence[np.ndarray], alone: Sequence[tuple[int, int]], pruning: PruneConfig
    ) -> list[Heard[Stretch]]:
        """int16 windows ``(samples,)`` at 16 kHz, each at least ``grid.receptive`` long → what they say, in order. Of each
        ``alone`` tells which frames ``[first, end)`` no other window hears. What a window gives does not depend on its
        neighbours."""
        ...

    def emit(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The same as float32 ``(grid.frames_of(samples), vocabulary)``, all of it."""
        ...

    def is_usable(self) -> bool:
        """Whether the device still computes; where it does not, the process has to end."""
        ...


def open_model(acoustic: Acoustic, window_s: float) -> AcousticModel:
    """Loads the model that ``acoustic.kind`` names, see ``CtcModel.load``."""
    match acoustic.kind:
        case "ctc":
            from dictalake.acoustic.ctc import CtcModel

            return CtcModel.load(acoustic, window_s)
        case "whisper" | "qwen3-asr":
            raise ConfigError(f"acoustic.kind = {acoustic.kind} gives text, not emissions; this needs a CTC model")
