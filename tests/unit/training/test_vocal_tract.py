"""Vocal tract length perturbation moves frequencies and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dictalake.training.vocal_tract import draw_warps, warp_spectrum

BINS, BIN_HZ = 257, 31.25


def spectrum_of_tones(*pitches_hz: float) -> torch.Tensor:
    time_s = np.arange(512) / 16_000
    tones = np.stack([np.sin(2 * np.pi * pitch * time_s) * np.hanning(512) for pitch in pitches_hz])
    return torch.from_numpy(np.abs(np.fft.rfft(tones)) ** 2).float()[:, None, :]


def test_a_factor_multiplies_the_frequency_of_each_row_by_its_own_amount() -> None:
    warped = warp_spectrum(spectrum_of_tones(1000, 1000, 3000), np.array([1.25, 0.8, 1.1]))
    peaks_hz = warped[:, 0].argmax(-1).numpy() * BIN_HZ
    assert peaks_hz == pytest.approx([1250, 800, 3300], abs=BIN_HZ)


def test_a_factor_of_one_changes_no_bit() -> None:
    power = torch.rand(2, 5, BINS)
    assert torch.equal(warp_spectrum(power, np.ones(2)), power)


@given(factor=st.floats(0.5, 2.0), seed=st.integers(0, 99))
def test_a_warped_spectrum_holds_no_value_outside_the_range_of_the_original(factor: float, seed: int) -> None:
    power = torch.rand(1, 2, BINS, generator=torch.Generator().manual_seed(seed))
    warped = warp_spectrum(power, np.array([factor]))
    assert warped.shape == power.shape
    assert power.min() <= warped.min()
    assert warped.max() <= power.max()


@given(most=st.floats(0.01, 0.5), seed=st.integers(0, 99))
def test_factors_stay_within_the_range_on_both_sides_of_one(most: float, seed: int) -> None:
    factors = draw_warps(200, most, np.random.default_rng(seed))
    assert (factors >= 1 / (1 + most) - 1e-9).all()
    assert (factors <= 1 + most + 1e-9).all()
    assert (factors < 1).any()
    assert (factors > 1).any()
