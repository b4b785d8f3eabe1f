"""What looks like a conversation, and when a run says so."""

from __future__ import annotations

from typing import Any

import pytest

from dictalake.transcript.domain import DomainSigns, count_turns, measure_domain, warn_of_conversations
from tests.lake_rows import make_failed_row, make_row


def say(*channels: int, word: str = "a") -> list[dict[str, Any]]:
    return [{"word": word, "start_s": float(place), "channel": channel} for place, channel in enumerate(channels)]


def make(**changes: Any) -> DomainSigns | None:
    quality = {"duration_s": 60.0, "speech_s": 40.0, "uncovered_speech_s": 0.4} | changes.pop("quality", {})
    return measure_domain(make_row("a", **{"quality": quality, "confidence": 0.97, "words": say(0, 0, 0), **changes}))


DICTATED = [*say(0, 0, 0), *say(0, word="{period}")]


@pytest.mark.parametrize(
    ("changes", "is_conversation"),
    [
        ({}, False),
        ({"quality": {"uncovered_speech_s": 14.0}}, True),
        ({"confidence": 0.9}, True),
        ({"confidence": 0.9, "words": DICTATED}, False),  # an unknown voice that says "period"
        ({"quality": {"uncovered_speech_s": 14.0}, "words": DICTATED}, False),
        ({"words": say(*(0, 1) * 4)}, True),
        ({"words": say(0, 1, 0)}, False),
        ({"confidence": None, "quality": {"uncovered_speech_s": None}}, False),
        ({"confidence": None, "words": None}, False),
    ],
)
def test_voices_that_take_turns_or_unsure_words_without_punctuation(changes: dict[str, Any], is_conversation: bool) -> None:
    signs = make(**changes)
    assert signs is not None
    assert signs.looks_like_conversation == is_conversation


def test_of_failed_rows_and_hardly_any_speech_nothing_is_said() -> None:
    assert make(quality={"speech_s": 1.0}) is None
    assert make(quality={"speech_s": None}) is None
    assert measure_domain({**make_row("a"), **make_failed_row("a"), "quality": None}) is None


def test_turns_are_counted_in_order_of_time() -> None:
    assert count_turns(say(0, 0, 1, 1, 0)) == 2
    assert count_turns(say(0, 0, 1, 1, 0)[::-1]) == 2
    assert count_turns([]) == 0


def test_one_voice_that_two_microphones_hear_takes_no_turns() -> None:
    said = ["the", "lungs", "are", "clear", "there", "is", "no", "effusion"]
    first = [{"word": word, "start_s": place, "channel": 0} for place, word in enumerate(said)]
    late = [{**word, "start_s": word["start_s"] + (-0.1) ** (place % 2 + 1), "channel": 1} for place, word in enumerate(first)]
    assert count_turns([*first, *late]) == 0
    other = [{"word": "yes", "start_s": place + 0.5, "channel": 1} for place in range(len(said))]
    assert count_turns([*first, *other]) == 2 * len(said) - 1


def test_a_run_warns_of_a_third_and_of_three_at_least() -> None:
    assert warn_of_conversations(9, 2) is None
    assert warn_of_conversations(10, 3) is None
    warning = warn_of_conversations(9, 3)
    assert warning is not None
    assert warning.startswith("looks like conversations, not dictation: 3 of 9 recordings")
