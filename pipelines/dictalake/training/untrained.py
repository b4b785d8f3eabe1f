"""LASR models with random weights and the dimensions of a real one, for measurements and tests that need no accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LasrCTCConfig, LasrEncoderConfig, LasrFeatureExtractor, LasrForCTC, LasrProcessor

from dictalake.acoustic.lasr.features import LogMel

_LOGIT_SPREAD, _BLANK_BIAS = 4.0, 8.0
_SPECIAL_PIECES = [1, 2, 3]


def save_untrained_lasr(folder: Path, encoder: LasrEncoderConfig, tokenizer: Any, pieces: int, seed: int = 0) -> Path:
    """Saves a folder for ``acoustic.model``. The model emits ``pieces`` pieces, with the blank. ``LasrEncoderConfig()`` has
    the dimensions of ``google/medasr``: 105 M parameters with 512 pieces.
    """
    torch.manual_seed(seed)
    model = LasrForCTC(LasrCTCConfig(vocab_size=pieces, pad_token_id=0, encoder_config=encoder)).eval()
    _balance_head(model, len(tokenizer))
    model.save_pretrained(folder)
    LasrProcessor(LasrFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


@torch.no_grad()
def _balance_head(model: LasrForCTC, known: int) -> None:
    """Centres and scales the head on some noise. Random weights emit the same piece for any sound; after this the model emits
    many pieces, different ones for different sounds, with blanks between them, and only pieces that the tokenizer knows."""
    noise = torch.randn(1, 4 * 16_000, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.0, 0.3, 4 * 16_000)
    logits = model(input_features=LogMel(LasrFeatureExtractor())(noise)).logits[0]
    scale = _LOGIT_SPREAD / (logits - logits.mean(0)).std()
    head = model.ctc_head
    assert head.bias is not None
    head.weight.mul_(scale)
    head.bias.sub_(logits.mean(0)).mul_(scale)
    head.bias[0] += _BLANK_BIAS
    head.bias[[*_SPECIAL_PIECES, *range(known, len(head.bias))]] = -1e3
