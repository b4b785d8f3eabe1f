"""Words with their times on the recording's own axis, and several channels as one text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import FrameGrid, Hypothesis, Piece, Word
from dictalake.transcript.words import end_with_recording, join_words, mean_confidence, merge_channels, words_of

LASR = FrameGrid(step=640, receptive=2320)


def pieces(*texts: str, logp: float = -0.1) -> Hypothesis:
    """One piece every third frame, two frames long."""
    return Hypothesis(tuple(Piece(1, text, 3 * i, 3 * i + 2, logp) for i, text in enumerate(texts)))


def words(*texts: str) -> list[str]:
    return [word.word for word in words_of(pieces(*texts), LASR)]


def test_word_lasts_from_its_first_frame_to_its_last() -> None:
    hypothesis = Hypothesis(
        (Piece(5, "▁fra", 10, 12, float(np.log(0.5))), Piece(6, "cture", 14, 15, 0.0), Piece(7, "▁{period}", 30, 31, -0.001))
    )
    fracture, period = words_of(hypothesis, LASR, channel=1)
    assert fracture.word == "fracture"
    # Frame 10 is centred on 640 × 10 + 1160 samples and begins 320 before; frame 14 ends 320 after its centre.
    assert fracture.start_s == pytest.approx((6400 + 1160 - 320) / 16000)
    assert fracture.end_s == pytest.approx((640 * 14 + 1160 + 320) / 16000)
    assert fracture.confidence == pytest.approx(0.75)
    assert (period.word, period.channel) == ("{period}", 1)
    assert period.end_s - period.start_s == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["▁no", "▁fra", "cture"], ["no", "fracture"]),
        (["fra", "cture"], ["fracture"]),
        (["▁", "s", "i", "ze", "▁", "is"], ["size", "is"]),
        (["N", "O", "▁", "I", "S", "▁"], ["NO", "IS"]),
        (["▁{new", "▁paragraph}", "▁heart"], ["{new paragraph}", "heart"]),
        (["▁[", "EXAM", "▁TYPE", "]", "▁CT"], ["[EXAM TYPE]", "CT"]),
        (["▁{period}", "▁{comma}"], ["{period}", "{comma}"]),
        (["▁{next}", "▁para}", "graph}"], ["{next}", "para}graph}"]),
        (["▁{new", "▁lungs", "▁are", "▁clear", "▁today}"], ["{new", "lungs", "are", "clear", "today}"]),
        (["▁{new", "▁{period}"], ["{new", "{period}"]),
        (["▁{new"], ["{new"]),
        (["▁vena▁cava"], ["vena cava"]),
        (["▁", "▁"], []),
        ([], []),
    ],
)
def test_pieces_become_words(texts: list[str], expected: list[str]) -> None:
    assert words(*texts) == expected


def test_lone_word_start_counts_neither_for_time_nor_for_confidence() -> None:
    hypothesis = Hypothesis((Piece(3, "▁", 2, 3, -9.0), Piece(4, "a", 5, 6, 0.0)))
    (word,) = words_of(hypothesis, LASR)
    assert word.start_s == pytest.approx((640 * 5 + 840) / 16000)
    assert word.confidence == pytest.approx(1.0, abs=1e-3)


PIECE_TEXTS = st.sampled_from(
    ["▁", "▁no", "▁fra", "cture", "▁{new", "▁paragraph}", "▁{period}", "▁[EXAM", "]", "}", "{", "a▁b", "▁▁x"]
)


@given(st.lists(PIECE_TEXTS, max_size=30), st.floats(-50, 0.001))
def test_words_joined_are_the_raw_text_and_confidence_is_a_share(texts: list[str], logp: float) -> None:
    vocabulary = Vocabulary.from_pieces(["<pad>"], blank_id=0)
    made = words_of(pieces(*texts, logp=logp), LASR)
    assert join_words(made) == vocabulary.text_of(texts)
    assert all(0 <= word.confidence <= 1 and 0 <= word.start_s < word.end_s for word in made)
    starts = [word.start_s for word in made]
    assert starts == sorted(starts)


@given(st.floats(0.001, 5), st.integers(1, 12))
def test_no_word_ends_after_the_recording(duration_s: float, count: int) -> None:
    found = words_of(pieces(*["▁word"] * count), LASR)
    ended = end_with_recording(found, duration_s)
    assert [word.word for word in ended] == [word.word for word in found]
    assert all(0 <= word.start_s < word.end_s <= duration_s for word in ended)
    assert [word for word in ended if word.end_s < duration_s] == [word for word in found if word.end_s < duration_s]


def test_mean_confidence_of_no_words_is_none() -> None:
    assert mean_confidence([]) is None
    assert mean_confidence([Word("a", 0, 1, 0.5), Word("b", 1, 2, 1.0)]) == 0.75


def said(text: str, start_s: float, channel: int, pace_s: float = 0.4) -> list[Word]:
    return [Word(w, start_s + i * pace_s, start_s + i * pace_s + 0.3, 0.9, channel) for i, w in enumerate(text.split())]


def test_channels_come_in_order_of_time_turn_by_turn() -> None:
    doctor = said("any chest pain", 0.0, 0) + said("and at night", 6.0, 0)
    patient = said("only on the stairs", 0.9, 1)
    assert join_words(merge_channels([doctor, patient])) == "any chest pain only on the stairs and at night"
    assert [word.channel for word in merge_channels([doctor, patient])] == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]


def shifted(original: Sequence[Word], by_s: float) -> list[Word]:
    return [Word(w.word, w.start_s + by_s, w.end_s + by_s, w.confidence, 1) for w in original]


def test_dual_mono_is_said_once() -> None:
    first = said("no acute fracture " * 10, 0.0, 0)
    assert merge_channels([first, shifted(first, 0.04)]) == first
    almost = shifted(first, 0.0)
    almost[7] = Word("acutely", almost[7].start_s, almost[7].end_s, 0.5, 1)
    assert merge_channels([first, almost]) == first


@pytest.mark.parametrize("changed", [2, 15])
def test_channels_that_differ_in_more_than_a_twentieth_are_both_kept(changed: int) -> None:
    first = said("no acute fracture " * 10, 0.0, 0)
    other = shifted(first, 0.0)
    other[:changed] = [Word("other", w.start_s, w.end_s, 0.5, 1) for w in other[:changed]]
    assert len(merge_channels([first, other])) == 60


def test_same_words_at_another_time_are_another_channel() -> None:
    first = said("no acute fracture", 0.0, 0)
    assert len(merge_channels([first, shifted(first, 5.0)])) == 6


def test_empty_channels_add_nothing() -> None:
    only = said("no acute fracture", 0.0, 1)
    assert merge_channels([[], only, []]) == only
    assert merge_channels([[], []]) == []
    assert merge_channels([]) == []
