"""Fuses the posteriors of overlapping windows on the global frame grid.

Every window's posteriors are weighted by a Hamming window over its frames, added up where windows overlap and divided by
the sum of the weights: frames near a window's edge, which lack context, count less (arXiv 2605.16555 does the same).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pipelines.records import FrameGrid, Window


def fuse_windows(log_probs: Sequence[np.ndarray], windows: Sequence[Window], grid: FrameGrid) -> np.ndarray:
    """Log-probabilities ``(frames, vocabulary)`` float32 of a whole recording from those of its ``windows`` in order."""
    return np.concatenate(list(fuse_in_stretches(log_probs, windows, grid)))


def fuse_in_stretches(emitted: Iterable[np.ndarray], windows: Sequence[Window], grid: FrameGrid) -> Iterator[np.ndarray]:
    """The same in order, stretch by stretch, each as soon as no later window reaches into it: hours are never held at once.

    ``emitted`` are the log-probabilities ``(frames, vocabulary)`` of the windows, taken one at a time. Windows overlap with
    their next neighbour only, or also with later ones; one window passes through unchanged.
    """
    log_probs = iter(emitted)
    if len(windows) == 1:
        yield next(log_probs).astype(np.float32, copy=False)
        return
    starts = [window.start // grid.step for window in windows]
    ends = [*starts[1:], grid.frames_of(windows[-1].start + windows[-1].length)]
    fused = weight_sum = np.zeros((0, 1), dtype=np.float32)
    for first, last in zip(starts, ends, strict=True):
        window = next(log_probs)
        fused, weight_sum = _grow(fused, *window.shape), _grow(weight_sum, len(window), 1)
        weights = np.hamming(len(window) + 2)[1:-1, None].astype(np.float32)
        fused[: len(window)] += weights * np.exp(window, dtype=np.float32)
        weight_sum[: len(window)] += weights
        done = last - first
        yield np.log(np.maximum(fused[:done] / weight_sum[:done], np.float32(1e-30)))
        fused, weight_sum = fused[done:], weight_sum[done:]


def _grow(held: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """``held`` with zeros below, at least ``rows`` of them."""
    grown = np.zeros((max(rows, len(held)), columns), dtype=np.float32)
    grown[: len(held)] = held
    return grown
