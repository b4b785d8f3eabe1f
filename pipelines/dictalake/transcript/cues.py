"""Words with times → cues: the lines of subtitles, with readable text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dictalake.transcript.formatting import format_text

LONGEST_S = 6.0
MOST_CHARACTERS = 84  # two lines of 42, as broadcasters have it
_PAUSE_S = 1.5
_ENDS = ("{period}", "{full stop}", "{question mark}", "{exclamation mark}", "{exclamation point}", "paragraph}", "line}")


class Cue(NamedTuple):
    """``text`` is what was said from ``start_s`` to ``end_s`` in ``channel``."""

    start_s: float
    end_s: float
    text: str
    channel: int


def make_cues(words: Sequence[Mapping[str, Any]]) -> list[Cue]:
    """Cues of the lake's column ``words``, by time. A cue ends with a sentence, at a pause, and where it would be too long."""
    cues = [cue for channel in sorted({word["channel"] for word in words}) for cue in _of_channel(words, channel)]
    return sorted(cues)


def _of_channel(words: Sequence[Mapping[str, Any]], channel: int) -> Iterator[Cue]:
    group: list[Mapping[str, Any]] = []
    begins_sentence = True
    for word in sorted((word for word in words if word["channel"] == channel), key=lambda word: word["start_s"]):
        if group and _is_full(group, word):
            yield from _make(group, channel, begins_sentence=begins_sentence)
            begins_sentence, group = False, []
        group.append(word)
        if word["word"].endswith((*_ENDS, ".", "?", "!")):
            yield from _make(group, channel, begins_sentence=begins_sentence)
            begins_sentence, group = True, []
    if group:
        yield from _make(group, channel, begins_sentence=begins_sentence)


def _is_full(group: Sequence[Mapping[str, Any]], word: Mapping[str, Any]) -> bool:
    length = sum(len(one["word"]) + 1 for one in group) + len(word["word"])
    is_mark = word["word"].startswith("{")  # punctuation stays with its sentence
    has_paused = word["start_s"] - group[-1]["end_s"] > _PAUSE_S
    return not is_mark and (length > MOST_CHARACTERS or word["end_s"] - group[0]["start_s"] > LONGEST_S or has_paused)


def _make(group: Sequence[Mapping[str, Any]], channel: int, *, begins_sentence: bool) -> Iterator[Cue]:
    raw = " ".join(word["word"] for word in group)
    text = " ".join(format_text(raw).text.split())
    if not text:
        return
    if not begins_sentence and raw[:1].islower():  # the formatter takes the beginning of a text for that of a sentence
        text = text[:1].lower() + text[1:]
    start_s = group[0]["start_s"]
    yield Cue(start_s, max(start_s, max(word["end_s"] for word in group)), text, channel)
