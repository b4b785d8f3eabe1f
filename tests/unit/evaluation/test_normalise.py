"""What each normaliser takes for the same."""

from __future__ import annotations

import pytest

from dictalake.evaluation.normalise import NORMALISERS, normalise_medasr, normalise_whisper, normalise_words_only

DICTATED = "[FINDINGS] {colon} The heart isn't enlarged {comma} {new paragraph} L four {period}</s>"


def test_medasr_scores_markup_as_words() -> None:
    assert normalise_medasr(DICTATED) == "findings colon the heart isn't enlarged comma new paragraph l four period"


def test_words_drops_spoken_punctuation_and_keeps_headings() -> None:
    assert normalise_words_only(DICTATED) == "findings the heart isn't enlarged l four"


@pytest.mark.parametrize(
    "written",
    [
        "Findings: The heart isn't enlarged, L four.",
        "findings colon the heart isn't enlarged comma new paragraph l four period",
        "[FINDINGS] {colon} the heart isn't enlarged {comma} {new paragraph} L four {period}",
    ],
)
def test_words_takes_spoken_and_written_punctuation_for_the_same(written: str) -> None:
    assert normalise_words_only(written) == normalise_words_only(DICTATED)


def test_whisper_writes_numbers_as_digits() -> None:
    assert normalise_whisper("forty milligrams {period}") == normalise_whisper("40 milligrams.") == "40 milligrams"


def test_whisper_keeps_headings_in_brackets() -> None:
    assert normalise_whisper("[FINDINGS] {colon} clear") == normalise_whisper("Findings: clear") == "findings clear"


def test_whisper_does_not_join_numbers_across_sentences() -> None:
    spoken = "grade two {period} three nodules {period}"
    assert normalise_whisper(spoken) == normalise_whisper("Grade 2. 3 nodules.") == "grade 2 3 nodules"


@pytest.mark.parametrize("name", NORMALISERS)
def test_normalised_text_stays_as_it_is(name: str) -> None:
    normalise = NORMALISERS[name]
    once = normalise(DICTATED)
    assert normalise(once) == once
    assert normalise("") == normalise("</s>") == ""


@pytest.mark.parametrize(
    ("text", "published", "corrected"),
    [
        ("oh no", "0 no", "oh no"),
        ("Oh, I see", "0 i see", "oh i see"),
        ("four point oh five", "4.05", "4.05"),
        ("room two oh three", "room 203", "room 203"),
        ("ok then", "ok then", "okay then"),
        ("okay then O.K.", "okay then 0 k", "okay then okay"),
        ("forty milligrams", "40 milligrams", "40 milligrams"),
    ],
)
def test_whisper_stays_as_published_and_has_a_corrected_one_beside_it(text: str, published: str, corrected: str) -> None:
    assert (NORMALISERS["whisper"](text), NORMALISERS["whisper-corrected"](text)) == (published, corrected)
