"""LASR models with random weights, saved as the folders that ``acoustic.model`` takes."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LasrCTCConfig, LasrEncoderConfig, LasrFeatureExtractor, LasrForCTC, LasrProcessor

from pipelines.training.tokenizer import build_tokenizer

TEXTS = ["[FINDINGS] {colon} no acute fracture of the left wrist {period} {new paragraph} lungs are clear {period}"] * 20


def save_random_lasr(folder: Path, *, full_size: bool = False, pieces: int = 64, seed: int = 0) -> Path:
    """A LASR CTC model with random weights: tiny, or with every dimension of ``google/medasr`` (105 M parameters)."""
    torch.manual_seed(seed)
    if full_size:
        encoder = LasrEncoderConfig()
        pieces = 512
    else:
        encoder = LasrEncoderConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, subsampling_conv_channels=32
        )
    tokenizer = build_tokenizer(TEXTS, pieces)
    model = LasrForCTC(LasrCTCConfig(vocab_size=max(pieces, len(tokenizer)), pad_token_id=0, encoder_config=encoder))
    # Random CTC heads say a token a frame; a bias towards the blank makes texts of a plausible length.
    with torch.no_grad():
        model.ctc_head.weight.mul_(8.0)
        model.ctc_head.bias[0] += 2.0
    model.save_pretrained(folder)
    LasrProcessor(LasrFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder
