"""Fuses the posteriors of overlapping windows on the global frame grid.

Every window's posteriors are weighted, added up where windows overlap and divided by the sum of the weights: frames near a
window's edge, which lack context, count less. MedASR's paper (arXiv 2605.16555) weights by a Hamming window over all frames.
Then two neighbours are worth nearly the same at the edge of either, and a short last window, which is heavy in its middle,
outweighs its neighbour where it hears worse: words were lost there. So the halves of the Hamming window lie over the overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from pipelines.records import FrameGrid, Window

_LEAST_LOGP = np.float32(-69.0)


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
    taper = _narrowest_overlap(windows, grid)
    fused = weight_sum = np.zeros((0, 1), dtype=np.float32)  # of frames that an earlier window reached into
    for first, last in zip(starts, ends, strict=True):
        window, done = next(log_probs), last - first
        weights, shared = _taper(len(window), taper), min(len(fused), done)
        stretch = np.empty((done, window.shape[1]), dtype=np.float32)
        total = weights[:shared] * np.exp(window[:shared], dtype=np.float32) + fused[:shared]
        np.log(np.maximum(total / (weights[:shared] + weight_sum[:shared]), np.exp(_LEAST_LOGP)), out=stretch[:shared])
        # Most frames are this window's alone, and weighted by whatever they stay as they are.
        np.maximum(window[shared:done], _LEAST_LOGP, out=stretch[shared:])
        yield stretch
        fused = _add(fused[done:], weights[done:] * np.exp(window[done:], dtype=np.float32))
        weight_sum = _add(weight_sum[done:], weights[done:])


def _add(held: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Both from their first rows on."""
    total = np.zeros((max(len(held), len(more)), more.shape[1]), dtype=np.float32)
    total[: len(held)] = held
    total[: len(more)] += more
    return total


def _narrowest_overlap(windows: Sequence[Window], grid: FrameGrid) -> int:
    """Frames that any two neighbours share, at least."""
    shared = (grid.frames_of(one.length) - (other.start - one.start) // grid.step for one, other in pairwise(windows))
    return max(1, min(shared))


def _taper(frames: int, taper: int) -> np.ndarray:
    """Weights ``(frames, 1)``: half a Hamming window over the first and over the last ``taper`` frames, 1 between them."""
    ramp = np.hamming(2 * taper + 2)[1 : taper + 1].astype(np.float32)
    from_edge = np.minimum(np.arange(frames), np.arange(frames)[::-1])
    return np.where(from_edge < taper, ramp[np.minimum(from_edge, taper - 1)], np.float32(1.0))[:, None]
