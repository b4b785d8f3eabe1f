"""Does a recording look like a conversation? A model of dictations drops a third of one without a sign.

Signs, of what a row of the lake says already:

- ``uncovered_share``: of its speech, how much has no word near it (``quality.uncovered_speech_s`` of ``quality.speech_s``)
- ``confidence``: the mean over its words
- ``marks_share``: of its words, how many are spoken punctuation or headings. Who dictates says "period"; who talks does not
- ``turns_per_min``: how often the next word is in another channel, where there are several

A recording looks like a conversation if its voices take turns; or if it has hardly a mark, and the model is unsure of its words
or left out speech. Confidence alone is low for an unknown voice too, and some doctors dictate no punctuation.

The thresholds of confidence, marks and turns were chosen on synthetic talk of two voices against dictations, and measured on
others (docs/evaluation.md). That of uncovered speech could not be: the embedded model leaves none there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_MARKS = ("{", "[")  # {period}, [FINDINGS]
_FEWEST, _SHARE = 3, 1 / 3  # of the recordings of a run, before it warns
LEAST_SPEECH_S = 5.0  # of less nothing can be said
MOST_UNCOVERED_SHARE = 0.1
LEAST_CONFIDENCE = 0.93
LEAST_MARKS_SHARE = 0.01
MOST_TURNS_PER_MIN = 4.0
_SAME_S, _NEAR_WORDS = 0.3, 8  # between the starts of a word in two channels; how far back it is looked for


@dataclass(frozen=True)
class DomainSigns:
    """None where a row does not say."""

    uncovered_share: float | None
    confidence: float | None
    marks_share: float
    turns_per_min: float

    @property
    def looks_like_conversation(self) -> bool:
        loses_speech = self.uncovered_share is not None and self.uncovered_share > MOST_UNCOVERED_SHARE
        is_unsure = self.confidence is not None and self.confidence < LEAST_CONFIDENCE
        is_unmarked = self.marks_share < LEAST_MARKS_SHARE
        return self.turns_per_min > MOST_TURNS_PER_MIN or (is_unmarked and (is_unsure or loses_speech))


def measure_domain(row: Mapping[str, Any]) -> DomainSigns | None:
    """Of a row of the lake: its columns ``quality``, ``confidence`` and ``words``. None of a failed one, or of hardly any
    speech."""
    quality = row["quality"] or {}
    speech_s, duration_s = quality.get("speech_s"), quality.get("duration_s")
    if row["status"] != "ok" or not duration_s or speech_s is None or speech_s < LEAST_SPEECH_S:
        return None
    words = row["words"] or ()
    uncovered_s = quality.get("uncovered_speech_s")
    return DomainSigns(
        uncovered_share=None if uncovered_s is None else uncovered_s / speech_s,
        confidence=row["confidence"],
        marks_share=sum(word["word"].startswith(_MARKS) for word in words) / max(1, len(words)),
        turns_per_min=60 * count_turns(words) / duration_s,
    )


def count_turns(words: Sequence[Mapping[str, Any]]) -> int:
    """How often the next word, in order of time, is in another channel.

    A word that two channels have at the same time is one voice that two microphones hear. It belongs to both, so no turn leads
    to it from either.
    """
    heard: list[tuple[float, str, set[Any]]] = []
    for word in sorted(words, key=lambda word: word["start_s"]):
        start_s, text, channel = word["start_s"], word["word"].lower(), word["channel"]
        near = (one for one in heard[-_NEAR_WORDS:] if one[1] == text and start_s - one[0] <= _SAME_S)
        copy = next((channels for _, _, channels in near if channel not in channels), None)
        if copy is None:
            heard.append((start_s, text, {channel}))
        else:
            copy.add(channel)
    return sum(before.isdisjoint(after) for (_, _, before), (_, _, after) in pairwise(heard))


def warn_of_conversations(judged: int, conversations: int) -> str | None:
    """A warning where a third of the recordings, and three at least, look like conversations."""
    if conversations < _FEWEST or conversations < _SHARE * judged:
        return None
    return (
        f"looks like conversations, not dictation: {conversations} of {judged} recordings have speech without words, words "
        "that the model is unsure of, or voices that take turns. MedASR was made for one doctor who dictates, and loses "
        "words of conversations without a sign: compare with another engine (dictalake evaluate) before you rely on these texts"
    )
