"""Beam search over long recordings, which are cut at their pauses and decoded in parts."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.beam import CONTEXT_FRAMES, WHOLE_FRAMES
from dictalake.decoding.native.search import NativeSearch
from dictalake.decoding.segments import PART_FRAMES, cut_at_pauses
from dictalake.records import Emissions, Hypothesis
from tests.beam_inputs import LABELS, VOCABULARY, peaky, recipe, restore, text


@pytest.mark.parametrize("with_lm", [True, False])
def test_long_recording_reads_in_parts_like_the_whole(
    engine: str, random_lm: str, with_lm: bool, pyctcdecode: ModuleType
) -> None:
    lm = random_lm if with_lm else None
    log_probs = peaky(11, pieces=1100, doubt=0.0)
    emissions = sparsify(log_probs, -6.0, 0.999, 0)
    assert emissions.kept > WHOLE_FRAMES + 500
    whole = pyctcdecode.build_ctcdecoder(LABELS, lm, alpha=0.5, beta=1.5).decode_beams(log_probs, beam_width=8)[0]
    best = open_decoder(recipe(engine, lm), VOCABULARY).decode(emissions)[0]
    assert text(best) == restore(whole[0])
    assert all(before.end_frame <= after.start_frame for before, after in pairwise(best.pieces))


def test_parts_of_a_long_recording_are_nearer_to_a_wide_search_than_the_whole_is(random_lm: str) -> None:
    # A whole search spends its eight beams on doubts of long ago, whose scores differ for ever.
    searches = {
        width: NativeSearch(Decoding(lm=random_lm, beam_width=width, known_pieces=False), VOCABULARY) for width in (100, 8)
    }
    decoder = open_decoder(Decoding(lm=random_lm), VOCABULARY)
    off_whole, off_parts = [], []
    for seed in (11, 13):
        emissions = sparsify(peaky(seed, pieces=1100, doubt=0.1), -6.0, 0.999, 0)
        wide, whole = (list_tokens(searches[width].search(emissions).hypotheses[0]) for width in (100, 8))
        off_whole.append(count_differences(wide, whole))
        off_parts.append(count_differences(wide, list_tokens(decoder.decode(emissions)[0])))
    assert sum(off_parts) < sum(off_whole) < 60


def list_tokens(hypothesis: Hypothesis) -> list[int]:
    return [piece.token_id for piece in hypothesis.pieces]


def count_differences(expected: Sequence[int], actual: Sequence[int]) -> int:
    same = sum(block.size for block in SequenceMatcher(None, expected, actual, autojunk=False).get_matching_blocks())
    return max(len(expected), len(actual)) - same


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9000))
def test_parts_cover_every_frame_once_and_stay_short(seed: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    blank = rng.random(frames)
    emissions = sparsify(np.log(np.stack([blank, 1 - blank], axis=1)), -6.0, 0.9, 0)
    parts = cut_at_pauses(emissions, blank_id=0)
    assert parts[0][0] == 0
    assert parts[-1][1] == emissions.kept
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    assert all(end - start <= PART_FRAMES for start, end in parts)
    assert 2 * CONTEXT_FRAMES < PART_FRAMES < WHOLE_FRAMES


def test_cut_is_at_the_longest_pause() -> None:
    blank = np.full(5000, 0.5)
    blank[1400:1500] = 0.9999
    blank[1700:1900] = 0.9999
    emissions = sparsify(np.log(np.stack([blank, 1 - blank], axis=1)), -6.0, 0.999, 0)
    assert emissions.frame_index[cut_at_pauses(emissions, blank_id=0)[0][1]] == 1700


def test_readings_of_a_long_recording_are_the_best_pairs_of_its_parts(engine: str, random_lm: str) -> None:
    emissions = sparsify(peaky(11, pieces=1300), -6.0, 0.999, 0)
    assert emissions.kept > WHOLE_FRAMES
    hypotheses = open_decoder(Decoding.model_validate({"engine": engine, "lm": random_lm}), VOCABULARY).decode(emissions)
    totals = [hypothesis.total_score for hypothesis in hypotheses]
    assert len(hypotheses) == 8
    assert totals == sorted(totals, reverse=True)
    assert all(a.end_frame <= b.start_frame for hypothesis in hypotheses for a, b in pairwise(hypothesis.pieces))


def write_pieces(seed: int, count: int) -> tuple[list[int], Emissions]:
    """Clear pieces with a sure pause at least every forty frames; the tokens that were spoken, and their emissions."""
    rng = np.random.default_rng(seed)
    spoken: list[int] = []
    rows: list[np.ndarray] = []
    while len(spoken) < count:
        for _ in range(rng.integers(1, 12)):
            spoken.append(int(rng.integers(3, len(LABELS))))
            for _ in range(rng.integers(1, 3)):
                row = rng.normal(-9, 1, len(LABELS))
                row[spoken[-1]], row[rng.integers(3, len(LABELS))] = 4.0, rng.normal(0, 2)
                row[spoken[-1]] = row.max() + 1.5
                rows.append(row)
            rows.append(rng.normal(-9, 1, len(LABELS)))
            rows[-1][0] = 3.0
        for _ in range(rng.integers(1, 6)):
            rows.append(rng.normal(-9, 1, len(LABELS)))
            rows[-1][0] = 14.0
    logits = np.array(rows)
    log_probs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    return spoken, sparsify(log_probs.astype(np.float32), -5.5, 0.999, 0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), whole=st.integers(300, 900), context=st.integers(20, 60))
def test_cutting_never_loses_or_repeats_a_piece(seed: int, whole: int, context: int) -> None:
    spoken, emissions = write_pieces(seed, 700)
    decoder = open_decoder(Decoding(lm=None), VOCABULARY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dictalake.decoding.beam.WHOLE_FRAMES", whole)
        patch.setattr("dictalake.decoding.beam.CONTEXT_FRAMES", context)
        patch.setattr("dictalake.decoding.segments.PART_FRAMES", whole - 2 * context)
        assert len(cut_at_pauses(emissions, 0)) > 1
        in_parts = decoder.decode(emissions)[0]
        patch.setattr("dictalake.decoding.beam.WHOLE_FRAMES", 10**6)
        as_a_whole = decoder.decode(emissions)[0]
    assert list_tokens(in_parts) == list_tokens(as_a_whole) == spoken
    assert [piece.start_frame for piece in in_parts.pieces] == [piece.start_frame for piece in as_a_whole.pieces]
