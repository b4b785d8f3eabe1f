"""The mistakes that hurt patients: negations, numbers and sides that were dropped, added or swapped; medical terms.

All of it is read off the alignment of reference and hypothesis, so that a "no" that moved to another finding is an error,
though both texts have one "no".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import jiwer

_NEGATIONS = """no not without none never neither nor cannot denies denied deny negative absent absence nothing isn't aren't
wasn't weren't doesn't didn't don't hasn't haven't hadn't won't can't couldn't shouldn't"""
NEGATIONS = frozenset(_NEGATIONS.split())
SIDES = {
    "left": "left",
    "leftward": "left",
    "right": "right",
    "rightward": "right",
    "both": "both",
    "bilateral": "both",
    "bilaterally": "both",
}
_NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million point half quarter first second
third fourth fifth sixth seventh eighth ninth tenth"""
_NUMBER_WORDS = frozenset(_NUMBERS.split())
_DIGITS = re.compile(r"\d+(?:[.,/:]\d+)*(?:st|nd|rd|th|mg|ml|cm|mm|s|x|%)?")


@dataclass(frozen=True)
class ClinicalCount:
    """Errors of each kind, and how many places of the reference could have one; ``swapped``: the other side."""

    negations: int = 0
    negation_errors: int = 0
    numbers: int = 0
    number_errors: int = 0
    sides: int = 0
    laterality_errors: int = 0
    laterality_swapped: int = 0

    def __add__(self, other: ClinicalCount) -> ClinicalCount:
        return ClinicalCount(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Pairs of words; None on the side where a word was inserted or deleted."""
    if not reference or not hypothesis:
        return [(word, None) for word in reference] + [(None, word) for word in hypothesis]
    pairs: list[tuple[str | None, str | None]] = []
    for chunk in jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]:
        said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        pairs += zip_longest(said, heard)
    return pairs


def count_clinical(reference: str, hypothesis: str) -> ClinicalCount:
    """Of one pair of normalised texts. A swap of sides counts once, as does a number of several words in which one is wrong."""
    pairs = align(reference.split(), hypothesis.split())
    counted: Counter[str] = Counter()
    for said, heard in pairs:
        _count_word(said, heard, counted)
    counted += _count_numbers(pairs)
    return ClinicalCount(**counted)


def _count_word(said: str | None, heard: str | None, counted: Counter[str]) -> None:
    negated = said in NEGATIONS, heard in NEGATIONS
    counted["negations"] += negated[0]
    counted["negation_errors"] += negated[0] != negated[1]
    sides = SIDES.get(said or ""), SIDES.get(heard or "")
    counted["sides"] += sides[0] is not None
    counted["laterality_errors"] += sides[0] != sides[1]
    counted["laterality_swapped"] += None not in sides and sides[0] != sides[1]


def _count_numbers(pairs: Sequence[tuple[str | None, str | None]]) -> Counter[str]:
    """Runs of aligned places where either side has a number word are one number."""
    counted: Counter[str] = Counter()
    run: list[tuple[str | None, str | None]] = []
    for said, heard in [*pairs, (None, None)]:
        if is_number(said) or is_number(heard):
            run.append((said, heard))
            continue
        if run:
            is_said = any(is_number(one) for one, _ in run)
            counted["numbers"] += is_said
            counted["number_errors"] += any(one != other for one, other in run)
        run = []
    return counted


def is_number(word: str | None) -> bool:
    """Digits with or without a unit, or a number word."""
    return word is not None and (word in _NUMBER_WORDS or _DIGITS.fullmatch(word) is not None)


@dataclass(frozen=True)
class TermCount:
    """Medical terms: in the reference, in the hypothesis, and in both at the same place."""

    said: int = 0
    heard: int = 0
    found: int = 0

    @property
    def recall(self) -> float | None:
        return self.found / self.said if self.said else None

    @property
    def precision(self) -> float | None:
        return self.found / self.heard if self.heard else None

    def __add__(self, other: TermCount) -> TermCount:
        return TermCount(self.said + other.said, self.heard + other.heard, self.found + other.found)


@dataclass
class _Node:
    category: str | None = None
    next: dict[str, _Node] = field(default_factory=dict)


class Terms:
    """A list of terms by category, found as whole words, the longest first."""

    def __init__(self, terms: Mapping[str, str]) -> None:
        """``terms``: term as the normaliser writes it → category."""
        self._root = _Node()
        for term, category in terms.items():
            node = self._root
            for word in term.split():
                node = node.next.setdefault(word, _Node())
            if node is not self._root:
                node.category = category

    def find(self, words: Sequence[str]) -> list[tuple[int, int, str]]:
        """``(first word, word after the last, category)`` of each term in ``words``; terms do not overlap."""
        found = []
        at = 0
        while at < len(words):
            node: _Node | None = self._root
            best = None
            for end in range(at, len(words)):
                node = node.next.get(words[end]) if node else None
                if node is None:
                    break
                if node.category is not None:
                    best = (at, end + 1, node.category)
            if best is None:
                at += 1
            else:
                found.append(best)
                at = best[1]
        return found

    def count(self, reference: str, hypothesis: str) -> dict[str, TermCount]:
        """By category. A term is found if all its words are aligned to the same words, with nothing between them."""
        said, heard = reference.split(), hypothesis.split()
        place = _same_places(said, heard)
        in_heard = {(first, last) for first, last, _ in self.find(heard)}
        counts: dict[str, TermCount] = {}
        for first, last, category in self.find(said):
            there = [place.get(index) for index in range(first, last)]
            start = there[0]
            after = -1 if start is None else start + last - first
            is_found = start is not None and there == list(range(start, after)) and (start, after) in in_heard
            counts[category] = counts.get(category, TermCount()) + TermCount(1, 0, int(is_found))
        for _, _, category in self.find(heard):
            counts[category] = counts.get(category, TermCount()) + TermCount(0, 1, 0)
        return counts


def _same_places(said: Sequence[str], heard: Sequence[str]) -> dict[int, int]:
    """Index of a reference word → index of the equal hypothesis word that it is aligned to."""
    place: dict[int, int] = {}
    first = second = 0
    for one, other in align(said, heard):
        if one is not None and one == other:
            place[first] = second
        first, second = first + (one is not None), second + (other is not None)
    return place


def sum_terms(counts: Iterable[Mapping[str, TermCount]]) -> dict[str, TermCount]:
    """By category, over recordings."""
    total: dict[str, TermCount] = {}
    for of_recording in counts:
        for category, count in of_recording.items():
            total[category] = total.get(category, TermCount()) + count
    return total
