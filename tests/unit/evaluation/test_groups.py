"""Scores by a column of the manifest."""

from __future__ import annotations

import pytest

from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.utterances import TOTAL, UNLABELLED, Score, Utterance, find_worst, relative_improvement, score
from dictalake.evaluation.word_errors import ErrorCount

UTTERANCES = [
    Utterance("1", "no acute fracture", "no acute fracture", {"voice": "slt"}),
    Utterance("2", "Lungs are clear {period}", "lungs clear period", {"voice": "awb"}),
    Utterance("3", "no effusion", None, {"voice": "slt"}),
    Utterance("4", "stable", "very stable", {}),
]


def test_each_group_and_the_total() -> None:
    assert score(UTTERANCES, normalise_medasr, by="voice") == [
        Score(UNLABELLED, ErrorCount(1, 1, 0, 0, 1), failed=0),
        Score("awb", ErrorCount(1, 4, 0, 1, 0), failed=0),
        Score("slt", ErrorCount(2, 5, 0, 2, 0), failed=1),
        Score(TOTAL, ErrorCount(4, 10, 0, 3, 1), failed=1),
    ]


def test_without_a_column_only_the_total() -> None:
    assert score(UTTERANCES, normalise_medasr) == [Score(TOTAL, ErrorCount(4, 10, 0, 3, 1), failed=1)]


def test_all_words_of_a_failed_recording_are_deletions() -> None:
    failed = [Utterance("1", "no acute fracture", None, {})]
    assert score(failed, normalise_medasr) == [Score(TOTAL, ErrorCount(1, 3, 0, 3, 0), failed=1)]


def test_relative_improvement() -> None:
    assert relative_improvement(ErrorCount(words=100, deletions=8), ErrorCount(words=100, deletions=6)) == pytest.approx(0.25)
    assert relative_improvement(ErrorCount(words=100, deletions=8), ErrorCount(words=100, deletions=10)) == pytest.approx(-0.25)
    assert relative_improvement(ErrorCount(words=100), ErrorCount(words=100, deletions=1)) is None


def test_worst_come_first_and_perfect_ones_not_at_all() -> None:
    worst = find_worst(UTTERANCES, normalise_medasr, count=10)
    assert [(utterance.recording_id, errors.rate) for utterance, errors in worst] == [("3", 1.0), ("4", 1.0), ("2", 0.25)]
    assert [utterance.recording_id for utterance, _ in find_worst(UTTERANCES, normalise_medasr, count=1)] == ["3"]
