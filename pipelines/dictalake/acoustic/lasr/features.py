"""LASR's log-mel features on any device, batched, in float32.

The arithmetic is that of ``transformers.LasrFeatureExtractor``, which computes clip by clip in float64 and only on the CPU:
16 kHz, frames of 400 samples every 160, symmetric Hann, 512-point FFT, 128 Kaldi-mel bands from 125 to 7500 Hz,
``log(max(power, 1e-5))``. A test checks that both give the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from dictalake.acoustic.lasr.front_end import LasrFrontEnd

if TYPE_CHECKING:  # takes seconds
    from transformers import LasrFeatureExtractor


class LogMel(nn.Module):
    """Waveforms ``(batch, samples)`` float32 in [-1, 1] → features ``(batch, frames, mel_bands)``."""

    window: torch.Tensor
    mel_filters: torch.Tensor

    def __init__(self, extractor: LasrFrontEnd | LasrFeatureExtractor) -> None:
        super().__init__()
        self.win_length, self.hop_length, self.n_fft = extractor.win_length, extractor.hop_length, extractor.n_fft
        window = torch.hann_window(self.win_length, periodic=False, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("mel_filters", torch.as_tensor(extractor.mel_filters).float(), persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.log_mel(self.power(waveforms))

    def power(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Power spectra ``(batch, frames, bins)``."""
        frames = waveforms.unfold(-1, self.win_length, self.hop_length)
        spectrum = torch.view_as_real(torch.fft.rfft(frames * self.window, n=self.n_fft))
        return spectrum.square().sum(-1)

    def log_mel(self, power: torch.Tensor) -> torch.Tensor:
        """The features of power spectra."""
        return torch.log(torch.clamp(power @ self.mel_filters, min=1e-5))

    def frame_count(self, samples: torch.Tensor) -> torch.Tensor:
        """Feature frames of recordings with this many ``samples``; 0 for less than one frame."""
        return torch.clamp((samples - self.win_length) // self.hop_length + 1, min=0)
