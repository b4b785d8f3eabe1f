"""Resampling to 16 kHz keeps length, level and pitch, and never wraps."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.audio.resample import resample_blocks


def resample_channels(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    return resample_blocks(rate_hz, [samples])


def test_sixteen_bit_samples_at_16_khz_pass_bit_for_bit() -> None:
    codes = np.array([[-32768, -32767, -1, 0, 1, 32766, 32767], [7, 6, 5, 4, 3, 2, 1]], dtype=np.int16)
    np.testing.assert_array_equal(resample_channels(codes.astype(np.float32) / 32768, 16_000), codes)


def test_beyond_full_scale_stops_at_the_range() -> None:
    samples = np.array([[1.0, 1.5, np.inf, -1.0, -2.0]], dtype=np.float32)
    assert resample_channels(samples, 16_000).tolist() == [[32767, 32767, 32767, -32768, -32768]]


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_tone_keeps_its_pitch_and_level(rate_hz: int) -> None:
    time_in, time_out = np.arange(rate_hz) / rate_hz, np.arange(16_000) / 16_000
    tone = (0.5 * np.sin(2 * np.pi * 440 * time_in)).astype(np.float32)
    resampled = resample_channels(np.stack([tone, -tone]), rate_hz) / 32768
    wanted = 0.5 * np.sin(2 * np.pi * 440 * time_out)
    assert resampled.shape == (2, 16_000)
    assert np.abs(resampled - np.stack([wanted, -wanted]))[:, 400:-400].max() < 2e-4


def test_square_wave_overshoot_does_not_wrap() -> None:
    square = np.where(np.arange(48_000) // 60 % 2, 1.0, -1.0).astype(np.float32)[None]
    resampled = resample_channels(square, 48_000).astype(np.int32)
    assert np.abs(np.diff(resampled[0])).max() <= 65_535
    assert (np.sign(resampled[0][10::40]) == np.sign(square[0][30::120])).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 300),
    st.sampled_from([4_000, 6_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]),
    st.integers(1, 3),
)
def test_length_is_the_rounded_duration(frames: int, rate_hz: int, channels: int) -> None:
    resampled = resample_channels(np.full((channels, frames), 0.25, dtype=np.float32), rate_hz)
    assert resampled.dtype == np.int16
    assert resampled.shape[0] == channels
    assert abs(resampled.shape[1] - frames * 16_000 / rate_hz) <= 0.5


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=6),
    st.sampled_from([8_000, 11_025, 16_000, 44_100]),
    st.integers(1, 2),
)
def test_how_blocks_are_cut_changes_nothing(sizes: list[int], rate_hz: int, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (channels, sum(sizes))).astype(np.float32)
    blocks = np.split(samples, np.cumsum(sizes)[:-1], axis=1)
    np.testing.assert_array_equal(resample_blocks(rate_hz, blocks), resample_blocks(rate_hz, [samples]))


def test_blocks_give_what_the_whole_gives() -> None:
    """Against the same library's one-shot call, which has to hold everything at once."""
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 100_000).astype(np.float32)
    for rate_hz in (8_000, 44_100, 48_000):
        wanted = soxr.resample(samples, rate_hz, 16_000, quality="HQ")
        got = resample_blocks(rate_hz, np.split(samples[None], 10, axis=1))[0]
        length = min(len(wanted), len(got))
        assert abs(len(wanted) - len(got)) <= 1
        assert np.abs(got[:length] / 32768 - np.clip(wanted[:length], -1, 1)).max() < 1e-4
