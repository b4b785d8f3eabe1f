"""What pyctcdecode's own tests hold (``pyctcdecode/tests/test_decoder.py`` of 0.5.0), said again of our search.

Its words are our pieces. Of its tests these have no counterpart: batches over a pool, several language models, models that are
saved to a folder or come from a hub, and alphabets of other libraries. Its decoding in chunks is our decoding in parts. Merged
and trimmed beams, and random matrices of all sizes, are in ``test_native_exact.py`` and ``test_native_parity.py``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding import beam
from dictalake.decoding.base import open_decoder
from dictalake.decoding.native.frame_loop import add_logs
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis
from tests.models import write_arpa

RABBITS = Vocabulary.from_pieces(["<pad>", "▁bugs", "▁bunny", "▁bun", "ny"], blank_id=0)
BUGS, BUNNY, BUN, NY = range(1, 5)
UNSURE, BLANK, RABBIT = {BUGS: 0.49, BUNNY: 0.51}, {0: 1.0}, {BUNNY: 1.0}
MOST_PRUNED = -1000.0


def hear(*frames: dict[int, float]) -> Emissions:
    probabilities = np.full((len(frames), len(RABBITS.pieces)), 1e-9)
    for row, heard in zip(probabilities, frames, strict=True):
        row[list(heard)] = list(heard.values())
    return sparsify(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)), -30.0, 1.0, 0)


DOUBTFUL = hear(UNSURE, *[BLANK] * 5, RABBIT)  # "bunny bunny" by the sound, and "bugs bunny" is what people say


def decode(emissions: Emissions, lm: str | None = None, **keys: Any) -> list[Hypothesis]:
    return open_decoder(Decoding.model_validate({"lm": lm, "word_score": 0.0, **keys}), RABBITS).decode(emissions)


def texts(hypotheses: list[Hypothesis]) -> list[str]:
    return [RABBITS.text_of(piece.text for piece in one.pieces) for one in hypotheses]


@pytest.fixture(scope="module")
def bugs_bunny(tmp_path_factory: pytest.TempPathFactory) -> str:
    pieces = {"#bugs": -1.0, "#bunny": -1.0, "#bun": -2.0, "ny": -2.0}
    pairs = {("#bugs", "#bunny"): -0.1, ("#bugs", "#bugs"): -2.0, ("#bunny", "#bunny"): -2.0, ("#bun", "ny"): -0.1}
    return write_arpa(tmp_path_factory.mktemp("lm") / "bugs.arpa", pieces, pairs)


def test_the_sound_decides_until_the_language_model_has_weight(bugs_bunny: str) -> None:
    assert texts(decode(DOUBTFUL))[0] == "bunny bunny"
    assert texts(decode(DOUBTFUL, bugs_bunny, lm_weight=0.0))[0] == "bunny bunny"
    assert texts(decode(DOUBTFUL, bugs_bunny, lm_weight=1.0))[0] == "bugs bunny"


@pytest.mark.parametrize("known_pieces", [True, False])
def test_a_piece_that_the_model_does_not_know_is_dear(tmp_path: Path, known_pieces: bool) -> None:
    lm = write_arpa(tmp_path / "lm.arpa", {"#bunny": -1.0, "#bun": -1.0, "ny": -1.0}, {("#bunny", "#bunny"): -3.0})
    likely = hear({BUGS: 0.9, BUNNY: 0.1}, BLANK, RABBIT)
    assert texts(decode(likely))[0] == "bugs bunny"
    assert texts(decode(likely, lm, known_pieces=known_pieces))[0] == "bunny bunny"


def test_recordings_one_after_another_are_as_if_each_was_alone(bugs_bunny: str) -> None:
    decoder = open_decoder(Decoding(lm=bugs_bunny), RABBITS)
    assert [decoder.decode(one) for one in [DOUBTFUL] * 3] == [decode(DOUBTFUL, bugs_bunny, word_score=1.5)] * 3


@pytest.mark.parametrize("size", [len(RABBITS.pieces) - 1, 2 * len(RABBITS.pieces)])
def test_emissions_of_another_vocabulary_are_refused(size: int) -> None:
    log_probs = np.log(np.full((3, size), 1 / size))
    with pytest.raises(ValueError, match=f"emissions of {size} tokens, but the vocabulary has 5"):
        decode(sparsify(log_probs, -30.0, 1.0, 0))


def test_a_threshold_of_certainty_leaves_only_the_likeliest_tokens(bugs_bunny: str) -> None:
    assert texts(decode(DOUBTFUL, bugs_bunny, token_min_logp=0.0)) == ["bunny bunny"]


def test_an_early_doubt_stays_in_the_list_though_all_that_follows_is_clear() -> None:
    emissions = hear(UNSURE, *[BLANK, RABBIT] * 5)
    assert texts(decode(emissions)) == [f"{first} {' '.join(['bunny'] * 5)}" for first in ("bunny", "bugs")]


def test_words_before_count_for_the_language_model_in_parts_too(bugs_bunny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, then = [{BUGS: 1.0}, BLANK], [{BUGS: 0.51, BUNNY: 0.49}]
    whole = hear(*first, *then)
    assert texts(decode(whole))[0] == "bugs bugs"
    assert texts(decode(whole, bugs_bunny))[0] == "bugs bunny"
    assert [texts(decode(hear(*one), bugs_bunny))[0] for one in (first, then)] == ["bugs", "bugs"]
    monkeypatch.setattr(beam, "WHOLE_FRAMES", 2)
    monkeypatch.setattr(beam, "cut_at_pauses", lambda emissions, blank_id: [(0, 2), (2, 3)])
    assert texts(decode(whole, bugs_bunny))[0] == "bugs bunny"


@pytest.mark.parametrize(
    ("terms", "with_lm", "text"),
    [
        (["bunny"], True, "bunny bunny"),
        (["bugs", "bunny"], True, "bugs bunny"),
        (["bugs bunny"], True, "bugs bunny"),
        (["bugs"], False, "bugs bunny"),
        (["bunny"], False, "bunny bunny"),
    ],
)
def test_hotwords_decide_with_a_language_model_and_without(
    bugs_bunny: str, tmp_path: Path, terms: list[str], with_lm: bool, text: str
) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("\n".join(terms))
    lm = bugs_bunny if with_lm else None
    assert texts(decode(DOUBTFUL, lm, hotwords=str(path), hotword_weight=1.5))[0] == text


def test_the_list_has_all_that_is_possible_and_the_language_model_orders_it(bugs_bunny: str) -> None:
    emissions = hear(UNSURE, BLANK, UNSURE)
    by_sound = texts(decode(emissions))
    assert by_sound[0] == "bunny bunny"
    assert by_sound[-1] == "bugs bugs"
    assert set(by_sound) == {"bunny bunny", "bunny bugs", "bugs bunny", "bugs bugs"}
    assert texts(decode(emissions, bugs_bunny, lm_weight=2.0, beam_prune_logp=-2.0)) == ["bugs bunny"]
    by_both = texts(decode(emissions, bugs_bunny, lm_weight=2.0, beam_prune_logp=MOST_PRUNED))
    assert (by_both[0], set(by_both)) == ("bugs bunny", set(by_sound))


def test_frames_are_those_of_the_piece_without_the_blanks_behind_it() -> None:
    (best, *_) = decode(hear(BLANK, {BUGS: 1.0}, {BUN: 1.0}, {NY: 1.0}, {NY: 1.0}, BLANK, BLANK))
    assert texts([best]) == ["bugs bunny"]
    assert [(piece.start_frame, piece.end_frame) for piece in best.pieces] == [(1, 2), (2, 3), (3, 5)]
    (best, *_) = decode(hear({BUN: 1.0}, BLANK, {NY: 1.0}, BLANK, {NY: 1.0}))
    assert [(piece.text, piece.start_frame, piece.end_frame) for piece in best.pieces] == [
        ("▁bun", 0, 1),
        ("ny", 2, 3),
        ("ny", 4, 5),
    ]


def test_paths_of_one_text_add_up() -> None:
    assert add_logs.py_func(0.0, 0.0) == math.log(2)  # type: ignore[attr-defined]
    assert add_logs.py_func(1 - math.log(2), 1 - math.log(2)) == pytest.approx(1.0)  # type: ignore[attr-defined]
    found = decode(hear({BUGS: 0.5, 0: 0.5}, {BUGS: 0.5, 0: 0.5}), beam_prune_logp=MOST_PRUNED)
    shares = dict(zip(texts(found), [math.exp(one.acoustic_score) for one in found], strict=True))
    assert {text: shares[text] for text in ("bugs", "")} == pytest.approx({"bugs": 0.75, "": 0.25}, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(0, 20), scale=st.sampled_from([0.1, 3.0, 30.0]))
def test_emissions_that_are_no_probabilities_are_searched_all_the_same(seed: int, frames: int, scale: float) -> None:
    matrix = np.random.default_rng(seed).normal(0, scale, (frames, len(RABBITS.pieces))).astype(np.float32)
    (best, *others) = decode(sparsify(matrix, -30.0, 1.0, 0))
    assert all(math.isfinite(one.total_score) for one in (best, *others))


@settings(max_examples=20, deadline=None)
@given(lm_weight=st.floats(0, 10), word_score=st.floats(-10, 10), prune=st.floats(-100, -0.01), token_min=st.floats(-20, 0))
def test_any_weights_and_limits_give_a_list(
    bugs_bunny: str, lm_weight: float, word_score: float, prune: float, token_min: float
) -> None:
    keys = {"lm_weight": lm_weight, "word_score": word_score, "beam_prune_logp": prune, "token_min_logp": token_min}
    hypotheses = decode(DOUBTFUL, bugs_bunny, **keys)
    assert hypotheses
    assert all(math.isfinite(one.total_score) for one in hypotheses)
