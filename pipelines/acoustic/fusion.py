"""Fuses the posteriors of overlapping windows on the global frame grid.

Every window's posteriors are weighted by a Hamming window over its frames, added up where windows overlap and divided by
the sum of the weights: frames near a window's edge, which lack context, count less (arXiv 2605.16555 does the same).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.records import FrameGrid, Window


def fuse_windows(log_probs: Sequence[np.ndarray], windows: Sequence[Window], grid: FrameGrid) -> np.ndarray:
    """Log-probabilities ``(frames, vocabulary)`` float32 of a whole recording from those of its ``windows`` in order.

    Windows overlap with their next neighbour only, or also with later ones; one window passes through unchanged.
    """
    if len(windows) == 1:
        return log_probs[0].astype(np.float32, copy=False)
    frames = grid.frames_of(windows[-1].start + windows[-1].length)
    fused = np.zeros((frames, log_probs[0].shape[1]), dtype=np.float32)
    weight_sum = np.zeros((frames, 1), dtype=np.float32)
    for emitted, window in zip(log_probs, windows, strict=True):
        first = window.start // grid.step
        weights = np.hamming(len(emitted) + 2)[1:-1, None].astype(np.float32)
        fused[first : first + len(emitted)] += weights * np.exp(emitted, dtype=np.float32)
        weight_sum[first : first + len(emitted)] += weights
    return np.log(np.maximum(fused / weight_sum, np.float32(1e-30)))
