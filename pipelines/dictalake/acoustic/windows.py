"""Cuts long recordings into overlapping windows on one global frame grid, or into stretches at pauses."""

from __future__ import annotations

import numpy as np

from dictalake.records import SAMPLE_RATE_HZ, FrameGrid, Window

_SEARCH_PIECES = 50  # tenths of a second


def plan_windows(samples: int, grid: FrameGrid, length_s: float, overlap_s: float) -> tuple[Window, ...]:
    """Windows over ``[0, max(samples, grid.receptive))`` in order. Each starts at a multiple of ``grid.step``.

    All but the last have the same length (``grid.window_of(length_s)``). Each pair of neighbours shares at least
    ``overlap_s`` and at least one receptive field, so that every frame of the recording lies whole in some window.
    """
    step = grid.step
    length = grid.window_of(length_s)
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


def cut_at_pauses(waveform: np.ndarray, longest_s: float) -> list[Window]:
    """Stretches that cover int16 ``(samples,)`` without overlap, none longer than ``longest_s``.

    Each cut is in the middle of the quietest tenth of a second (the last of equals) in the five seconds before that length,
    or in its second half if that is shorter.
    """
    longest, piece = int(longest_s * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ // 10
    pieces = min(_SEARCH_PIECES, longest // 2 // piece)
    stretches, start = [], 0
    while len(waveform) - start > longest:
        searched = start + longest - pieces * piece
        power = np.square(waveform[searched : start + longest].astype(np.float64)).reshape(pieces, piece).sum(axis=1)
        quietest = pieces - 1 - int(power[::-1].argmin())
        end = searched + quietest * piece + piece // 2
        stretches.append(Window(start, end - start))
        start = end
    return [*stretches, Window(start, len(waveform) - start)]
