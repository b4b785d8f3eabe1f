"""Mistakes that may hurt patients: negations, numbers and sides that were dropped, added or swapped; and medical terms.

They are counted in the alignment of reference and hypothesis. So a "no" that moved to another finding is an error, although
both texts have one "no".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import jiwer
from rapidfuzz.distance import Levenshtein

_NEGATIONS = """no not without none never neither nor cannot denies denied deny negative absent absence nothing isn't aren't
wasn't weren't doesn't didn't don't hasn't haven't hadn't won't can't couldn't shouldn't non"""
NEGATIONS = frozenset(_NEGATIONS.split())
# Words that a prefix negates, as far as dictations have them; "non" before four letters and more does so in any word.
_PREFIXED = """unremarkable unlikely unable unaffected uncomplicated uninvolved unresponsive unaware unstable uneventful
asymptomatic afebrile atraumatic anicteric acyanotic aseptic asymmetric irregular irreducible irreversible irrelevant
incomplete inconclusive insignificant inadequate insensitive inconsistent immobile impalpable impossible imperceptible
indistinct indeterminate disconnected displeased discontinued"""
_PREFIXES = ("non", "un", "in", "im", "ir", "il", "dis", "an", "a")
_ONLY_LOOK_SO = """another around amount address increase increased discharge discharged discover impress improve improved
include"""
_NO_PREFIX = frozenset(_ONLY_LOOK_SO.split())
_LEAST_OF_STEM = 5  # letters: "a" before "part" makes no negation of it
_NON = re.compile(r"non[a-z]{4,}")
_FREE_OF = ("of", "from")  # "free of", but not "free fluid"
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
_MOST_CHOICES = 40_000  # a longer run of errors tells nothing
_DIGITS = re.compile(r"\d+(?:[.,/:]\d+)*(?:st|nd|rd|th|mg|ml|cm|mm|s|x|%)?")


Pair = tuple[str | None, str | None]  # said, heard


@dataclass(frozen=True)
class ClinicalCount:
    """Errors of each kind, and how many places of the reference could have one. ``swapped``: left for right or the reverse."""

    negations: int = 0
    negation_errors: int = 0
    numbers: int = 0
    number_errors: int = 0
    sides: int = 0
    laterality_errors: int = 0
    laterality_swapped: int = 0

    def __add__(self, other: ClinicalCount) -> ClinicalCount:
        return ClinicalCount(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """Pairs of words; None on the side where a word was inserted or deleted.

    The alignment is jiwer's, as for the counts of errors. It may be free to choose which of several words was replaced and
    which was dropped, as in "no left" heard as "right". Then words of one kind (negation, side, number) are paired, or else
    those spelt alike.
    """
    if not reference or not hypothesis:
        return [(word, None) for word in reference] + [(None, word) for word in hypothesis]
    pairs: list[Pair] = []
    said: list[str] = []
    heard: list[str] = []
    for chunk in jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]:
        if chunk.type == "equal":
            pairs += _pair_up(said, heard)
            pairs += [(word, word) for word in reference[chunk.ref_start_idx : chunk.ref_end_idx]]
            said, heard = [], []
        else:
            said += reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard += hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
    return pairs + _pair_up(said, heard)


def _pair_up(said: Sequence[str], heard: Sequence[str]) -> list[Pair]:
    """Aligns words that are all errors: replaces as many as possible, in order, and pairs those that are most alike."""
    if len(said) > len(heard):
        return [(one, other) for other, one in _pair_up(heard, said)]
    spare = len(heard) - len(said)
    if not said or not spare or len(said) * spare > _MOST_CHOICES:
        return list(zip_longest(said, heard))
    # best[i][s]: likeness of the first i words of the shorter side, with s words of the other side skipped so far
    best = [[0.0] * (spare + 1)]
    for index, word in enumerate(said):
        row: list[float] = []
        for skipped in range(spare + 1):
            paired = best[index][skipped] + _likeness(word, heard[index + skipped])
            row.append(max(paired, row[-1]) if row else paired)
        best.append(row)
    pairs: list[Pair] = []
    left, skipped = len(said), spare
    while left or skipped:
        if skipped and (not left or best[left][skipped] == best[left][skipped - 1]):
            pairs.append((None, heard[left + skipped - 1]))
            skipped -= 1
        else:
            pairs.append((said[left - 1], heard[left + skipped - 1]))
            left -= 1
    return pairs[::-1]


def _likeness(one: str, other: str) -> float:
    """How alike two words are: below 1 by spelling, most for words of one kind. Equal words are no error and never paired."""
    if one == other:
        return -100.0
    is_one_kind = (one in NEGATIONS and other in NEGATIONS) or (one in SIDES and other in SIDES)
    return 2.0 if is_one_kind or (is_number(one) and is_number(other)) else Levenshtein.normalized_similarity(one, other)


NEGATED_WORDS = frozenset(_PREFIXED.split())


def is_negated(word: str | None, following: str | None = None) -> bool:
    """Whether ``word`` negates, or is negated by its prefix; ``following`` is the next word of the same text."""
    if word is None:
        return False
    if word == "free":
        return following in _FREE_OF
    return word in NEGATIONS or word in NEGATED_WORDS or _NON.fullmatch(word) is not None


def _is_prefix_only(one: str | None, other: str | None) -> bool:
    """Whether ``one`` is ``other`` with a negating prefix: irregular, regular."""
    if one is None or other is None or len(other) < _LEAST_OF_STEM or one in _NO_PREFIX:
        return False
    return any(one == f"{prefix}{other}" for prefix in _PREFIXES)


def _find_negations(pairs: Sequence[Pair]) -> tuple[list[bool], list[bool]]:
    """Of each place of an alignment, whether what was said negates, and whether what was heard does."""
    flags: list[list[bool]] = []
    for side in (0, 1):
        words = [pair[side] for pair in pairs]
        of_side = []
        for place, word in enumerate(words):
            following = next((later for later in words[place + 1 :] if later is not None), None) if word == "free" else None
            of_side.append(is_negated(word, following) or _is_prefix_only(word, pairs[place][1 - side]))
        flags.append(of_side)
    return flags[0], flags[1]


def _say_the_same(pairs: Sequence[Pair], place: int) -> bool:
    """Whether the places ``place`` and the one after it are ``non tender`` for ``nontender``, or ``not tender``, either way."""
    if place < 0 or place + 1 >= len(pairs):
        return False
    (first, other), (word, heard) = pairs[place], pairs[place + 1]
    if first is None:
        return other in NEGATIONS and _is_prefix_only(word, heard)
    return other is None and first in NEGATIONS and _is_prefix_only(heard, word)


@dataclass(frozen=True)
class Mistake:
    """``kind``: negation, number or laterality. It spans the alignment from place ``first`` up to, but not at, ``last``."""

    kind: str
    first: int
    last: int
    is_swap: bool = False


def find_mistakes(pairs: Sequence[Pair]) -> list[Mistake]:
    """The mistakes of an alignment, in order. A swap of sides is one mistake; so is a number of which any word is wrong."""
    mistakes = []
    negated, heard_negated = _find_negations(pairs)
    for place, (said, heard) in enumerate(pairs):
        is_same = _say_the_same(pairs, place) or _say_the_same(pairs, place - 1)
        if negated[place] != heard_negated[place] and not is_same:
            mistakes.append(Mistake("negation", place, place + 1))
        sides = SIDES.get(said or ""), SIDES.get(heard or "")
        if sides[0] != sides[1]:
            mistakes.append(Mistake("laterality", place, place + 1, is_swap=None not in sides))
    for first, last in _find_numbers(pairs):
        if any(said != heard for said, heard in pairs[first:last]):
            mistakes.append(Mistake("number", first, last))
    return sorted(mistakes, key=lambda mistake: mistake.first)


def count_clinical(reference: str, hypothesis: str) -> ClinicalCount:
    """The errors in one pair of normalised texts."""
    pairs = align(reference.split(), hypothesis.split())
    mistakes = find_mistakes(pairs)
    errors = Counter(mistake.kind for mistake in mistakes)
    return ClinicalCount(
        negations=sum(_find_negations(pairs)[0]),
        negation_errors=errors["negation"],
        numbers=sum(any(is_number(said) for said, _ in pairs[first:last]) for first, last in _find_numbers(pairs)),
        number_errors=errors["number"],
        sides=sum(said in SIDES for said, _ in pairs),
        laterality_errors=errors["laterality"],
        laterality_swapped=sum(mistake.is_swap for mistake in mistakes),
    )


def _find_numbers(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Runs of places ``(first, one after the last)`` where either side has a number word. Each run is one number."""
    runs: list[tuple[int, int]] = []
    for place, (said, heard) in enumerate(pairs):
        if is_number(said) or is_number(heard):
            first = runs.pop()[0] if runs and runs[-1][1] == place else place
            runs.append((first, place + 1))
    return runs


def is_number(word: str | None) -> bool:
    """Whether ``word`` is a number word, or digits with or without a unit."""
    return word is not None and (word in _NUMBER_WORDS or _DIGITS.fullmatch(word) is not None)


@dataclass(frozen=True)
class TermCount:
    """Counts of medical terms: in the reference, in the hypothesis, and in both at the same place."""

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


@dataclass(frozen=True)
class TermErrors:
    """Word errors of medical terms: of the ``words`` of the terms in the reference those replaced and those lost; and the words
    of terms in the hypothesis that stand where no term was said."""

    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: TermErrors) -> TermErrors:
        return TermErrors(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass
class _Node:
    category: str | None = None
    next: dict[str, _Node] = field(default_factory=dict)


class Terms:
    """A list of terms by category, found as whole words, the longest first."""

    def __init__(self, terms: Mapping[str, str]) -> None:
        """``terms``: each term, as the normaliser writes it → its category."""
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

    def compare(self, reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
        """Term, category and outcome: each term of the reference (found or missed), then each additional term (added).

        A term is found if all its words are aligned to equal words that are the same term there, without a word between them.
        """
        said, heard = reference.split(), hypothesis.split()
        place = _same_places(said, heard)
        left = {(first, last): category for first, last, category in self.find(heard)}
        compared = []
        for first, last, category in self.find(said):
            there = [place.get(index) for index in range(first, last)]
            start = there[0]
            after = -1 if start is None else start + last - first
            is_found = start is not None and there == list(range(start, after)) and (start, after) in left
            if is_found and start is not None:
                del left[start, after]
            compared.append((" ".join(said[first:last]), category, "found" if is_found else "missed"))
        return compared + [(" ".join(heard[first:last]), category, "added") for (first, last), category in left.items()]

    def count_errors(self, reference: str, hypothesis: str, categories: Collection[str] | None = None) -> TermErrors:
        """Of one pair of normalised texts; ``categories``: only terms of these."""
        said, heard = reference.split(), hypothesis.split()
        in_said, in_heard = (self._mark(words, categories) for words in (said, heard))
        substitutions = deletions = insertions = first = second = 0
        for one, other in align(said, heard):
            is_term, is_heard_term = one is not None and in_said[first], other is not None and in_heard[second]
            substitutions += is_term and other is not None and one != other
            deletions += is_term and other is None
            insertions += is_heard_term and not is_term and one != other
            first, second = first + (one is not None), second + (other is not None)
        return TermErrors(sum(in_said), substitutions, deletions, insertions)

    def _mark(self, words: Sequence[str], categories: Collection[str] | None) -> list[bool]:
        marks = [False] * len(words)
        for first, last, category in self.find(words):
            if categories is None or category in categories:
                marks[first:last] = [True] * (last - first)
        return marks


def count_terms(compared: Iterable[tuple[str, str, str]]) -> dict[str, TermCount]:
    """The counts by category of what :meth:`Terms.compare` returns."""
    counts: dict[str, TermCount] = {}
    for _, category, outcome in compared:
        one = TermCount(int(outcome != "added"), int(outcome != "missed"), int(outcome == "found"))
        counts[category] = counts.get(category, TermCount()) + one
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
