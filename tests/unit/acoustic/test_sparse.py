"""Compaction keeps what decoders use, and says how far the rest is off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.sparse import sparsify, sparsify_stretches
from dictalake.acoustic.window_output import PruneConfig
from dictalake.decoding.greedy import GreedyDecoder
from dictalake.decoding.vocabulary import Vocabulary

BLANK = 0


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)


def greedy_ids(log_probs: np.ndarray) -> list[int]:
    """The textbook: argmax, merge repeats, drop blanks."""
    best = log_probs.argmax(axis=1)
    return [int(token) for i, token in enumerate(best) if token != BLANK and (i == 0 or token != best[i - 1])]


@st.composite
def emissions_of_a_model(draw: st.DrawFn) -> np.ndarray:
    """Peaky log-probabilities with long runs of blank, close calls, and now and then exact ties."""
    frames, vocabulary = draw(st.integers(0, 60)), draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(0, draw(st.sampled_from([0.01, 1.0, 4.0])), (frames, vocabulary))
    logits[rng.random(frames) < draw(st.floats(0, 1)), BLANK] += draw(st.sampled_from([3.0, 12.0, 40.0]))
    if draw(st.booleans()):
        logits = np.round(logits)
    return log_softmax(logits)


@settings(max_examples=200, deadline=None)
@given(emissions_of_a_model(), st.sampled_from([-1.0, -5.0, -8.0]), st.sampled_from([0.6, 0.99, 1.0]))
def test_greedy_reading_is_that_of_the_dense_matrix(log_probs: np.ndarray, min_logp: float, collapse_blank: float) -> None:
    vocabulary = Vocabulary.from_pieces([f"▁{i}" for i in range(log_probs.shape[1])], blank_id=BLANK)
    compacted = sparsify(log_probs, min_logp, collapse_blank, BLANK)
    (best,) = GreedyDecoder(vocabulary).decode(compacted)
    assert [piece.token_id for piece in best.pieces] == greedy_ids(log_probs)
    assert compacted.frames == len(log_probs)


@settings(max_examples=200, deadline=None)
@given(emissions_of_a_model(), st.sampled_from([-1.0, -5.0, -8.0]))
def test_dense_gives_back_kept_values_to_float16_and_spreads_the_rest(log_probs: np.ndarray, min_logp: float) -> None:
    back = sparsify(log_probs, min_logp, collapse_blank=1.0, blank_id=BLANK).dense()
    assert back.shape == log_probs.shape
    kept = log_probs >= min_logp
    kept[np.arange(len(log_probs)), log_probs.argmax(axis=1)] = True
    error = np.abs(back - log_probs)[kept]
    assert (error <= 2**-11 * np.abs(log_probs[kept]) + 1e-6).all()
    pruned = np.maximum((~kept).sum(axis=1, keepdims=True), 1)
    ceiling = np.broadcast_to(np.exp(min_logp) + 2**-10 * abs(min_logp) / pruned + 1e-6, log_probs.shape)
    assert (np.exp(back)[~kept] <= ceiling[~kept]).all()


def test_runs_of_sure_blanks_become_their_first_frame() -> None:
    blank, unsure, token = [0.9999, 0.0001], [0.9, 0.1], [0.01, 0.99]
    log_probs = np.log(np.array([blank, blank, blank, token, unsure, unsure, blank, blank]))
    assert sparsify(log_probs, -5.0, 0.999, BLANK).frame_index.tolist() == [0, 3, 4, 5, 6]
    assert sparsify(log_probs, -5.0, 0.8, BLANK).frame_index.tolist() == [0, 3, 4]
    assert sparsify(log_probs, -5.0, 1.0, BLANK).frame_index.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_blank_between_equal_tokens_survives() -> None:
    blank, token = [0.99999, 0.00001], [0.00001, 0.99999]
    compacted = sparsify(np.log(np.array([token, blank, blank, token])), -5.0, 0.5, BLANK)
    vocabulary = Vocabulary.from_pieces(["<pad>", "▁very"], blank_id=BLANK)
    (best,) = GreedyDecoder(vocabulary).decode(compacted)
    assert vocabulary.text_of(piece.text for piece in best.pieces) == "very very"


def test_tokens_of_a_frame_stand_in_falling_order_and_the_best_is_kept_whatever_it_is() -> None:
    log_probs = np.log(np.array([[0.25, 0.30, 0.45], [0.34, 0.33, 0.33]]))
    compacted = sparsify(log_probs, np.log(0.28), 1.0, BLANK)
    assert compacted.token_ids.tolist() == [2, 1, 0, 1, 2]
    assert compacted.offsets.tolist() == [0, 2, 5]
    alone = sparsify(log_probs, 0.0, 1.0, BLANK)
    assert alone.token_ids.tolist() == [2, 0]
    assert (alone.token_ids.dtype, alone.logp.dtype, alone.frame_index.dtype) == (np.uint16, np.float16, np.int32)


def test_no_frames_are_no_frames() -> None:
    empty = sparsify(np.zeros((0, 5), np.float32), -5.0, 0.999, BLANK)
    assert (empty.frames, empty.kept, empty.offsets.tolist(), empty.dense().shape) == (0, 0, [0], (0, 5))


@pytest.mark.parametrize(
    ("log_probs", "message"),
    [
        (np.zeros(5), r"must have the shape \(frames, vocabulary\), not \(5,\)"),
        (np.full((2, 3), np.nan), "hold NaN"),
        (np.zeros((1, 70_000), np.float32), "70000 does not fit uint16; at most 65536"),
    ],
)
def test_what_is_no_matrix_of_log_probabilities_is_refused(log_probs: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparsify(log_probs, -5.0, 0.999, BLANK)


@given(cuts=st.lists(st.integers(0, 60), max_size=5), seed=st.integers(0, 50), collapse=st.sampled_from([0.6, 0.9, 1.0]))
@settings(max_examples=60)
def test_stretches_give_what_the_whole_gives_wherever_they_are_cut(cuts: list[int], seed: int, collapse: float) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(60, 5)) * 2
    logits[:, 0] += np.repeat(random.choice([0, 8], 12), 5)  # runs of sure blanks
    whole = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    wanted = sparsify(whole, -4.0, collapse, 0)
    got = sparsify_stretches(np.split(whole, sorted(cuts)), PruneConfig(-4.0, collapse, 0))
    assert (got.frames, got.vocabulary_size) == (60, 5)
    for name in ("frame_index", "offsets", "token_ids", "logp"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
