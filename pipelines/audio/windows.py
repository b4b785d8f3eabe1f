"""Cuts long recordings into overlapping windows on one global frame grid, and gives the weights to fuse them again."""

from __future__ import annotations

import numpy as np

from pipelines.records import SAMPLE_RATE_HZ, FrameGrid, Window


def plan_windows(samples: int, grid: FrameGrid, length_s: float, overlap_s: float) -> tuple[Window, ...]:
    """Windows over ``[0, max(samples, grid.receptive))``, in order, each starting at a multiple of ``grid.step``.

    All but the last have the same length (``length_s`` rounded down to the grid). Each pair of neighbours shares at least
    ``overlap_s`` and at least one receptive field, so that every frame of the recording lies whole in some window.
    """
    step = grid.step
    length = max(int(length_s * SAMPLE_RATE_HZ) // step * step, -(-grid.receptive // step) * step * 2)
    overlap = max(-(-int(overlap_s * SAMPLE_RATE_HZ) // step), -(-grid.receptive // step)) * step
    total = max(samples, grid.receptive)
    windows = []
    start = 0
    while start + length < total:
        windows.append(Window(start, length))
        start += length - overlap
    return (*windows, Window(start, total - start))


def cut_window(waveform: np.ndarray, window: Window) -> np.ndarray:
    """The samples of ``window`` from int16 ``waveform`` ``(samples,)``, zero-padded where the recording is shorter."""
    piece = waveform[window.start : window.start + window.length]
    return piece if len(piece) == window.length else np.pad(piece, (0, window.length - len(piece)))
