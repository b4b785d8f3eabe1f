"""Vocabularies and emissions for beam search: random ones, and a toy word that the acoustics leave open."""

from __future__ import annotations

import numpy as np

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis

PIECES = ["<pad>", "</s>", "<unk>", "▁", *(f"▁w{i}" for i in range(20)), *(f"x{i}" for i in range(20)), "▁{period}"]
VOCABULARY = Vocabulary.from_pieces(PIECES, blank_id=0)
# Google's labels, written out again so that the reference owes nothing to the code under test.
LABELS = ["", "</s>", "<unk>", *("▁" + piece.replace("▁", "#") for piece in PIECES[3:])]


def recipe(engine: str, lm: str | None) -> Decoding:
    """Google's exact recipe."""
    return Decoding.model_validate({"engine": engine, "lm": lm, "known_pieces": False})


def peaky(seed: int, pieces: int, gap: int = 3, doubt: float = 1.0) -> np.ndarray:
    """Log-probabilities of a model for ``pieces`` pieces with pauses between them; the share ``doubt`` is ambiguous."""
    rng = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    vocabulary = len(PIECES)
    for _ in range(pieces):
        for _ in range(rng.integers(1, 3)):
            logits = rng.normal(-6, 1, vocabulary)
            rivals = rng.choice(np.arange(3, vocabulary), 3, replace=False)
            logits[rivals] = rng.normal(1, 1.2, 3)
            if rng.random() >= doubt:
                logits[rivals[0]] = 9.0
            logits[0] = rng.normal(0, 2)
            rows.append(logits)
        for _ in range(rng.integers(0, gap * 2)):
            logits = rng.normal(-6, 1, vocabulary)
            logits[0] = rng.choice([4.0, 14.0])
            rows.append(logits)
    matrix = np.array(rows).reshape(-1, vocabulary)
    return (matrix - np.log(np.exp(matrix).sum(axis=1, keepdims=True))).astype(np.float32)


def text(hypothesis: Hypothesis) -> str:
    return VOCABULARY.text_of(piece.text for piece in hypothesis.pieces)


def restore(text_of_pieces: str) -> str:
    """The recipe's own way from pieces to text."""
    return " ".join(text_of_pieces.replace(" ", "").replace("#", " ").replace("</s>", "").split())


TOY = Vocabulary.from_pieces(["<pad>", "</s>", "<unk>", "▁fracture", "s", "ed"], blank_id=0)


def hear_toy(*frames: dict[int, float]) -> Emissions:
    probabilities = np.full((len(frames), len(TOY.pieces)), 1e-6)
    for row, heard in zip(probabilities, frames, strict=True):
        row[list(heard)] = list(heard.values())
    return sparsify(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)), -6.0, 0.999, 0)


AMBIGUOUS = hear_toy({3: 0.95, 0: 0.05}, {0: 1.0}, {4: 0.35, 5: 0.65}, {0: 1.0})
