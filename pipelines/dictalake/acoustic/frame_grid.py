"""Where a CTC model's frames lie, read from its configuration: the driver of a run needs this and loads no model."""

from __future__ import annotations

from typing import Any

from dictalake.acoustic.lasr.front_end import LasrFrontEnd
from dictalake.errors import ConfigError
from dictalake.records import FrameGrid

_CONVOLUTIONAL = ("wav2vec2", "wav2vec2-conformer", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio", "sew")


def frame_grid(config: Any, extractor: Any) -> FrameGrid:
    """The frame geometry in samples: LASR sees 2,320 samples every 640, wav2vec 2.0 400 every 320.

    Parakeet sees 2,640 every 1,280 but pads with zeros at both edges, so frame ``i`` is centred on sample 1280 i of its
    window. Here no frame may begin before its window, so the grid says 320 every 1,280 (its normalisation needs two feature
    frames). Times are therefore 10 ms late, and a last frame with less than 320 samples of the recording is left out.
    """
    # By name, as importing the class takes seconds.
    if isinstance(extractor, LasrFrontEnd) or type(extractor).__name__ == "LasrFeatureExtractor":
        encoder = config.encoder_config
        kernel, stride = encoder.subsampling_conv_kernel_size, encoder.subsampling_conv_stride
        return lasr_grid(kernel, stride, extractor.hop_length, extractor.win_length)
    if config.model_type == "parakeet_ctc":
        return FrameGrid(
            step=extractor.hop_length * config.encoder_config.subsampling_factor, receptive=2 * extractor.hop_length
        )
    if config.model_type in _CONVOLUTIONAL:
        if getattr(config, "add_adapter", False):
            raise ConfigError("acoustic.model: a model with an adapter (add_adapter: true) is not supported; take one without")
        step, receptive = 1, 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            receptive += (kernel - 1) * step
            step *= stride
        return FrameGrid(step=step, receptive=receptive)
    raise ConfigError(
        f"acoustic.model: CTC models of type {config.model_type} are not supported yet; "
        f"supported: lasr_ctc, parakeet_ctc, {', '.join(_CONVOLUTIONAL)}"
    )


def lasr_grid(kernel: int, stride: int, hop: int, window: int) -> FrameGrid:
    """The grid of two convolutions, ``kernel`` feature frames every ``stride``, over features of ``window`` samples every
    ``hop``."""
    feature_frames = kernel + (kernel - 1) * stride
    return FrameGrid(step=hop * stride**2, receptive=(feature_frames - 1) * hop + window)
