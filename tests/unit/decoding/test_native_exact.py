"""The native search against a sum over all paths, on vocabularies so small that this can be had."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import kenlm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.hotwords import Hotword, HotwordScorer
from dictalake.decoding.native.search import NativeSearch
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis
from tests.models import write_arpa

SMALL = Vocabulary.from_pieces(["<pad>", "▁a", "b", "▁"], blank_id=0)
SIZE = len(SMALL.pieces)
WIDE = {"beam_width": 256, "beam_prune_logp": -1000.0, "token_min_logp": -59.0}


def make_emissions(seed: int, frames: int) -> Emissions:
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(SIZE), frames)).astype(np.float32)
    return sparsify(log_probs, -60.0, 1.0, 0)


def sum_paths(emissions: Emissions) -> dict[tuple[int, ...], float]:
    """ln P of each text over all its paths."""
    log_probs = emissions.dense().astype(np.float64)
    log_probs -= np.logaddexp.reduce(log_probs, axis=1)[:, None]
    found: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for path in itertools.product(range(SIZE), repeat=emissions.kept):
        text = tuple(token for token, _ in itertools.groupby(path) if token)
        found[text].append(sum(log_probs[frame, token] for frame, token in enumerate(path)))
    return {text: float(np.logaddexp.reduce(paths)) for text, paths in found.items()}


def by_text(hypotheses: list[Hypothesis]) -> dict[tuple[int, ...], Hypothesis]:
    return {tuple(piece.token_id for piece in one.pieces): one for one in hypotheses}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_a_wide_search_finds_every_text_with_its_exact_likelihood(seed: int, frames: int) -> None:
    emissions = make_emissions(seed, frames)
    exact = sum_paths(emissions)
    config = Decoding.model_validate({"lm": None, **WIDE, "beam_width": 1024})
    found = by_text(NativeSearch(config, SMALL).search(emissions).hypotheses)
    assert set(found) == set(exact)
    assert [one.acoustic_score for one in found.values()] == pytest.approx([exact[text] for text in found], abs=1e-5)
    assert math.fsum(math.exp(one.acoustic_score) for one in found.values()) == pytest.approx(1.0, abs=1e-5)


@pytest.fixture(scope="module")
def small_lm(tmp_path_factory: pytest.TempPathFactory) -> str:
    bigrams = {("b", "#"): -0.2, ("#a", "b"): -0.1, ("b", "b"): -1.4, ("#", "#a"): -0.6, ("<s>", "#a"): -0.3}
    return write_arpa(tmp_path_factory.mktemp("lm") / "lm.arpa", {"#a": -0.7, "b": -0.9, "#": -1.3}, bigrams)


def score_exactly(lm: str, config: Decoding, text: tuple[int, ...]) -> float:
    """By KenLM, the formula of shallow fusion."""
    words = [SMALL.lm_words()[token] for token in text]
    logp = kenlm.Model(lm).score(" ".join(words), bos=True, eos=True)
    return float(config.lm_weight) * logp * math.log(10) + float(config.word_score) * len(words)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 4), weight=st.sampled_from([0.0, 0.5, 2.0]))
def test_scores_with_a_language_model_are_the_formula_and_the_best_text_is_the_best_of_all(
    small_lm: str, seed: int, frames: int, weight: float
) -> None:
    emissions = make_emissions(seed, frames)
    config = Decoding.model_validate({"lm": small_lm, "lm_weight": weight, "word_score": 0.8, **WIDE})
    exact = {text: logp + score_exactly(small_lm, config, text) for text, logp in sum_paths(emissions).items() if text}
    hypotheses = NativeSearch(config, SMALL).search(emissions).hypotheses
    found = by_text(hypotheses)
    found.pop((), None)  # scored as an unknown word, as in pyctcdecode
    assert {text: one.total_score for text, one in found.items()} == pytest.approx(
        {text: exact[text] for text in found}, abs=1e-3
    )
    assert max(one.total_score for one in found.values()) == pytest.approx(max(exact.values()), abs=1e-3)
    assert [one.total_score for one in hypotheses] == sorted((one.total_score for one in hypotheses), reverse=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 4))
def test_scores_with_hotwords_are_the_likelihood_and_the_bonus(seed: int, frames: int) -> None:
    emissions = make_emissions(seed, frames)
    exact = sum_paths(emissions)
    config = Decoding.model_validate({"lm": None, **WIDE})
    scorer = HotwordScorer([Hotword("ab"), Hotword("a a", 2.0)], 0.7, SMALL)
    found = by_text(NativeSearch(config, SMALL, scorer).search(emissions).hypotheses)
    words = SMALL.lm_words()
    for text, one in found.items():
        bonus = scorer.final_score(" ".join(words[token] for token in text))
        assert (one.acoustic_score, one.hotword_score) == pytest.approx((exact[text], bonus), abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(0, 5), width=st.integers(1, 256))
def test_any_width_gives_texts_in_order_none_twice_and_the_same_again(seed: int, frames: int, width: int) -> None:
    emissions = make_emissions(seed, max(frames, 1))
    search = NativeSearch(Decoding(lm=None, beam_width=width, token_min_logp=-59.0), SMALL)
    first = search.search(emissions).hypotheses
    assert 1 <= len(first) <= width
    assert len(by_text(first)) == len(first)
    assert search.search(emissions).hypotheses == first
    assert NativeSearch(Decoding(lm=None, beam_width=width, token_min_logp=-59.0), SMALL).search(emissions).hypotheses == first
    assert search.search(emissions, 1).hypotheses == first[:1]
