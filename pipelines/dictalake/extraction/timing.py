"""Where the words of a text were said: the text's words are aligned to those that the recogniser wrote, which have times.

A readable text has punctuation, and digits where numbers were spoken; a corrected text has other words too. Equal words take
each other's time. Words that stand in place of others take theirs, and words that nobody spoke have none.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein

from dictalake.extraction.quotes import Span

_TOKEN = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class Timing:
    """A passage as it was said: words ``first`` … ``last`` of the transcript's column, from 1, and their times. All are None
    where no word of it has a time. ``confidence`` is that of its least certain word.
    """

    first_word: int | None = None
    last_word: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    confidence: float | None = None


class WordTimes:
    """The words of one text and what they are aligned to."""

    def __init__(self, text: str, words: Sequence[Mapping[str, Any]] | None) -> None:
        """``words`` are those of the transcript's row."""
        tokens = [(match.start(), match.group().casefold()) for match in _TOKEN.finditer(text)]
        self._starts = [start for start, _ in tokens]
        self._words = list(words or ())
        spoken = [
            (index, match.group().casefold())
            for index, word in enumerate(self._words)
            if not str(word["word"]).startswith("{")  # markup such as {period} is no word of the text
            for match in _TOKEN.finditer(str(word["word"]))
        ]
        # Of each token the words that it was said by, first and last + 1, and whether it is the same word.
        self._said: list[tuple[int, int, bool]] = [(0, 0, False)] * len(tokens)
        for block in Levenshtein.opcodes([token for _, token in tokens], [word for _, word in spoken]):
            a0, a1, b0, b1 = block.src_start, block.src_end, block.dest_start, block.dest_end
            if block.tag == "equal":
                for offset in range(a1 - a0):
                    index = spoken[b0 + offset][0]
                    self._said[a0 + offset] = (index, index + 1, True)
            elif block.tag == "replace":
                for place in range(a0, a1):
                    self._said[place] = (spoken[b0][0], spoken[b1 - 1][0] + 1, False)

    def find(self, span: Span, *, is_corrected: bool = False) -> Timing:
        """When the passage ``span`` of the text was said. Of a text that a person corrected, only words that the recogniser
        wrote too have its confidence."""
        first, last = bisect_left(self._starts, span.start), bisect_left(self._starts, span.end)
        said = [one for one in self._said[first:last] if one[1] > one[0]]
        if not said:
            return Timing()
        begin, end = min(one[0] for one in said), max(one[1] for one in said)
        spoken = self._words[begin:end]
        sure = [word for one in said if one[2] or not is_corrected for word in self._words[one[0] : one[1]]]
        confidences = [word["confidence"] for word in sure if word["confidence"] is not None]
        return Timing(
            first_word=begin + 1,
            last_word=end,
            start_s=min(word["start_s"] for word in spoken),
            end_s=max(word["end_s"] for word in spoken),
            confidence=min(confidences, default=None),
        )
