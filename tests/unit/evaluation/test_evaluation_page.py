"""The page of ``dictalake evaluate``: what is drawn, marked and listed on it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from dictalake.evaluation.assessment import Assessed, assess, describe
from dictalake.evaluation.clinical import Terms
from dictalake.evaluation.evaluation_page import (
    AlignedWord,
    compare_words,
    draw_intervals,
    draw_routing,
    find_worst_passage,
    rank_terms,
    render_page,
    show_mistakes,
)
from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.report import make_snippet
from dictalake.evaluation.utterances import Utterance

TERMS = Terms({"apixaban": "drugs", "effusion": "findings", "fracture": "findings"})


def make(recording_id: str, reference: str, hypothesis: str | None, confidence: float | None = None) -> Assessed:
    return assess(Utterance(recording_id, reference, hypothesis, {}, confidence), normalise_medasr, TERMS)


def test_words_are_marked_by_what_became_of_them_and_whether_it_may_hurt() -> None:
    assert compare_words("no acute fracture of five", "acute fracture off six mm") == [
        AlignedWord("no", None, "deleted", True),
        AlignedWord("acute", "acute", "same", False),
        AlignedWord("fracture", "fracture", "same", False),
        AlignedWord("of", "off", "substituted", False),
        AlignedWord("five", "six", "substituted", True),
        AlignedWord(None, "mm", "inserted", False),
    ]


def test_mistakes_come_with_the_words_around_them_and_not_from_failed_recordings() -> None:
    before, after = ["one", "two", "three", "four", "five", "six"], ["a", "b", "c", "d", "e", "f"]
    said = " ".join(["x", *["p", "q", "r", "s", "t"], "left", *after])
    heard = said.replace("left", "right")
    shown = list(show_mistakes([make("r1", said, heard), make("r2", " ".join(before), None)]))
    assert [(one.kind, one.recording_id, [word.said for word in one.words]) for one in shown] == [
        ("sides swapped", "r1", ["p", "q", "r", "s", "t", "left", "a", "b", "c", "d", "e"])
    ]


def test_terms_are_ranked_by_how_often_they_go_wrong() -> None:
    assessed = [
        make("r1", "apixaban for effusion", "for effusion"),
        make("r2", "apixaban", "a pixel band"),
        make("r3", "clear", "fracture"),
    ]
    assert rank_terms(assessed, 10) == [("apixaban", "drugs", 2, 0), ("fracture", "findings", 0, 1)]
    assert rank_terms(assessed, 1) == [("apixaban", "drugs", 2, 0)]


def make_words(count: int, wrong: range) -> list[AlignedWord]:
    return [
        AlignedWord("a", "b" if place in wrong else "a", "substituted" if place in wrong else "same", False)
        for place in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "wrong", "middle"),
    [(600, range(300, 360), 330 / 600), (600, range(60), 30 / 600), (600, range(540, 600), 570 / 600), (10, range(9, 10), 0.5)],
)
def test_the_worst_passage_is_where_the_errors_are(count: int, wrong: range, middle: float) -> None:
    assert find_worst_passage(make_words(count, wrong)) == pytest.approx(middle)


@pytest.mark.parametrize(
    ("seconds", "wrong", "from_s", "to_s"),
    [(300, range(300, 360), 150, 180), (300, range(60), 0, 30), (300, range(540, 600), 270, 300), (12, range(60), 0, 12)],
)
def test_half_a_minute_of_sound_is_taken_from_there(seconds: int, wrong: range, from_s: float, to_s: float) -> None:
    sound = np.random.default_rng(0).integers(-9_999, 9_999, 16_000 * seconds).astype(np.int16)
    snippet = make_snippet(sound, make_words(600, wrong))
    assert snippet is not None
    assert (snippet.from_s, snippet.to_s) == (from_s, to_s)
    assert snippet.uri.startswith("data:audio/mpeg;base64,")
    assert len(snippet.uri) < 250_000  # dozens of them fit on a page


def test_without_sound_there_is_no_snippet() -> None:
    assert make_snippet(None, make_words(5, range(1))) is None
    assert make_snippet(np.zeros(0, dtype=np.int16), make_words(5, range(1))) is None


def test_names_of_systems_are_drawn_as_they_are() -> None:
    figures: dict[str, Any] = {
        "$lm_{1}$ at 5$": describe([make("r", "no effusion", "effusion", 0.5), make("s", "a", "a", 0.9)])
    }
    assert draw_intervals(figures).startswith("<svg")
    routing = draw_routing(figures)
    assert routing is not None
    assert "$lm_{1}$ at 5$" in routing


def test_without_confidence_there_is_no_curve() -> None:
    assert draw_routing({"whisper": describe([make("r", "a", "b")])}) is None


def test_the_page_needs_no_network_and_says_whose_data_it_holds() -> None:
    assessed = [make("r", "no effusion", "effusion", 0.5)]
    figures = {"lm": {"medasr": describe(assessed)}}
    page = render_page(figures, [], {"lm": list(show_mistakes(assessed))}, {"lm": rank_terms(assessed, 5)}, ["one note"])
    assert "Patient data" in page
    assert "one note" in page
    assert '<span class="word deleted hurts"><del>no</del>' in page
    loaded = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)|@import', page)
    assert loaded  # the pictures use shapes of their own
    assert all(link.startswith(("data:", "#")) for pair in loaded for link in pair if link)
