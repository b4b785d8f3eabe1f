"""Formatted entities of a clinical text: doses, measurements, dates and vertebral levels, each with its value and its unit.

Reference and hypothesis are first written by the formatter of the pipeline, which turns spoken numbers into digits, so
``twenty five milligrams`` and ``25 mg`` are the same. An entity is right if kind, value and unit are. Entities are matched in
the order of the text (a longest common subsequence): two doses that changed places are not both right.

What the formatter leaves in words (``two and a half milligrams``) is no entity, on either side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from rapidfuzz.distance import LCSseq

from dictalake.evaluation.clinical import TermCount
from dictalake.transcript.formatting import format_text

KINDS = ("date", "dose", "level", "measurement")
_DOSES = {
    "mg": ("mg", "milligram", "milligrams", "mgs"),
    "mcg": ("mcg", "µg", "μg", "ug", "microgram", "micrograms"),
    "ng": ("ng", "nanogram", "nanograms"),
    "g": ("g", "gram", "grams", "gm"),
    "unit": ("unit", "units", "iu"),
    "meq": ("meq", "milliequivalent", "milliequivalents"),
    "tablet": ("tablet", "tablets", "tab", "tabs"),
    "puff": ("puff", "puffs"),
    "drop": ("drop", "drops"),
}
_MEASURES = {
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "ml": ("ml", "mls", "milliliter", "milliliters", "millilitre", "millilitres", "cc", "ccs"),
    "l": ("l", "liter", "liters", "litre", "litres"),
    "kg": ("kg", "kilogram", "kilograms", "kilos"),
    "lb": ("lb", "lbs", "pound", "pounds"),
    "%": ("%", "percent", "per cent"),
    "mmhg": ("mmhg", "mm hg", "millimeters of mercury"),
    "bpm": ("bpm", "beats per minute"),
    "degree": ("°", "degree", "degrees"),
    "mmol": ("mmol", "millimole", "millimoles"),
    "french": ("french", "fr"),
}
_UNITS = {spelling: name for table in (_DOSES, _MEASURES) for name, spellings in table.items() for spelling in spellings}
_PER = {
    "min": ("minute", "minutes", "min"),
    "h": ("hour", "hours", "hr", "h"),
    "day": ("day", "days"),
    "kg": ("kg", "kilogram"),
    "dl": ("dl", "deciliter", "decilitre"),
    "ml": ("ml", "milliliter", "millilitre"),
    "l": ("l", "liter", "litre"),
    "s": ("second", "seconds", "s", "sec"),
}
_DENOMINATORS = {spelling: name for name, spellings in _PER.items() for spelling in spellings}
UNIT_NAMES = {**_DENOMINATORS, **_UNITS}  # each spelling of a unit, in lower case → its name
_MONTHS = {
    name: place
    for place, names in enumerate(
        (
            *(("january", "jan"), ("february", "feb"), ("march", "mar"), ("april", "apr"), ("may",), ("june", "jun")),
            *(("july", "jul"), ("august", "aug"), ("september", "sept", "sep"), ("october", "oct"), ("november", "nov")),
            ("december", "dec"),
        ),
        1,
    )
    for name in names
}


def _any_of(spellings: Sequence[str]) -> str:
    return "|".join(re.escape(one) for one in sorted(spellings, key=len, reverse=True))


_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER = rf"{_PLAIN}/{_PLAIN}|{_PLAIN}"  # 1/2 tablet, 5/325 mg
_UNIT = rf"(?:{_any_of(tuple(_UNITS))})(?![a-z0-9])"
_MONTH = _any_of(tuple(_MONTHS))
_DATE = re.compile(
    rf"\b(?P<month>{_MONTH})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<year>\d{{4}}))?\b(?!\s?{_UNIT})"
    rf"|\b(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<month2>{_MONTH})\.?(?:,? (?P<year2>\d{{4}}))?\b"
    rf"|\b(?P<month3>{_MONTH})\.?(?: of)? (?P<year3>\d{{4}})\b"
    r"|\b(?P<month4>\d{1,2})/(?P<day4>\d{1,2})/(?P<year4>\d{4}|\d{2})\b"
    r"|\b(?P<year5>\d{4})-(?P<month5>\d{2})-(?P<day5>\d{2})\b"
)
_LEVEL = re.compile(r"\b(?P<letter>[ctls])(?P<first>\d{1,2})(?:\s?[-/–]\s?(?P<other>[ctls]?)(?P<second>\d{1,2}))?\b")
_PRESSURE = re.compile(
    rf"(?<![\d./])(?P<upper>\d{{2,3}})/(?P<lower>\d{{2,3}})(?![\d/])(?:\s?(?:{_any_of(_MEASURES['mmhg'])})|(?!\s?{_UNIT}))"
)
_MEASURE = re.compile(
    rf"(?<![\w./])(?P<numbers>(?:{_NUMBER})(?:\s?(?:{_UNIT})?\s?(?:x|×|by|to|-|–)\s?(?:{_NUMBER}))*)\s?(?P<unit>{_UNIT})"
    rf"(?:\s?(?:/|per |a |an )(?P<per>(?:{_any_of(tuple(_DENOMINATORS))})(?![a-z0-9])))?"
)
_BETWEEN = re.compile(rf"\s?(?:{_UNIT})?\s?(x|×|by|to|-|–)\s?")
_LAST = {"c": 7, "t": 12, "l": 5, "s": 5}


@dataclass(frozen=True)
class Entity:
    """``value`` and ``unit`` in one spelling: ``4.3x2`` and ``cm``, ``2024-03-09`` and nothing, ``L3-L4`` and nothing."""

    kind: str
    value: str
    unit: str = ""


def find_entities(text: str) -> list[Entity]:
    """The entities of a raw or readable text, in its order."""
    written = " ".join(format_text(text, numbers=True).text.lower().split())
    found: list[tuple[int, Entity]] = []
    for pattern, read in _READERS:
        for match in pattern.finditer(written):
            entity = read(match)
            if entity is not None:
                found.append((match.start(), entity))
                written = f"{written[: match.start()]}{'#' * (match.end() - match.start())}{written[match.end() :]}"
    return [entity for _, entity in sorted(found, key=lambda one: one[0])]


def compare_entities(reference: str, hypothesis: str) -> dict[str, TermCount]:
    """By kind: said, heard and found, of two texts as they were given, not normalised."""
    said, heard = find_entities(reference), find_entities(hypothesis)
    found = [
        said[place]
        for operation in LCSseq.opcodes(said, heard)
        if operation.tag == "equal"
        for place in range(operation.src_start, operation.src_end)
    ]
    return {
        kind: TermCount(*(sum(entity.kind == kind for entity in entities) for entities in (said, heard, found)))
        for kind in KINDS
    }


def _read_date(match: re.Match[str]) -> Entity | None:
    parts = {name.rstrip("2345"): value for name, value in match.groupdict().items() if value is not None}
    month = parts["month"]
    number = int(month) if month.isdigit() else _MONTHS[month]
    day = int(parts.get("day", 0))
    if not (1 <= number <= 12 and day <= 31):
        return None
    year = parts.get("year", "")
    year = f"20{year}" if len(year) == 2 else year
    return Entity("date", "-".join((year, f"{number:02d}", *([f"{day:02d}"] if day else []))))


def _read_level(match: re.Match[str]) -> Entity | None:
    letter, first = match["letter"], int(match["first"])
    if not 1 <= first <= _LAST[letter]:
        return None
    name = f"{letter}{first}".upper()
    if match["second"] is None:
        return Entity("level", name)
    other = match["other"] or letter
    second = int(match["second"])
    return Entity("level", f"{name}-{other}{second}".upper()) if 1 <= second <= _LAST[other] else None


def _read_pressure(match: re.Match[str]) -> Entity | None:
    upper, lower = int(match["upper"]), int(match["lower"])
    return Entity("measurement", f"{upper}/{lower}", "mmhg") if 60 <= upper <= 300 and 20 <= lower < upper else None


def _read_measure(match: re.Match[str]) -> Entity:
    unit = _UNITS[match["unit"]]
    numbers = [_plain(one) for one in re.findall(_NUMBER, match["numbers"])]
    between = _BETWEEN.search(match["numbers"])
    sign = "x" if between and between[1] in ("x", "×", "by") else "-"
    is_dose = unit in _DOSES and _DENOMINATORS.get(match["per"] or "") not in ("dl", "ml", "l")  # those are of a laboratory
    kind = "dose" if is_dose else "measurement"
    per = f"/{_DENOMINATORS[match['per']]}" if match["per"] else ""
    return Entity(kind, sign.join(numbers), f"{unit}{per}")


def _plain(number: str) -> str:
    return "/".join(f"{Decimal(one).normalize():f}" for one in number.replace(",", "").split("/"))


# In this order: what one takes, the next does not see.
_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Entity | None]], ...] = (
    (_DATE, _read_date),
    (_PRESSURE, _read_pressure),
    (_MEASURE, _read_measure),
    (_LEVEL, _read_level),
)
