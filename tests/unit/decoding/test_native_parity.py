"""The native search is pyctcdecode's: the same lists, scores and times on random emissions, ties apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.hotwords import Hotword, HotwordScorer
from dictalake.decoding.native.search import NativeSearch
from dictalake.records import Hypothesis
from tests.beam_inputs import VOCABULARY, peaky

pyctcdecode = pytest.importorskip("pyctcdecode")
TERMS = [Hotword("w1 w2"), Hotword("w3x4", 2.0), Hotword("w1x1 w9", 0.5), Hotword("w12"), Hotword("w1x7"), Hotword("w7 w7")]


class InOrder(set[int]):
    """A set that is walked in order: pyctcdecode visits the tokens of a frame as they lie in a set, ours goes by their ids."""

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(set.__iter__(self)))

    def __or__(self, other: Any) -> Any:
        return InOrder(set.__or__(self, other))


def merge_beams(beams: list[Any]) -> list[Any]:
    """pyctcdecode's, but that the times are those of the best of the joined beams; it takes those of the worst."""
    merged: dict[tuple[str, str, str], Any] = {}
    for text, next_word, word_part, last_char, text_frames, part_frames, score in beams:
        key = (pyctcdecode.decoder._merge_tokens(text, next_word), word_part, last_char)
        if key in merged:
            merged[key] = (*merged[key][:-1], pyctcdecode.decoder._sum_log_scores(merged[key][-1], score))
        else:
            merged[key] = (text, next_word, word_part, last_char, text_frames, part_frames, score)
    return list(merged.values())


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two differences are taken out of pyctcdecode: the order of equals, and whose times joined beams have."""
    monkeypatch.setattr(pyctcdecode.decoder, "set", InOrder, raising=False)
    monkeypatch.setattr(pyctcdecode.decoder, "_merge_beams", merge_beams)


def search_with_both(
    config: Decoding, matrices: list[np.ndarray], terms: list[Hotword] | None = None
) -> Iterator[tuple[list[Hypothesis], list[Hypothesis]]]:
    """For each matrix our list and pyctcdecode's; with terms those that favour them."""
    from dictalake.decoding.pyctcdecode_search import PyctcdecodeSearch

    scorers = [None if terms is None else HotwordScorer(terms, float(config.hotword_weight), VOCABULARY) for _ in range(2)]
    ours, theirs = NativeSearch(config, VOCABULARY, scorers[0]), PyctcdecodeSearch(config, VOCABULARY, scorers[1])
    for matrix in matrices:
        emissions = sparsify(matrix, config.token_min_logp - 0.5, config.collapse_blank, 0)
        mine, expected = ours.search(emissions), theirs.search(emissions)
        yield mine.hypotheses, expected.hypotheses
        if mine.search_plain is not None and expected.search_plain is not None:
            yield mine.search_plain(), expected.search_plain()


def assert_same(mine: list[Hypothesis], expected: list[Hypothesis]) -> None:
    """The same lists; hypotheses whose totals differ by less than rounding may change places, or fall out at the end."""
    totals = [one.total_score for one in expected]
    assert [one.total_score for one in mine] == pytest.approx(totals, abs=1e-3)
    by_text = {token_ids(one): one for one in expected}
    for rank, one in enumerate(mine):
        other = by_text.get(token_ids(one))
        if other is None:
            assert one.total_score < totals[-1] + 1e-3
            continue
        assert one.total_score == pytest.approx(totals[rank], abs=1e-3)
        assert (one.acoustic_score, one.lm_score) == pytest.approx((other.acoustic_score, other.lm_score), abs=1e-3)
        assert one.hotword_score == pytest.approx(other.hotword_score)
        # Tokens, times and peaks; of the best one also the posterior
        assert [replace(piece, posterior=1.0) for piece in one.pieces] == [
            replace(piece, posterior=1.0) for piece in other.pieces
        ]
        assert [piece.posterior for piece in one.pieces] == pytest.approx([piece.posterior for piece in other.pieces], abs=1e-3)


def token_ids(hypothesis: Hypothesis) -> tuple[int, ...]:
    return tuple(piece.token_id for piece in hypothesis.pieces)


def make_matrices(count: int, seed: int = 0) -> list[np.ndarray]:
    return [
        peaky(seed + number, pieces=1 + number % 25, gap=1 + number % 6, doubt=(0.1, 0.4, 1.0)[number % 3])
        for number in range(count)
    ]


@pytest.mark.parametrize("known_pieces", [True, False])
@pytest.mark.parametrize("beam_width", [1, 2, 8, 60])
def test_lists_scores_and_times_are_those_of_pyctcdecode(
    random_lm: str, beam_width: int, known_pieces: bool, in_order: None
) -> None:
    for lm in (None, random_lm):
        config = Decoding(lm=lm, beam_width=beam_width, known_pieces=known_pieces)
        for mine, expected in search_with_both(config, make_matrices(30)):
            assert_same(mine, expected)


@pytest.mark.parametrize("keys", [{"beam_prune_logp": -2.0}, {"token_min_logp": -9.0}, {"collapse_blank": 1.0}])
def test_limits_mean_what_they_mean_to_pyctcdecode(random_lm: str, keys: dict[str, float], in_order: None) -> None:
    config = Decoding.model_validate({"lm": random_lm, "lm_weight": 0.9, "word_score": -0.5, **keys})
    for mine, expected in search_with_both(config, make_matrices(30, seed=100)):
        assert_same(mine, expected)


@pytest.mark.parametrize("beam_width", [1, 8, 30])
def test_lists_with_hotwords_are_those_of_pyctcdecode_with_our_scorer(
    random_lm: str, beam_width: int, in_order: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the beams that stay for the plain hypothesis: they add a little to the scores of others.
    monkeypatch.setattr("dictalake.decoding.native.search.PLAIN_WIDTH", 0)
    for lm in (None, random_lm):
        config = Decoding(lm=lm, beam_width=beam_width, hotword_weight=1.5)
        for mine, expected in search_with_both(config, make_matrices(40, seed=200), TERMS):
            assert_same(mine, expected)


def test_equal_scores_go_by_the_ids_of_the_tokens(random_lm: str, in_order: None) -> None:
    with_ties = [np.round(matrix * 2) / 2 for matrix in make_matrices(20, seed=300)]
    config = Decoding(lm=random_lm)
    found = list(search_with_both(config, with_ties))
    assert [first for first, _ in search_with_both(config, with_ties)] == [mine for mine, _ in found]
    for mine, expected in found:
        assert mine[0].total_score == pytest.approx(expected[0].total_score, abs=1e-3)


@pytest.mark.parametrize("tokens", [(1,), (2,)])
def test_special_tokens_are_glued_as_by_pyctcdecode(random_lm: str, tokens: tuple[int, ...], in_order: None) -> None:
    for known_pieces in (True, False):
        matrices = make_matrices(20, seed=400)
        for number, matrix in enumerate(matrices):
            for place, token in enumerate(tokens):
                matrix[number % 5 + 3 * place :: 9, token] = -0.4
        config = Decoding(lm=random_lm, known_pieces=known_pieces)
        for mine, expected in search_with_both(config, matrices):
            texts = [[token_ids(one) for one in found] for found in (mine, expected)]
            assert texts[0] == texts[1]
            assert [one.total_score for one in mine] == pytest.approx([one.total_score for one in expected], abs=1e-3)
