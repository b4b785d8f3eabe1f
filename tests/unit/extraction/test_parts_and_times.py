"""Long texts in parts, and the times of a passage."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dictalake.extraction.parts import split_text
from dictalake.extraction.quotes import Span, find_quote, list_numbers
from dictalake.extraction.timing import Timing, WordTimes


def say(*words: str, confidence: float | None = 0.9) -> list[dict[str, Any]]:
    """Words of a transcript, one a second."""
    return [
        {"word": word, "start_s": float(place), "end_s": place + 0.5, "confidence": confidence, "channel": 0}
        for place, word in enumerate(words)
    ]


def find(text: str, quote: str, words: list[dict[str, Any]], **options: Any) -> Timing:
    return WordTimes(text, words).find(find_quote(quote, text)[0], **options)


@given(st.text(alphabet="ab. \n", max_size=4000), st.integers(500, 900))
def test_each_character_of_a_text_is_owned_by_one_part_and_no_part_is_too_long(text: str, most: int) -> None:
    parts = split_text(text, most)
    if text.strip():
        assert [part.own_from for part in parts] == [0, *(part.own_to for part in parts[:-1])]
        assert parts[-1].own_to == len(text)
    for part in parts:
        assert len(part.text) <= most
        assert part.text == text[part.start : part.start + len(part.text)]
        assert part.start <= part.own_from < part.own_to <= part.start + len(part.text)


def test_readable_text_has_the_times_of_the_spoken_words() -> None:
    words = say("metoprolol", "fifty", "milligrams", "{period}", "[IMPRESSION]", "no", "{comma}", "no", "effusion", "{period}")
    text = "Metoprolol 50 mg.\n\nImpression: No, no effusion."
    assert find(text, "Metoprolol 50 mg", words) == Timing(1, 3, 0.0, 2.5, 0.9)
    assert find(text, "50 mg", words) == Timing(2, 3, 1.0, 2.5, 0.9)
    assert find(text, "no effusion", words) == Timing(8, 9, 7.0, 8.5, 0.9)


def test_the_least_certain_word_of_a_quote_gives_its_confidence() -> None:
    words = say("left", "pleural", "effusion")
    words[1]["confidence"] = 0.2
    assert find("Left pleural effusion.", "left pleural effusion", words).confidence == 0.2
    assert find("Left pleural effusion.", "effusion", words).confidence == 0.9
    assert find("Left effusion.", "left effusion", say("left", "effusion", confidence=None)).confidence is None


def test_a_corrected_word_has_the_time_of_what_it_replaces_and_no_confidence_of_the_machine() -> None:
    words = say("right", "plural", "effusion")
    assert find("Right pleural effusion.", "pleural", words, is_corrected=True) == Timing(2, 2, 1.0, 1.5, None)
    assert find("Right pleural effusion.", "pleural effusion", words, is_corrected=True) == Timing(2, 3, 1.0, 2.5, 0.9)


def test_a_word_that_nobody_spoke_has_no_time() -> None:
    words = say("right", "effusion")
    assert find("Right effusion. No fracture.", "No fracture", words, is_corrected=True) == Timing()
    assert find("No words.", "No words", []) == Timing()
    assert WordTimes("No words.", None).find(Span(0, 2)) == Timing()


def test_numbers_are_read_in_digits_and_in_words() -> None:
    assert set(list_numbers("4,2")) == {4.2}
    assert 12_500.0 in list_numbers("12,500 units")
    assert {120.0, 80.0} <= set(list_numbers("one twenty over eighty"))
    assert {2.5} <= set(list_numbers("two point five"))
    assert 7.0 in list_numbers("seven nodules")
    assert list_numbers("no number") == []
