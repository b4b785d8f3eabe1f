"""The words for numbers, units, dates and vertebrae, and functions that read spoken numbers.

text2num reads the cardinals. It refuses runs that are not one number (``one twenty``), and so does :func:`read_number`: an
unsure number stays in words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from text_to_num import text2num

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ("hundred", "thousand", "million")
SMALL = {word: value for value, word in enumerate(_UNITS + _TEENS)}
_CARDINALS = frozenset((*_UNITS, *_TEENS, *_TENS, *_SCALES))
_IRREGULAR = {
    "first": "one",
    "second": "two",
    "third": "three",
    "fifth": "five",
    "eighth": "eight",
    "ninth": "nine",
    "twelfth": "twelve",
}
_ORDINALS = {
    **{f"{word}th": word for word in (*_UNITS[1:], *_TEENS) if word not in _IRREGULAR.values()},
    **{f"{word[:-1]}ieth": word for word in _TENS},
    **_IRREGULAR,
}
_DIGITS = re.compile(r"\d{1,6}(?:\.\d+)?|\d{1,3}(?:,\d{3})+")

MONTHS = frozenset(
    ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"]
)
# Spoken → written; plurals add "s". Units that style guides write differently stay in words.
SYMBOLS = {
    "milligram": "mg",
    "microgram": "mcg",
    "nanogram": "ng",
    "picogram": "pg",
    "gram": "g",
    "kilogram": "kg",
    "milliliter": "mL",
    "millilitre": "mL",
    "deciliter": "dL",
    "liter": "L",
    "litre": "L",
    "millimeter": "mm",
    "millimetre": "mm",
    "centimeter": "cm",
    "centimetre": "cm",
    "meter": "m",
    "metre": "m",
    "milliequivalent": "mEq",
    "millimole": "mmol",
    "percent": "%",
    **{symbol.lower(): symbol for symbol in ("mg", "mcg", "ng", "kg", "mL", "dL", "mm", "cm", "mEq", "mmol")},
}
UNITS_IN_WORDS = frozenset(("unit", "cc", "micron", "hounsfield", "millicurie", "gray", "tablet", "capsule", "puff", "drop"))
# Before these, one stays a word: one day, one dose, one foot in front of the other.
COUNTED = frozenset(
    [
        "day",
        "week",
        "month",
        "year",
        "hour",
        "minute",
        "dose",
        "pill",
        "time",
        "beat",
        "inch",
        "foot",
        "feet",
        "pound",
        "ounce",
        "degree",
        "liter",
        "view",
        "vessel",
        "pack",
        "lead",
    ]
) | {"seconds"}
SPINE = frozenset(
    [
        "disc",
        "disk",
        "discs",
        "level",
        "levels",
        "vertebra",
        "vertebrae",
        "vertebral",
        "interspace",
        "interspaces",
        "facet",
        "facets",
        "foramen",
        "foramina",
        "neural",
        "nerve",
        "nerves",
        "root",
        "roots",
        "radiculopathy",
        "dermatome",
        "myotome",
        "laminectomy",
        "fusion",
        "discectomy",
    ]
)
LAST_VERTEBRA = {"c": 8, "t": 12, "l": 6, "s": 5}


@dataclass(frozen=True)
class Number:
    """A number ``written`` in digits; its words go up to ``end``. ``small``: one word below ten, which prose leaves a word."""

    written: str
    value: float
    end: int
    small: bool = False


def key(word: str) -> str:
    return word.lower()


def is_cardinal(word: str) -> bool:
    """``twenty`` or ``twenty-four``."""
    return all(part in _CARDINALS for part in key(word).split("-"))


def run_end(words: Sequence[str], start: int, with_and: bool = True) -> int:
    """The end of the longest run of number words from ``start``; "and" belongs to it only as in ``one hundred and two``."""
    end = start
    while end < len(words):
        joins = key(words[end]) == "and" and with_and and end > start and key(words[end - 1]) in _SCALES
        if not (is_cardinal(words[end]) or _DIGITS.fullmatch(words[end]) or (joins and at(words, end + 1, is_cardinal))):
            break
        end += 1
    return end


def at(words: Sequence[str], index: int, test: object) -> bool:
    """Whether there is a word at ``index`` that passes ``test``: a word, a set of words, or a predicate."""
    if not 0 <= index < len(words):
        return False
    word = key(words[index])
    if callable(test):
        return bool(test(word))
    return word in test if isinstance(test, frozenset | set | dict | tuple) else word == test


def read_cardinal(run: Sequence[str]) -> int | None:
    """The value of ``run``; None if it is not one number."""
    said = " ".join(run).lower().replace("-", " ")
    words = said.split()
    if not words or words[0] in _SCALES or ("zero" in words and len(words) > 1):
        return None
    try:
        return int(text2num(said, "en"))
    except ValueError:
        return None


def read_number(words: Sequence[str], start: int, with_and: bool = True) -> Number | None:
    """The number that begins at ``start``, with its decimals; None if there is none or it is unsure."""
    end = run_end(words, start, with_and)
    if end == start:
        return None
    if at(words, end, "oh") and at(words, end + 1, is_cardinal):
        return _read_after_oh(words, start, end)
    if _DIGITS.fullmatch(words[start]):
        return Number(words[start], float(words[start].replace(",", "")), end) if end == start + 1 else None
    value = read_cardinal(words[start:end])
    if value is None:
        return None
    if at(words, end, "point"):
        return _read_decimals(words, end + 1, value)
    # Without the comma, people misread a dose of 10,000 as 1000 (ISMP's list of error-prone notations).
    return Number(f"{value:,}", float(value), end, small=value < 10)


def _read_after_oh(words: Sequence[str], start: int, oh: int) -> Number | None:
    """``one oh two point five`` → 102.5. Without decimals it could be a time or a room."""
    if (
        oh != start + 1
        or not at(words, start, _UNITS[1:])
        or not at(words, oh + 1, _UNITS[1:])
        or not at(words, oh + 2, "point")
    ):
        return None
    return _read_decimals(words, oh + 3, 100 * SMALL[key(words[start])] + SMALL[key(words[oh + 1])])


def read_fraction(words: Sequence[str], start: int) -> Number | None:
    """``point five`` → 0.5, with ``start`` at "point"."""
    return _read_decimals(words, start + 1, 0)


def _read_decimals(words: Sequence[str], start: int, whole: int) -> Number | None:
    """Reads digits spoken one by one, or as one number: ``point two five``, ``point twenty five``. ``start`` is after
    "point"."""
    end = start
    while end < len(words) and (is_cardinal(words[end]) or (key(words[end]) == "oh" and at(words, end + 1, is_cardinal))):
        end += 1
    run = ["zero" if key(word) == "oh" else key(word) for word in words[start:end]]
    if run and all(word in _UNITS for word in run):
        digits = "".join(str(SMALL[word]) for word in run)
    else:
        value = read_cardinal(run)
        digits = "" if value is None or value > 99 else str(value)
    return Number(f"{whole:,}.{digits}", float(f"{whole}.{digits}"), end) if digits else None


def read_spoken_hundreds(words: Sequence[str], start: int) -> Number | None:
    """Reads a number as people speak blood pressures: ``one twenty``, ``one oh five``, ``ninety``, ``one hundred and five``."""
    for end in range(min(start + 3, len(words)), start + 1, -1):
        rest = [key(word) for part in words[start + 1 : end] for word in part.split("-")]
        if rest[0] == "oh" and len(rest) == 2 and rest[1] in _UNITS:
            rest = rest[1:]
        elif rest[0] in _UNITS or rest[0] in _SCALES:
            continue
        tail = read_cardinal(rest)
        if at(words, start, ("one", "two")) and tail is not None and tail < 100 and not at(words, end, is_cardinal):
            value = 100 * SMALL[key(words[start])] + tail
            return Number(str(value), value, end)
    return read_number(words, start)


def read_year(words: Sequence[str], start: int) -> Number | None:
    """Reads a year from 1900 to 2099: ``twenty twenty four``, ``nineteen oh five``, ``two thousand and five``, ``2024``."""
    end = run_end(words, start)
    run = [key(word) for part in words[start:end] for word in part.split("-")]
    if at(words, end, "oh") and at(words, end + 1, is_cardinal) and run in (["nineteen"], ["twenty"]):
        tail = read_cardinal(words[end + 1 : end + 2])
        value, end = None if tail is None or tail > 9 else (1900 if run == ["nineteen"] else 2000) + tail, end + 2
    elif run[:1] in (["nineteen"], ["twenty"]) and (tail := read_cardinal(run[1:])) is not None and 10 <= tail < 100:
        value = (1900 if run[0] == "nineteen" else 2000) + tail
    elif end == start + 1 and re.fullmatch(r"\d{4}", words[start]):
        value = int(words[start])
    else:
        value = read_cardinal(run) if run[:2] == ["two", "thousand"] else None
    return Number(str(value), value, end) if value is not None and 1900 <= value < 2100 else None


def read_ordinal(words: Sequence[str], start: int) -> Number | None:
    """``fifth``, ``twenty first`` → 5th, 21st."""
    for end in (start + 2, start + 1):
        parts = [key(part) for word in words[start:end] for part in word.split("-")]
        if end > len(words) or not parts or parts[-1] not in _ORDINALS:
            continue
        value = read_cardinal([*parts[:-1], _ORDINALS[parts[-1]]])
        if value is not None and (end == start + 1 or value > 20):
            return Number(f"{value}{_ending(value)}", value, end)
    return None


def _ending(value: int) -> str:
    return "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
