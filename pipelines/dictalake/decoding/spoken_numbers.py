"""Digits → the English words that they are said with, for models that write no digits.

The way back, from words to digits, is ``transcript/number_words.py``; a room beside this one, which may not be imported here.
"""

from __future__ import annotations

import re

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((10**6, "million"), (10**3, "thousand"), (10**2, "hundred"))
_MOST_DIGITS = 9
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
# With a hyphen on either side, which is not said: COVID-19, 5-FU
_NUMBER = re.compile(r"[-‑–]?([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]+))?((?:st|nd|rd|th)\b)?[-‑–]?", re.IGNORECASE)


def spell_numbers(text: str) -> str:
    """``text`` with its numbers in words: ``HER2`` → ``HER two``, ``0.5 mg`` → ``zero point five mg``, ``5th`` → ``fifth``."""
    return " ".join(_NUMBER.sub(_spell_match, text).split())


def _spell_match(found: re.Match[str]) -> str:
    whole, decimals, ending = found.groups()
    words = spell_integer(whole.replace(",", ""))
    if decimals:
        words += ["point", *_spell_digits(decimals)]
    if ending:
        last = words[-1]
        words[-1] = _ORDINALS.get(last) or (f"{last[:-1]}ieth" if last in _TENS else f"{last}th")
    return f" {' '.join(words)} "


def spell_integer(digits: str) -> list[str]:
    """The words of a number; of one with a zero in front, or too long to be a number, those of its digits."""
    if len(digits) > _MOST_DIGITS or (digits.startswith("0") and len(digits) > 1):
        return _spell_digits(digits)
    return _spell_value(int(digits))


def _spell_digits(digits: str) -> list[str]:
    return [_SMALL[int(digit)] for digit in digits]


def _spell_value(value: int) -> list[str]:
    if value < len(_SMALL):
        return [_SMALL[value]]
    if value < 100:
        return [_TENS[value // 10 - 2], *([_SMALL[value % 10]] if value % 10 else [])]
    scale, name = next((scale, name) for scale, name in _SCALES if value >= scale)
    return [*_spell_value(value // scale), name, *(_spell_value(value % scale) if value % scale else [])]
