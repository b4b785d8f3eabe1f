"""LASR models with random weights, saved as the folders that ``acoustic.model`` takes, and small language models."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LasrCTCConfig, LasrEncoderConfig, LasrFeatureExtractor, LasrForCTC, LasrProcessor

from pipelines.acoustic.features import LogMel
from pipelines.training.dictation import Corpus, write_dictations
from pipelines.training.tokenizer import build_tokenizer

TEXTS = ["[FINDINGS] {colon} no acute fracture of the left wrist {period} {new paragraph} lungs are clear {period}"] * 20
_LOGIT_SPREAD, _BLANK_BIAS = 4.0, 8.0


def save_random_lasr(folder: Path, *, full_size: bool = False, pieces: int = 64, seed: int = 0) -> Path:
    """A LASR CTC model with random weights: tiny, or with every dimension of ``google/medasr`` (105 M parameters)."""
    torch.manual_seed(seed)
    if full_size:
        # As MedASR: the head emits 512 pieces, the tokenizer has about a hundred more.
        encoder, emitted = LasrEncoderConfig(), 512
        texts = [d.text for d in write_dictations(Corpus.load(), 0, 3_000, held_out=False)]
        tokenizer = build_tokenizer(texts, 660)
        assert len(tokenizer) > emitted + 50
    else:
        tokenizer = build_tokenizer(TEXTS, pieces)
        emitted = max(pieces, len(tokenizer))
        encoder = LasrEncoderConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            subsampling_conv_channels=32,
            initializer_range=0.1,
        )
    model = LasrForCTC(LasrCTCConfig(vocab_size=emitted, pad_token_id=0, encoder_config=encoder)).eval()
    _balance_head(model, len(tokenizer))
    model.save_pretrained(folder)
    LasrProcessor(LasrFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def write_arpa(path: Path, unigrams: dict[str, float], bigrams: dict[tuple[str, str], float]) -> str:
    """A small language model, log10 probabilities; KenLM goes by content, so any name will do."""
    unigrams = {"<unk>": -5.0, "<s>": -99.0, "</s>": -1.0, **unigrams}
    lines = ["\\data\\", f"ngram 1={len(unigrams)}", f"ngram 2={len(bigrams)}", "", "\\1-grams:"]
    lines += [f"{logp:.4f}\t{word}" + ("" if word == "</s>" else "\t-0.3000") for word, logp in unigrams.items()]
    lines += ["", "\\2-grams:", *(f"{logp:.4f}\t{' '.join(words)}" for words, logp in bigrams.items()), "", "\\end\\", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@torch.no_grad()
def _balance_head(model: LasrForCTC, known: int) -> None:
    """Random weights say the same piece to whatever they hear. Centred and spread over some noise, the head says many
    pieces, other ones to other sounds, with blanks between them, and none that the tokenizer does not know."""
    noise = torch.randn(1, 4 * 16_000, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.0, 0.3, 4 * 16_000)
    logits = model(input_features=LogMel(LasrFeatureExtractor())(noise)).logits[0]
    scale = _LOGIT_SPREAD / (logits - logits.mean(0)).std()
    head = model.ctc_head
    head.weight.mul_(scale)
    head.bias.sub_(logits.mean(0)).mul_(scale)
    head.bias[0] += _BLANK_BIAS
    head.bias[[1, 2, 3, *range(known, len(head.bias))]] = -1e3
