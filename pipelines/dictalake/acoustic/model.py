"""The acoustic model's protocol: windows of audio in, frame-wise log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput
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

    def forward_windows(
        self, windows: Sequence[np.ndarray], exclusive_frames: Sequence[tuple[int, int]], pruning: PruneConfig
    ) -> list[WindowOutput[Stretch]]:
        """The outputs of int16 windows ``(samples,)`` at 16 kHz, in order; each window has ``grid.receptive`` samples or more.

        ``exclusive_frames`` has for each window the frames ``[first, end)`` that no other window covers. A window's output
        does not depend on the other windows.
        """
        ...

    def emit(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """All log-probabilities of each window, as float32 ``(grid.frames_of(samples), vocabulary)``."""
        ...

    def is_usable(self) -> bool:
        """Whether the device still computes. If it does not, the process has to end."""
        ...


def open_model(acoustic: Acoustic, window_s: float) -> AcousticModel:
    """Loads the model that ``acoustic.kind`` names, see ``CtcModel.load``."""
    match acoustic.kind:
        case "ctc":
            from dictalake.acoustic.ctc import CtcModel

            return CtcModel.load(acoustic, window_s)
        case "whisper" | "qwen3-asr" | "parakeet-tdt":
            raise ConfigError(f"acoustic.kind = {acoustic.kind} gives text, not emissions; this needs a CTC model")
