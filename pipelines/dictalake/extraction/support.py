"""Whether the words of a dictation say what an item claims: its name, its unit and value, its side, its negation.

The quote was found in the text (``quotes``). Here the item is held against it, word by word:

- the words of the name, and of a value that is no number, stand in the quote; letter case, plurals and hyphens may differ;
- a unit follows its number there, in one of its spellings, spoken or written;
- a side stands in the clause of the name, or else in the quote, or in its sentence: else the item has none;
- negated: a word of the sentence negates the name; not negated: none does (``negation``);
- less than certain: a word of the sentence says so; certain: none before the name says otherwise; else it is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from dictalake.evaluation.clinical import NEGATIONS, SIDES
from dictalake.evaluation.entities import UNIT_NAMES
from dictalake.extraction.answer_schema import Finding, Item, LabValue, Medication
from dictalake.extraction.negation import is_ruled_out, list_tokens, negates_itself
from dictalake.extraction.quotes import Span, list_numbers, write_spoken
from dictalake.transcript.inverse_text_normalization import write_numbers

DROPPED = {
    "name_not_said": "the quote does not have the words of its name",
    "value_not_said": "the quote does not have the words of its value",
    "unit_not_said": "the quote does not say its unit after the number",
    "negation_not_said": "it is negated, and no word of its sentence negates its name",
    "negation_overlooked": "it is not negated, and words of its sentence negate its name",
}
BLANKED = {
    "side_not_said": "neither the quote nor its sentence says the side: the item has none",
    "certainty_not_said": "the words say another certainty: that of the item is unknown",
}
_BEFORE_CHARS, _AFTER_CHARS = 200, 120  # of a sentence without an end
_END = re.compile(r"[.!?](?=\s|$)|\n")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_PART = re.compile(r"[^\W_]+")
_AMOUNT = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[%°/]")
_STOP_WORDS = """a an and for from in of on or the to with"""
_STOP = frozenset(_STOP_WORDS.split())
_ENDINGS = ("ae", "es", "is", "us", "um", "s", "i", "a", "e")
_LEAST = 4  # letters that are left of a word without its ending
_WINDOW = 6  # words between a doubt and what it is about
_COMMA = re.compile(r"[,;]")
_NEAR = 4  # words between a name and one that says that it is no more
_GONE_WORDS = """resolved resolution clear cleared unlikely healed"""
_GONE = frozenset(_GONE_WORDS.split())
_APART = frozenset((",", ";", ":", "but", "with", "and", "or"))
_CLAUSE_WORDS = """but however although though except besides which while whereas yet apart aside , ; :"""
_CLAUSE = frozenset(_CLAUSE_WORDS.split())
_HEDGES_WORDS = """possible possibly probable probably likely may might could suspected suspicious suspicion suspect suggest
suggests suggesting suggestive question questionable concern concerning presumed presumably favor favors favored favoring
versus exclude excluded consistent compatible appears appear equivocal perhaps representing represent differential"""
_HEDGES = frozenset(_HEDGES_WORDS.split())
_CLEAR_HEDGES_WORDS = """possible possibly probable probably suspected questionable might equivocal perhaps"""
_CLEAR_HEDGES = frozenset(_CLEAR_HEDGES_WORDS.split())
_PHRASES = {
    re.compile(r"\bmm\s?hg\b|\bmillimet(?:er|re)s? of mercury\b"): "mmhg",
    re.compile(r"\b(?:beats|breaths) (?:per|a) minute\b|\bbpm\b"): "/min",
    re.compile(r"°|\bdegrees?\b(?= fahrenheit| celsius| centigrade| [fc]\b)|\bdeg\b"): " degree ",
    re.compile(r"\bdegrees?\s+(?:fahrenheit|f)\b"): "f",
    re.compile(r"\bdegrees?\s+(?:celsius|centigrade|c)\b"): "c",
    re.compile(r"\bper cent\b"): "%",
    re.compile(r"\binternational units?\b"): "iu",
}
_SAME = {"per": "/", "slash": "/", "u": "unit", "fahrenheit": "f", "celsius": "c", "centigrade": "c"}
_OF = frozenset(("kg", "dl", "l", "ml", "min", "h", "s", "m"))  # what makes another unit of one
_JOINERS = frozenset(("by", "x", "to", "and", "or", "×", "over", "/"))


@dataclass(frozen=True)
class Supported:
    """``item`` is None where it was dropped for the only one of ``reasons``; else these say what was blanked."""

    item: Item | None
    reasons: Sequence[str] = ()
    is_certainty_known: bool = True


def hold_against(item: Item, text: str, span: Span) -> Supported:
    """The item as far as the words at ``span`` of ``text``, and their sentence, support it."""
    quote, before, after = text[span.start : span.end], *_find_sentence(text, span)
    for reason, is_said in _list_claims(item, quote, before, after):
        if not is_said:
            return Supported(None, (reason,))
    reasons = []
    if isinstance(item, Finding):
        if item.side is not None and not _says_side(item, quote, before, after):
            item, reasons = item.model_copy(update={"side": None}), ["side_not_said"]
        if not _says_certainty(item, quote, before, after):
            return Supported(item, (*reasons, "certainty_not_said"), is_certainty_known=False)
    return Supported(item, reasons)


def _list_claims(item: Item, quote: str, before: str, after: str) -> Iterator[tuple[str, bool]]:
    if item.name != item.quote:
        yield "name_not_said", says_words(item.name, quote)
    if isinstance(item, LabValue):
        letters = " ".join(word for word in _PART.findall(item.value) if not word[0].isdigit())
        yield "value_not_said", not letters or says_words(letters, quote)
    unit = getattr(item, "unit", None)
    if unit:
        yield "unit_not_said", says_unit(unit, _number_of(item), quote)
    if isinstance(item, Finding | Medication):
        yield ("negation_not_said" if item.negated else "negation_overlooked"), _agrees(item, quote, before, after)


def _find_sentence(text: str, span: Span) -> tuple[str, str]:
    """What stands before the span and after it in its sentence."""
    start, end = max(0, span.start - _BEFORE_CHARS), span.end + _AFTER_CHARS
    begins = [match.end() for match in _END.finditer(text, start, span.start)]
    closing = _END.search(text, span.end - 1, end)
    return text[begins[-1] if begins else start : span.start], text[span.end : closing.start() if closing else end]


@cache
def _stem(word: str) -> str:
    """A word without the ending of its plural, English or Latin; also one that only looks so, the same in both texts."""
    word = word.casefold()
    if word.endswith("ies") and len(word) > _LEAST:
        return f"{word[:-3]}y"
    if word.endswith("ss"):
        return word
    ending = next((one for one in _ENDINGS if word.endswith(one) and len(word) - len(one) >= _LEAST), "")
    if not ending and word.endswith("s") and len(word) == _LEAST:  # legs
        ending = "s"
    return word.removesuffix(ending) if ending else word


def _list_stems(text: str) -> set[str]:
    """Of the words of a text, alone and joined with the next: an x ray is an xray."""
    words = [_stem(part) for part in _PART.findall(text)]
    plain = [part.casefold() for part in _PART.findall(text)]
    return {*words, *(_stem(one + other) for one, other in pairwise(plain))}


def says_words(name: str, quote: str) -> bool:
    """Whether all words of ``name`` that mean something stand in ``quote``."""
    spoken = quote.lower().replace("-", " ").split()
    there = _list_stems(quote) | _list_stems(" ".join(write_numbers([word.strip(".,;:()") for word in spoken])))
    parts = _PART.findall(name)
    wanted = [part for part in parts if part.casefold() not in _STOP] or parts
    if not wanted:
        return False
    place = 0
    while place < len(wanted):
        joined = _stem("".join(wanted[place : place + 2]))
        if _stem(wanted[place]) in there:
            place += 1
        elif place + 1 < len(wanted) and joined in there:
            place += 2
        else:
            return False
    return True


def _number_of(item: Item) -> float | None:
    for name in ("measurement", "dose", "number"):
        value = getattr(item, name, None)
        if value is not None:
            return float(value)
    return None


def says_unit(unit: str, number: float | None, quote: str) -> bool:
    """Whether ``quote`` has ``unit`` behind ``number``, or anywhere where the value is no number."""
    wanted = _read_amounts(unit)
    for written in write_spoken(quote):
        there = _read_amounts(written)
        for place, word in enumerate(there):
            if number is None:
                if _is_unit(wanted, there[place:]):
                    return True
            elif word[0].isdigit() and any(abs(one - number) < 1e-9 for one in list_numbers(word)):
                after = place + 1
                while after + 1 < len(there) and there[after] in _JOINERS and there[after + 1][0].isdigit():
                    after += 2  # 4.3 by 2 cm, but not the 2 of "2 5 mg tablets"
                if _is_unit(wanted, there[after:]):
                    return True
    return False


def _is_unit(wanted: Sequence[str], there: Sequence[str]) -> bool:
    """Whether ``there`` begins with the unit, whole: 15 mg/kg is not 15 mg; but 15 mg a day or a dose is."""
    if list(there[: len(wanted)]) != wanted:
        return wanted == ["degree"] and {*there[:1]} <= {"f", "c"}
    following = there[len(wanted) : len(wanted) + 2]
    return "/" in wanted or following[:1] != ["/"] or not _OF & {*following[1:]}


def _read_amounts(text: str) -> list[str]:
    """Numbers and words of a text; units in one spelling."""
    plain = re.sub(r"(?<=\d)\s*[-–]\s*(?=\d)", " to ", text.casefold())
    for pattern, name in _PHRASES.items():
        plain = pattern.sub(name, plain)
    plain = re.sub(r"(?<!\d)\.(?=\d)", "0.", plain)
    words = [_SAME.get(word, word) for word in _AMOUNT.findall(plain)]
    return [UNIT_NAMES.get(word, _stem(word)) for word in words]


def _says_side(item: Finding, quote: str, before: str, after: str) -> bool:
    """Of "the left lung is clear, the right has an effusion" the effusion is on the right: its own clause comes first."""
    first, last = _find_name(item.name, quote)
    clause = _COMMA.split(f"{before}{quote[:first]}")[-1] + quote[first:last] + _COMMA.split(f"{quote[last:]}{after}")[0]
    whole = _list_sides(quote) or _list_sides(f"{before} {quote} {after}")
    if item.side == "bilateral":
        return "both" in whole or {"left", "right"} <= whole
    return item.side in (_list_sides(clause) or whole)


def _list_sides(text: str) -> set[str]:
    words = {word.casefold() for word in _PART.findall(text)}
    return {SIDES[word] for word in words & SIDES.keys()} | ({"midline"} if words & {"midline", "central"} else set())


def _agrees(item: Finding | Medication, quote: str, before: str, after: str) -> bool:
    """Whether the words negate the item as it says. They need not: a name such as "unremarkable" negates itself."""
    own = {part.casefold() for part in _PART.findall(item.name)}
    first, last = _find_name(item.name, quote)
    left = list_tokens(_END.split(f"{before} {quote[:first]}")[-1])
    right = list_tokens(_END.split(f"{quote[last:]} {after}")[0])
    is_out = is_ruled_out(left, right, own, of_drug=isinstance(item, Medication), is_lenient=item.negated)
    if item.negated:
        return is_out or negates_itself(own) or _says_gone(left, right)
    return not is_out


def _says_gone(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether a word beside the name, in its own clause, says that it is no more: "has resolved", but no "has not resolved"."""
    begin = next((place for place in range(len(left), 0, -1) if left[place - 1] in _APART), 0)
    end = next((place for place, word in enumerate(right) if word in _APART), len(right))
    return any(
        word in _GONE and not NEGATIONS & {*words[max(0, place - 3) : place]}
        for words in (left[begin:][-_NEAR:], right[:end][:_NEAR])
        for place, word in enumerate(words)
    )


def _find_name(name: str, quote: str) -> tuple[int, int]:
    """Where the words of the name begin and end in the quote."""
    wanted = {_stem(part) for part in _PART.findall(name) if part.casefold() not in _STOP}
    places = [match.span() for match in _PART.finditer(quote) if _stem(match[0]) in wanted]
    return (places[0][0], places[-1][1]) if places else (0, len(quote))


def _says_certainty(item: Finding, quote: str, before: str, after: str) -> bool:
    if item.certainty != "certain":
        return bool(_HEDGES & {*list_tokens(f"{before} {quote} {after}")}) or "?" in f"{quote}{after}"
    left = list_tokens(f"{before} {quote[: _find_name(item.name, quote)[0]]}")
    start = next((place + 1 for place in reversed(range(len(left))) if left[place] in _CLAUSE), 0)
    return not _CLEAR_HEDGES & {*left[start:][-_WINDOW:]}
