"""Beam search: it gives what pyctcdecode gives by Google's recipe, whichever engine does it and however fast."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyctcdecode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.beam import measure_posterior
from dictalake.decoding.ctc_beam_decoder import faster_decoder
from dictalake.decoding.segments import skip_repeated_blanks
from dictalake.records import Hypothesis, Piece
from tests.beam_inputs import LABELS, PIECES, VOCABULARY, peaky, recipe, restore, text


@pytest.mark.parametrize("with_lm", [True, False])
def test_reading_is_that_of_pyctcdecode_on_the_same_matrix(engine: str, random_lm: str, with_lm: bool) -> None:
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
def test_text_is_that_of_googles_recipe_on_full_emissions(engine: str, random_lm: str, with_lm: bool) -> None:
    # Where almost every piece is a toss-up (doubt=1), rounding to float16 alone turns about one text in fifty.
    lm = random_lm if with_lm else None
    reference = pyctcdecode.build_ctcdecoder(LABELS, lm, alpha=0.5, beta=1.5)
    decoder = open_decoder(recipe(engine, lm), VOCABULARY)
    for seed in range(30):
        log_probs = peaky(seed, pieces=2 + seed, doubt=0.3)
        best = decoder.decode(sparsify(log_probs, -6.0, 0.999, 0))[0]
        assert text(best) == restore(reference.decode_beams(log_probs, beam_width=8)[0][0])


def test_scores_are_those_of_the_recipe(engine: str, random_lm: str) -> None:
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


# -- what makes it fast changes nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize("with_lm", [True, False])
def test_the_engine_called_directly_gives_the_beams_of_its_package(random_lm: str, with_lm: bool) -> None:
    package = pytest.importorskip("ctc_beam_decoder")
    limits = {"beam_width": 8, "beam_prune_logp": -10.0, "token_min_logp": -5.0}
    for known in (None, [label[1:] for label in LABELS[3:]]):
        settings_of = {"kenlm_model_path": random_lm if with_lm else None, "unigrams": known, "alpha": 0.5, "beta": 1.5}
        direct, usual = faster_decoder(package)(LABELS, **settings_of), package.build_ctcdecoder(LABELS, **settings_of)
        for seed in range(20):
            log_probs = peaky(seed, pieces=1 + 3 * seed)
            before = log_probs.copy()
            assert direct.decode_beams(log_probs, **limits) == usual.decode_beams(log_probs, **limits)
            assert np.array_equal(log_probs, before)
        silence = np.log(np.full((5, len(LABELS)), 1e-4, np.float32))
        silence[:, 0] = 0.0
        assert direct.decode_beams(silence, **limits) == usual.decode_beams(silence, **limits)


def test_a_matrix_of_another_vocabulary_is_refused_before_the_engine_reads_it() -> None:
    package = pytest.importorskip("ctc_beam_decoder")
    limits = {"beam_width": 8, "beam_prune_logp": -10.0, "token_min_logp": -5.0}
    with pytest.raises(ValueError, match=rf"{len(LABELS)} columns"):
        faster_decoder(package)(LABELS).decode_beams(np.zeros((3, 5), np.float32), **limits)


class InOrder(set[int]):
    """A set that is walked in order."""

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(set.__iter__(self)))

    def __or__(self, other: Any) -> Any:
        return InOrder(set.__or__(self, other))


def test_the_engines_differ_only_in_the_order_of_equals(random_lm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyctcdecode walks the tokens of a frame as they lie in a set, the C++ engine by id: which of two equal beams is dropped
    depends on it, and nothing else does."""
    package = pytest.importorskip("ctc_beam_decoder")
    limits = {"beam_width": 8, "beam_prune_logp": -10.0, "token_min_logp": -5.0}
    known = [label[1:] for label in LABELS[3:]]
    theirs = pyctcdecode.build_ctcdecoder(LABELS, random_lm, unigrams=known, alpha=0.5, beta=1.5)
    ours = faster_decoder(package)(LABELS, kenlm_model_path=random_lm, unigrams=known, alpha=0.5, beta=1.5)

    def count_the_same(matrices: list[np.ndarray]) -> int:
        both = [(ours.decode_beams(matrix, **limits), theirs.decode_beams(matrix, **limits)) for matrix in matrices]
        return sum([(b[0], *b[2:]) for b in mine] == [(b[0], *b[2:]) for b in their] for mine, their in both)

    exact = [peaky(seed, pieces=20) for seed in range(20)]
    with_ties = [np.round(matrix * 2) / 2 for matrix in exact]
    assert count_the_same(exact) == 20
    assert count_the_same(with_ties) < 20
    monkeypatch.setattr(pyctcdecode.decoder, "set", InOrder, raising=False)
    assert count_the_same(with_ties) == 20


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
        fewer = decoder.decode(emissions)
        with monkeypatch.context() as patch:
            patch.setattr("dictalake.decoding.beam.skip_repeated_blanks", lambda emissions, *_: (emissions, 0.0))
            whole = decoder.decode(emissions)
        assert spans(fewer[0]) == spans(whole[0])
        if engine == "ctc-beam-decoder":  # pyctcdecode's lists end with near-equals in the order of a set
            assert [spans(one) for one in fewer] == [spans(one) for one in whole]
        assert [one.acoustic_score for one in fewer] == pytest.approx([one.acoustic_score for one in whole], abs=0.02)
        assert [one.total_score for one in fewer] == pytest.approx([one.total_score for one in whole], abs=0.02)
    assert skipped > 100


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


def test_another_version_of_the_engines_interface_is_left_to_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("ctc_beam_decoder")
    assert faster_decoder(package) is not package.BeamSearchDecoder
    monkeypatch.setattr(package, "_REQUIRED_ABI_VERSION", 3)
    assert faster_decoder(package) is package.BeamSearchDecoder


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
