"""What computes LASR's features from sound, in numbers: transformers' extractor has the same after two seconds of imports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0  # LASR has no key for them


@dataclass(frozen=True)
class LasrFrontEnd:
    """The keys of ``LasrFeatureExtractor``: lengths in samples, ``feature_size`` in mel bands."""

    hop_length: int
    win_length: int
    n_fft: int
    sampling_rate: int
    feature_size: int

    @property
    def mel_filters(self) -> np.ndarray:
        """Weights ``(n_fft // 2 + 1, feature_size)`` float64: triangles of one height on Kaldi's mel axis; the first bin, of
        frequency 0, has none."""
        bins = _to_mel(np.linspace(0.0, self.sampling_rate / 2.0, self.n_fft // 2 + 1))[1:, None]
        lowest, highest = _to_mel(np.array([_LOWEST_HZ, _HIGHEST_HZ])).tolist()
        corners = np.linspace(lowest, highest, self.feature_size + 2)
        left, top, right = corners[:-2], corners[1:-1], corners[2:]
        inside = np.minimum((bins - left) / (top - left), (right - bins) / (right - top))
        return np.vstack([np.zeros((1, self.feature_size)), inside.clip(min=0.0)])


def _to_mel(frequency_hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log(1.0 + frequency_hz / 700.0)
