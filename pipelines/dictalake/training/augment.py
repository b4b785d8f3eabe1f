"""Makes clean speech sound like dictation: speed and pitch, room, noise, telephone band, µ-law, clipping, level.

All functions take and return mono float32 waveforms at 16 kHz in [-1, 1]. librosa resamples and makes the µ-law. All random
numbers come from the given generator.
"""

from __future__ import annotations

import librosa
import numpy as np
import scipy.signal

SAMPLE_RATE_HZ = 16_000


def augment(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random, repeatable variant of ``waveform``: the same words, and a length that changes with the speed."""
    if rng.random() < 0.75:
        waveform = change_speed(waveform, float(rng.uniform(0.86, 1.18)))
    if rng.random() < 0.25:
        waveform = add_room(waveform, rng, reverberation_s=float(rng.uniform(0.1, 0.5)))
    if rng.random() < 0.3:
        waveform = colour(waveform, rng)
    if rng.random() < 0.5:
        waveform = add_noise(waveform, rng, snr_db=float(rng.uniform(8, 35)))
    if rng.random() < 0.2:
        waveform = pass_telephone(waveform, mu_law=bool(rng.random() < 0.6))
    waveform = pad_silence(waveform, rng)
    level = 10 ** (float(rng.uniform(-30, 3)) / 20)
    peak = float(np.abs(waveform).max()) or 1.0
    return np.clip(waveform / peak * level, -1.0, 1.0).astype(np.float32)


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Plays ``factor`` times as fast. Pitch and formants change with it, so it sounds like another speaker."""
    return _resample(waveform, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, "soxr_qq")


def add_room(waveform: np.ndarray, rng: np.random.Generator, reverberation_s: float) -> np.ndarray:
    """Convolves with exponentially decaying noise: −60 dB after ``reverberation_s``."""
    length = max(1, int(reverberation_s * SAMPLE_RATE_HZ))
    decay = np.exp(-6.9 * np.arange(length) / length)
    response = rng.standard_normal(length) * decay * 0.05
    response[0] = 1.0
    return scipy.signal.fftconvolve(waveform, response)[: len(waveform)].astype(np.float32)


def colour(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The spectral tilt of a microphone: first-order emphasis or de-emphasis."""
    return scipy.signal.lfilter([1.0, float(rng.uniform(-0.7, 0.6))], [1.0], waveform).astype(np.float32)


def add_noise(waveform: np.ndarray, rng: np.random.Generator, snr_db: float) -> np.ndarray:
    """Adds noise between white and brown, with a little mains hum in it, at ``snr_db``."""
    noise = scipy.signal.lfilter([1.0], [1.0, -float(rng.uniform(0.0, 0.97))], rng.standard_normal(len(waveform)))
    if rng.random() < 0.2:
        time_s = np.arange(len(waveform)) / SAMPLE_RATE_HZ
        noise = noise + noise.std() * np.sin(2 * np.pi * float(rng.choice([50, 60, 120])) * time_s)
    gain = np.sqrt((waveform**2).mean() / ((noise**2).mean() * 10 ** (snr_db / 10) + 1e-12))
    return (waveform + gain * noise).astype(np.float32)


def pass_telephone(waveform: np.ndarray, *, mu_law: bool) -> np.ndarray:
    """Resamples to 8 kHz and back, with ``mu_law`` through 8-bit µ-law."""
    narrow = _resample(waveform, SAMPLE_RATE_HZ, 8_000, "soxr_lq")
    if mu_law:
        narrow = librosa.mu_expand(librosa.mu_compress(np.clip(narrow, -1, 1), mu=255, quantize=True), mu=255, quantize=True)
    return _resample(narrow, 8_000, SAMPLE_RATE_HZ, "soxr_lq")


def _resample(waveform: np.ndarray, from_hz: float, to_hz: float, quality: str) -> np.ndarray:
    return librosa.resample(waveform, orig_sr=from_hz, target_sr=to_hz, res_type=quality).astype(np.float32)


def pad_silence(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    before, after = (int(s * SAMPLE_RATE_HZ) for s in rng.exponential(0.15, size=2).clip(0, 1.0))
    return np.pad(waveform, (before, after))
