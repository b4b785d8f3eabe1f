"""Words of a text get the times of the machine's words; what a person changed is told from what stayed."""

from __future__ import annotations

from typing import Any

from dictalake.review.words import Piece, compare_texts, make_reference, time_words


def make_words(said: str) -> list[dict[str, Any]]:
    """A word a second; the last is unsure."""
    words = said.split()
    return [
        {"word": word, "start_s": float(i), "end_s": i + 0.5, "confidence": 0.4 if i == len(words) - 1 else 0.9, "channel": 0}
        for i, word in enumerate(words)
    ]


def list_timed(text: str, said: str) -> list[tuple[str, float | None, int | None]]:
    return [(one.text, one.start_s, one.band) for one in time_words(text, make_words(said)) if not one.is_space]


def test_written_words_have_the_times_of_spoken_ones_and_marks_have_none() -> None:
    assert list_timed("[Findings] No fracture. -", "[FINDINGS] no fracture {period}") == [
        ("[Findings]", 0.0, 3),
        ("No", 1.0, 3),
        ("fracture.", 2.0, 3),
        ("-", None, None),
    ]


def test_a_replaced_word_has_the_time_of_the_one_that_it_replaces_and_a_new_one_none() -> None:
    assert list_timed("No old facture seen", "no acute fracture") == [
        ("No", 0.0, 3),
        ("old", 1.0, 3),
        ("facture", 2.0, 0),
        ("seen", None, None),
    ]


def test_the_text_comes_out_as_it_went_in() -> None:
    text = "  One\n\ntwo  three. "
    assert "".join(one.text for one in time_words(text, make_words("one two"))) == text


def test_a_comparison_names_what_is_gone_and_what_came() -> None:
    assert compare_texts("no left fracture", "no right fracture seen") == [
        Piece("same", "no"),
        Piece("gone", "left"),
        Piece("new", "right"),
        Piece("same", "fracture"),
        Piece("new", "seen"),
    ]


def test_a_reference_keeps_the_machines_spelling_and_marks_and_takes_the_persons_words() -> None:
    said = make_words("[FINDINGS] no acute facture {period} clear {comma} too {period}")
    assert make_reference("FINDINGS: No old fracture. Clear, too.", said) == (
        "[FINDINGS] no old fracture {period} clear {comma} too {period}"
    )
    assert make_reference("No acute new fracture.", make_words("no acute fracture {period}")) == (
        "no acute new fracture {period}"
    )
    assert make_reference("Clear.", make_words("no clear {period}")) == "clear {period}"
    assert make_reference("Clear.", []) == "clear"
