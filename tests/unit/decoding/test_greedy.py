"""Greedy decoding on sparse emissions."""

from __future__ import annotations

import numpy as np
import pytest

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.greedy import GreedyDecoder
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Piece

VOCABULARY = Vocabulary.from_pieces(["<pad>", "</s>", "▁no", "▁fra", "cture"], blank_id=0)


def emit(*frames: tuple[int, float], collapse_blank: float = 1.0) -> Emissions:
    """Emissions whose frame is a token with a probability, the rest spread over the others."""
    probabilities = np.empty((len(frames), len(VOCABULARY.pieces)))
    for row, (token, p) in zip(probabilities, frames, strict=True):
        row[:] = (1 - p) / (len(row) - 1)
        row[token] = p
    return sparsify(np.log(probabilities), -5.0, collapse_blank, 0)


def test_repeats_merge_and_pieces_carry_their_true_frames_and_peak() -> None:
    blank = (0, 0.9999)
    emissions = emit(
        blank, blank, blank, (2, 0.5), (2, 0.75), blank, blank, (3, 0.9), (4, 0.8), (1, 0.9), blank, collapse_blank=0.99
    )
    assert emissions.frame_index.tolist() == [0, 3, 4, 5, 7, 8, 9, 10]
    (best,) = GreedyDecoder(VOCABULARY).decode(emissions)
    assert best.pieces == (
        Piece(2, "▁no", 3, 5, pytest.approx(np.log(0.75), abs=1e-3)),
        Piece(3, "▁fra", 7, 8, pytest.approx(np.log(0.9), abs=1e-3)),
        Piece(4, "cture", 8, 9, pytest.approx(np.log(0.8), abs=1e-3)),
    )
    assert best.lm_score == 0
    assert best.acoustic_score == pytest.approx(np.log([0.5, 0.75, 0.9, 0.8, 0.9, 0.9999**4]).sum(), abs=1e-2)


def test_same_token_across_a_blank_is_said_twice() -> None:
    (best,) = GreedyDecoder(VOCABULARY).decode(emit((2, 0.9), (0, 0.9), (2, 0.9)))
    assert VOCABULARY.text_of(piece.text for piece in best.pieces) == "no no"


@pytest.mark.parametrize("emissions", [emit(), emit((0, 0.9)), emit((0, 0.9), (0, 0.99999), (1, 0.9))])
def test_silence_is_one_hypothesis_without_pieces(emissions: Emissions) -> None:
    (best,) = open_decoder(Decoding(kind="greedy"), VOCABULARY).decode(emissions)
    assert best.pieces == ()
