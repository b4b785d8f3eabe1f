"""Vocal tract length perturbation: stretches the frequencies of a spectrum, so that one voice sounds like many.

A shorter vocal tract moves all formants up by nearly one factor (Jaitly and Hinton 2013). Pace and words stay.
"""

from __future__ import annotations

import math

import numpy as np
import torch


def draw_warps(count: int, most: float, rng: np.random.Generator) -> np.ndarray:
    """``count`` factors between 1 / (1 + most) and 1 + most, evenly in their logarithm; a factor above 1 raises formants."""
    return np.exp(rng.uniform(-1.0, 1.0, count) * math.log1p(most))


def warp_spectrum(power: torch.Tensor, factors: np.ndarray) -> torch.Tensor:
    """Power spectra ``(batch, frames, bins)`` in which what lay at a frequency f lies at f times the row's factor.

    The spectrum is warped and not the mel bands, since the lowest bands are narrower than a bin, and some are always empty.
    """
    bins = power.shape[-1]
    sources = np.clip(np.arange(bins) / factors[:, None], 0, bins - 1)
    below = np.minimum(sources.astype(np.int64), bins - 2)
    shape = (power.shape[0], 1, bins)
    share = torch.from_numpy(sources - below).to(power).view(shape)
    index = torch.from_numpy(below).to(power.device).view(shape).expand_as(power)
    return torch.lerp(power.gather(-1, index), power.gather(-1, index + 1), share)
