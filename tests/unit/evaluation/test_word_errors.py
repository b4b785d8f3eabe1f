"""Counts on cases small enough to count by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.evaluation.word_errors import ErrorCount, count_errors

TEXTS = st.lists(st.sampled_from(["no", "acute", "fracture", "seen"]), max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("no acute fracture", "no acute fracture", ErrorCount(1, 3, 0, 0, 0)),
        ("no acute fracture", "no cute fracture", ErrorCount(1, 3, 1, 0, 0)),
        ("no acute fracture", "no fracture", ErrorCount(1, 3, 0, 1, 0)),
        ("no acute fracture", "no acute hip fracture", ErrorCount(1, 3, 0, 0, 1)),
        ("no acute fracture", "now cute fracture seen", ErrorCount(1, 3, 2, 0, 1)),
        ("no acute fracture", "", ErrorCount(1, 3, 0, 3, 0)),
        ("", "thank you", ErrorCount(1, 0, 0, 0, 2)),
        ("", "", ErrorCount(1, 0, 0, 0, 0)),
    ],
)
def test_counts_of_one_pair(reference: str, hypothesis: str, expected: ErrorCount) -> None:
    assert count_errors([(reference, hypothesis)]) == expected


def test_rate_is_errors_over_reference_words() -> None:
    counted = count_errors([("no acute fracture", "no fracture"), ("lungs are clear", "lungs are clear")])
    assert counted == ErrorCount(2, 6, 0, 1, 0)
    assert counted.rate == pytest.approx(1 / 6)


def test_rate_without_reference_words() -> None:
    assert ErrorCount().rate == 0.0
    assert count_errors([("", "thank you")]).rate == math.inf


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_counts_of_pairs_add_up(pairs: list[tuple[str, str]]) -> None:
    together = count_errors(pairs)
    alone = [count_errors([pair]) for pair in pairs]
    for name in ("utterances", "words", "substitutions", "deletions", "insertions"):
        assert getattr(together, name) == sum(getattr(count, name) for count in alone)
    assert together.words == sum(len(reference.split()) for reference, _ in pairs)
