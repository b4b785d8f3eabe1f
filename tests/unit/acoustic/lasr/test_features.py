"""Log-mel features in float32 on any device are those of transformers, clip by clip in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LasrFeatureExtractor

from dictalake.acoustic.lasr.features import LogMel
from tests.recordings import make_sound

EXTRACTOR = LasrFeatureExtractor()
LOG_MEL = LogMel(EXTRACTOR)


def features_of_transformers(waveform: np.ndarray) -> np.ndarray:
    return np.asarray(EXTRACTOR(waveform, sampling_rate=16_000, return_tensors="np")["input_features"][0])


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(400, 40_000), loudness=st.floats(0.001, 0.3), seed=st.integers(0, 1000))
def test_noise_of_any_length_gives_transformers_features(samples: int, loudness: float, seed: int) -> None:
    noise = np.clip(np.random.default_rng(seed).normal(0, loudness, samples), -1, 1).astype(np.float32)
    got = LOG_MEL(torch.from_numpy(noise)[None])[0].numpy()
    wanted = features_of_transformers(noise)
    assert got.shape == wanted.shape == (1 + (samples - 400) // 160, 128)
    np.testing.assert_allclose(got, wanted, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_tones_give_transformers_features(seed: int) -> None:
    sound = make_sound(3.0, seed).astype(np.float32)
    np.testing.assert_allclose(LOG_MEL(torch.from_numpy(sound)[None])[0].numpy(), features_of_transformers(sound), atol=1e-3)


def test_silence_is_the_floor() -> None:
    got = LOG_MEL(torch.zeros(1, 1600))
    np.testing.assert_allclose(got.numpy(), np.log(1e-5), rtol=1e-6)


def test_a_batch_gives_what_each_clip_gives() -> None:
    clips = torch.from_numpy(np.stack([make_sound(1.0, seed) for seed in range(3)]).astype(np.float32))
    together = LOG_MEL(clips)
    for row in range(3):
        assert torch.equal(LOG_MEL(clips[row : row + 1])[0], together[row])


@given(samples=st.integers(0, 100_000))
def test_frames_are_counted_without_computing_them(samples: int) -> None:
    expected = 0 if samples < 400 else 1 + (samples - 400) // 160
    assert LOG_MEL.frame_count(torch.tensor([samples])).tolist() == [expected]
