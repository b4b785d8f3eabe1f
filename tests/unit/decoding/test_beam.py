"""Beam search: it gives what pyctcdecode gives by Google's recipe, whichever engine does it and however fast."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.nbest import measure_posterior
from dictalake.decoding.segments import skip_repeated_blanks
from dictalake.records import Hypothesis, Piece
from tests.beam_inputs import LABELS, PIECES, VOCABULARY, peaky, recipe, restore, text


@pytest.mark.parametrize("with_lm", [True, False])
def test_reading_is_that_of_pyctcdecode_on_the_same_matrix(
    engine: str, random_lm: str, with_lm: bool, pyctcdecode: ModuleType
) -> None:
    lm = random_lm if with_lm else None
    reference = pyctcdecode.build_ctcdecoder(LABELS, lm, alpha=0.5, beta=1.5)
    decoder = open_decoder(recipe(engine, lm), VOCABULARY)
    for seed in range(30):
        emissions = sparsify(peaky(seed, pieces=2 + seed, doubt=1.0), -6.0, 0.999, 0)
        expected = [restore(beam[0]) for beam in reference.decode_beams(emissions.dense(), beam_width=8)]
        read = [text(hypothesis) for hypothesis in decoder.decode(emissions)]
        # pyctcdecode walks a set, so the last places of a list of near-equals are its own affair.
        assert read == expected if engine == "pyctcdecode" else read[0] == expected[0]


@pytest.mark.parametrize("with_lm", [True, False])
def test_text_is_that_of_googles_recipe_on_full_emissions(
    engine: str, random_lm: str, with_lm: bool, pyctcdecode: ModuleType
) -> None:
    # Where almost every piece is a toss-up (doubt=1), rounding to float16 alone turns about one text in fifty.
    lm = random_lm if with_lm else None
    reference = pyctcdecode.build_ctcdecoder(LABELS, lm, alpha=0.5, beta=1.5)
    decoder = open_decoder(recipe(engine, lm), VOCABULARY)
    for seed in range(30):
        log_probs = peaky(seed, pieces=2 + seed, doubt=0.3)
        best = decoder.decode(sparsify(log_probs, -6.0, 0.999, 0))[0]
        assert text(best) == restore(reference.decode_beams(log_probs, beam_width=8)[0][0])


def test_scores_are_those_of_the_recipe(engine: str, random_lm: str, pyctcdecode: ModuleType) -> None:
    log_probs = peaky(3, pieces=12)
    reference = pyctcdecode.build_ctcdecoder(LABELS, random_lm, alpha=0.5, beta=1.5)
    _, _, _, acoustic_score, total_score = reference.decode_beams(log_probs, beam_width=8)[0]
    best = open_decoder(recipe(engine, random_lm), VOCABULARY).decode(sparsify(log_probs, -6.0, 1.0, 0))[0]
    assert best.acoustic_score == pytest.approx(acoustic_score, abs=0.05)
    assert best.total_score == pytest.approx(total_score, abs=0.05)


def test_pieces_are_in_order_on_the_true_time_axis(engine: str, random_lm: str) -> None:
    emissions = sparsify(peaky(5, pieces=60, gap=8), -6.0, 0.999, 0)
    assert emissions.kept < emissions.frames
    for hypothesis in open_decoder(recipe(engine, random_lm), VOCABULARY).decode(emissions):
        assert all(0 <= piece.start_frame < piece.end_frame <= emissions.frames for piece in hypothesis.pieces)
        assert all(before.end_frame <= after.start_frame for before, after in pairwise(hypothesis.pieces))
        assert all(piece.logp <= 0 for piece in hypothesis.pieces)


@pytest.mark.parametrize("known_pieces", [True, False])
def test_frames_that_tell_nothing_new_change_no_reading(
    engine: str, random_lm: str, known_pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe(engine, random_lm).model_copy(update={"known_pieces": known_pieces})
    decoder = open_decoder(config, VOCABULARY)
    skipped = 0
    for seed in range(40):
        log_probs = peaky(seed, pieces=seed, gap=1 + seed % 9, doubt=(0.0, 0.3, 1.0)[seed % 3])
        log_probs[seed % 7 :: 11, 1] = -0.5  # </s>, which an engine glues to the word before
        emissions = sparsify(log_probs, -5.5, (1.0, 0.999)[seed % 2], 0)
        skipped += emissions.kept - skip_repeated_blanks(emissions, 0, -5.0)[0].kept
        told, skipped_logp = skip_repeated_blanks(emissions, 0, -5.0)
        # pyctcdecode's search leaves them out by itself.
        fewer = decoder.decode(emissions) if engine == "pyctcdecode" else add(skipped_logp, decoder.decode(told))
        with monkeypatch.context() as patch:
            patch.setattr("dictalake.decoding.pyctcdecode_search.skip_repeated_blanks", lambda emissions, *_: (emissions, 0.0))
            whole = decoder.decode(emissions)
        assert spans(fewer[0]) == spans(whole[0])
        if engine == "native":  # pyctcdecode's lists end with near-equals in the order of a set
            assert [spans(one) for one in fewer] == [spans(one) for one in whole]
        assert [one.acoustic_score for one in fewer] == pytest.approx([one.acoustic_score for one in whole], abs=0.02)
        assert [one.total_score for one in fewer] == pytest.approx([one.total_score for one in whole], abs=0.02)
    assert skipped > 100


def add(logp: float, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    return [replace(one, acoustic_score=one.acoustic_score + logp) for one in hypotheses]


def spans(hypothesis: Hypothesis) -> list[tuple[int, int, int, float]]:
    return [(piece.token_id, piece.start_frame, piece.end_frame, round(piece.logp, 3)) for piece in hypothesis.pieces]


@given(seed=st.integers(0, 10_000), pieces=st.integers(0, 40), gap=st.integers(1, 12), doubt=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=50, deadline=None)
def test_only_a_blank_that_follows_a_blank_is_left_out(seed: int, pieces: int, gap: int, doubt: float) -> None:
    emissions = sparsify(peaky(seed, pieces, gap, doubt), -5.5, 1.0, 0)
    told, skipped_logp = skip_repeated_blanks(emissions, 0, -5.0)
    lost = sorted(set(emissions.frame_index.tolist()) - set(told.frame_index.tolist()))
    assert len(lost) == emissions.kept - told.kept
    log_probs = emissions.dense()
    for frame in lost:
        for one in (frame - 1, frame):
            assert log_probs[one].argmax() == 0
            assert np.sort(log_probs[one])[-2] < -5.0
    assert skipped_logp == pytest.approx(sum(float(log_probs[frame, 0]) for frame in lost), abs=1e-2)
    assert np.array_equal(told.dense(), np.delete(log_probs, lost, axis=0))


# -- n-best and what other decoders do ---------------------------------------------------------------------------------


def test_readings_come_best_first_with_scores_that_add_up(engine: str, random_lm: str) -> None:
    decoder = open_decoder(Decoding.model_validate({"engine": engine, "lm": random_lm}), VOCABULARY)
    for seed in range(10):
        hypotheses = decoder.decode(sparsify(peaky(seed, pieces=15), -6.0, 0.999, 0))
        totals = [hypothesis.total_score for hypothesis in hypotheses]
        assert totals == sorted(totals, reverse=True)
        assert 1 < len(hypotheses) <= 8
        assert len({tuple(piece.token_id for piece in hypothesis.pieces) for hypothesis in hypotheses}) == len(hypotheses)
        assert all(r.total_score == pytest.approx(r.acoustic_score + r.lm_score) and r.hotword_score == 0 for r in hypotheses)


def test_support_is_the_share_of_the_list_that_agrees() -> None:
    def hypothesis(total: float, *names: str) -> Hypothesis:
        pieces = (Piece(PIECES.index(name), name, 10 * i, 10 * i + 1, -0.1) for i, name in enumerate(names))
        return Hypothesis(tuple(pieces), total)

    best = measure_posterior(
        [
            hypothesis(math.log(0.5), "▁w1", "▁w2"),
            hypothesis(math.log(0.3), "▁w1", "▁w3"),
            hypothesis(math.log(0.2), "▁w3", "▁w2"),
        ]
    )
    assert [piece.posterior for piece in best.pieces] == pytest.approx([0.8, 0.7])
