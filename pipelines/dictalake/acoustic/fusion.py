"""Fuses the posteriors of overlapping windows on the global frame grid.

Every window's posteriors are weighted, added up where windows overlap and divided by the sum of the weights. Frames near a
window's edge lack context and count less. MedASR's paper (arXiv 2605.16555) weights by a Hamming window over all frames.
With that, two neighbours weigh nearly the same at the edge of either. A short last window is heavy in its middle and
outweighs its neighbour where it is less reliable, which lost words. So this module applies the halves of the Hamming window
to the overlap, and frames that only one window covers pass unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from dictalake.acoustic.window_output import Exclusive, WindowOutput
from dictalake.records import FrameGrid, Window

_LEAST_LOGP = np.float32(-69.0)


def fuse_windows(log_probs: Sequence[np.ndarray], windows: Sequence[Window], grid: FrameGrid) -> np.ndarray:
    """Log-probabilities ``(frames, vocabulary)`` float32 of a whole recording, none below -69, from those of its ``windows``
    in order."""
    stretches = fuse_in_stretches(cut_window_outputs(log_probs, windows, grid), windows, grid)
    return np.maximum(np.concatenate(list(stretches)), _LEAST_LOGP, dtype=np.float32)


def cut_window_outputs(
    log_probs: Iterable[np.ndarray], windows: Sequence[Window], grid: FrameGrid
) -> Iterator[WindowOutput[np.ndarray]]:
    """Log-probabilities ``(frames, vocabulary)`` of each of ``windows``, cut where their neighbours begin and end."""
    for output, (first, end) in zip(log_probs, find_exclusive_frames(windows, grid), strict=True):
        yield WindowOutput(output[:first], output[first:end], output[end:])


def find_exclusive_frames(windows: Sequence[Window], grid: FrameGrid) -> list[tuple[int, int]]:
    """For each window the frames ``[first, end)`` that no other of ``windows`` covers. An earlier window covers the frames
    before them too, a later one the frames after them."""
    found, reached = [], 0
    for start, end in zip(*_bounds(windows, grid), strict=True):
        done = end - start
        found.append((min(max(reached - start, 0), done), done))
        reached = max(reached, start + grid.frames_of(windows[len(found) - 1].length))
    return found


def fuse_in_stretches(
    outputs: Iterable[WindowOutput[Exclusive]], windows: Sequence[Window], grid: FrameGrid
) -> Iterator[np.ndarray | Exclusive]:
    """All frames of a recording in order, in stretches. Fused frames are log-probabilities, the others pass unchanged.

    A stretch comes as soon as no later window reaches into it, so hours are never held at once. ``outputs`` are those of the
    ``windows``, cut by ``find_exclusive_frames`` and taken one at a time. A window may overlap with more than the next one.
    """
    each = iter(outputs)
    taper = _narrowest_overlap(windows, grid)
    held = weight_sum = np.zeros((0, 1), dtype=np.float32)  # for frames that an earlier window covers too
    for window, (first, done) in zip(windows, find_exclusive_frames(windows, grid), strict=True):
        output, weights = next(each), _taper(grid.frames_of(window.length), taper)
        if first:
            total = weights[:first] * np.exp(output.before, dtype=np.float32) + held[:first]
            yield np.log(np.maximum(total / (weights[:first] + weight_sum[:first]), np.exp(_LEAST_LOGP)))
        yield output.exclusive
        held = _add(held[done:], weights[done:] * np.exp(output.after, dtype=np.float32))
        weight_sum = _add(weight_sum[done:], weights[done:])


def _bounds(windows: Sequence[Window], grid: FrameGrid) -> tuple[list[int], list[int]]:
    """The frame of the recording where each window begins, and where the next window begins."""
    starts = [window.start // grid.step for window in windows]
    return starts, [*starts[1:], grid.frames_of(windows[-1].start + windows[-1].length)]


def _add(held: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Adds two matrices of different lengths, aligned at their first rows."""
    total = np.zeros((max(len(held), len(more)), more.shape[1]), dtype=np.float32)
    total[: len(held)] = held
    total[: len(more)] += more
    return total


def _narrowest_overlap(windows: Sequence[Window], grid: FrameGrid) -> int:
    """The fewest frames that two neighbours share."""
    shared = (grid.frames_of(one.length) - (other.start - one.start) // grid.step for one, other in pairwise(windows))
    return max(1, min(shared, default=1))


def _taper(frames: int, taper: int) -> np.ndarray:
    """Weights ``(frames, 1)``: half a Hamming window over the first and over the last ``taper`` frames, 1 between them."""
    ramp = np.hamming(2 * taper + 2)[1 : taper + 1].astype(np.float32)
    from_edge = np.minimum(np.arange(frames), np.arange(frames)[::-1])
    return np.where(from_edge < taper, ramp[np.minimum(from_edge, taper - 1)], np.float32(1.0))[:, None]
