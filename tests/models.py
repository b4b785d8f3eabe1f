"""LASR models with random weights, saved as the folders that ``acoustic.model`` takes, and small language models."""

from __future__ import annotations

from pathlib import Path

from transformers import LasrEncoderConfig

from dictalake.training.dictation import Corpus, write_dictations
from dictalake.training.tokenizer import build_tokenizer
from dictalake.training.untrained import save_untrained_lasr

TEXTS = ["[FINDINGS] {colon} no acute fracture of the left wrist {period} {new paragraph} lungs are clear {period}"] * 20


def save_random_lasr(folder: Path, *, full_size: bool = False, pieces: int = 64, seed: int = 0) -> Path:
    """A LASR CTC model with random weights: tiny, or with every dimension of ``google/medasr`` (105 M parameters)."""
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
    return save_untrained_lasr(folder, encoder, tokenizer, emitted, seed)


def write_arpa(path: Path, unigrams: dict[str, float], bigrams: dict[tuple[str, str], float]) -> str:
    """A small language model, log10 probabilities; KenLM goes by content, so any name will do."""
    unigrams = {"<unk>": -5.0, "<s>": -99.0, "</s>": -1.0, **unigrams}
    lines = ["\\data\\", f"ngram 1={len(unigrams)}", f"ngram 2={len(bigrams)}", "", "\\1-grams:"]
    lines += [f"{logp:.4f}\t{word}" + ("" if word == "</s>" else "\t-0.3000") for word, logp in unigrams.items()]
    lines += ["", "\\2-grams:", *(f"{logp:.4f}\t{' '.join(words)}" for words, logp in bigrams.items()), "", "\\end\\", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)
