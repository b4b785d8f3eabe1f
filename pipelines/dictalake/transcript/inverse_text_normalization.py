"""Spoken numbers → digits: doses, sizes, ranges, dates, ages, pressures, vertebral levels (inverse text normalisation).

text2num reads the cardinals (``number_words.py``). The rules here decide which of them become digits. They cover what general
libraries get wrong in medicine: these write the pressure *one twenty over eighty* as a time of day. A rule that is not sure
leaves the words as they are. As in prose, numbers below ten stay words unless they measure or count something.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from dictalake.transcript.number_words import (
    COUNTED,
    LAST_VERTEBRA,
    MONTHS,
    SMALL,
    SPINE,
    SYMBOLS,
    UNITS_IN_WORDS,
    Number,
    at,
    is_cardinal,
    key,
    read_fraction,
    read_number,
    read_ordinal,
    read_spoken_hundreds,
    read_year,
    run_end,
)

_Written = tuple[list[str], int]  # words as written, and the index of the next word
_BEFORE_DATES = frozenset(
    ["on", "of", "by", "since", "until", "till", "from", "dated", "through", "before", "after", "and", "to"]
)
_BEFORE_YEARS = frozenset(["in", "since", "early", "late", "circa", "year"])
_NO_LEVEL_AFTER = frozenset(
    ["hepatitis", "vitamin", "protein", "type", "grade", "group", "class", "stage", "influenza", "factor", "section"]
)
_CHANGES = re.compile(r"from|(increas|decreas|reduc|titrat|chang|taper|lower|rais|advanc|go|went|wean)\w*")
_SCORED = frozenset(["murmur", "strength", "pain", "motor"])


def write_numbers(words: Sequence[str], *, measured: bool = False) -> list[str]:
    """``words`` with their numbers as digits; ``measured`` says that a sign of measure follows the last word.

    >>> write_numbers("one of two lesions measures two point five centimeters".split())
    ['one', 'of', 'two', 'lesions', 'measures', '2.5', 'cm']
    """
    written: list[str] = []
    index = 0
    while index < len(words):
        found = next((result for rule in _RULES if (result := rule(words, index))), None)
        if found is None and measured and (number := read_number(words, index)) and number.end == len(words):
            found = [number.written], number.end
        if found is None:
            # If no rule takes a run of number words, none takes a part of it, before or after "oh" and "point".
            end = max(run_end(words, index), index + 1)
            while at(words, end - 1, is_cardinal) and at(words, end, ("oh", "point")) and at(words, end + 1, is_cardinal):
                end = run_end(words, end + 1)
            found = list(words[index:end]), end
        written += found[0]
        index = found[1]
    return written


def _levels(words: Sequence[str], start: int) -> _Written | None:
    """``l four l five`` → L4-L5, ``c five six`` → C5-6, ``t twelve`` → T12."""
    levels: list[tuple[str, int]] = []
    short = False
    end = start
    while at(words, end, LAST_VERTEBRA) and at(words, end + 1, SMALL):
        letter, number = key(words[end]), SMALL[key(words[end + 1])]
        if not 1 <= number <= LAST_VERTEBRA[letter]:
            return None
        levels.append((letter, number))
        end += 2
    if len(levels) == 1 and at(words, end, SMALL) and SMALL[key(words[end])] == levels[0][1] + 1 <= LAST_VERTEBRA[levels[0][0]]:
        levels.append((levels[0][0], levels[0][1] + 1))
        end, short = end + 1, True
    if not levels or at(words, start - 1, _NO_LEVEL_AFTER) or _goes_on(words, end):
        return None
    spine = at(words, end, SPINE) or at(words, start - 1, SPINE)
    names = [f"{letter.upper()}{number}" for letter, number in levels]
    if levels[0][0] == "s" and not (spine or levels == [("s", 1), ("s", 2)]):
        return None  # "patient's one complaint", with a spoken apostrophe
    if not short and len(levels) == 2 and _are_neighbours(*levels) and (spine or levels[0] not in (("s", 1), ("t", 1))):
        return ["-".join(names)], end  # without a disc, S1 S2 may be heart sounds, and T1 T2 may be MR weightings
    return ([f"{names[0]}-{levels[1][1]}"] if short else names), end


def _goes_on(words: Sequence[str], end: int) -> bool:
    """Whether the next words make the number before them a count or a size: ``hepatitis c two weeks ago``."""
    if at(words, end, ("to", "or", "by", "through")) and at(words, end + 1, is_cardinal):
        return True
    return at(words, end, is_cardinal) or at(words, end, ("point", "of", "over")) or _unit(words, end, one=False) is not None


def _are_neighbours(upper: tuple[str, int], lower: tuple[str, int]) -> bool:
    junctions = {("c", 7): ("t", 1), ("t", 12): ("l", 1), ("l", 5): ("s", 1)}
    return lower in (junctions.get(upper), (upper[0], upper[1] + 1))


def _named_letters(words: Sequence[str], start: int) -> _Written | None:
    """``a one c`` → A1c, ``vitamin b twelve`` → vitamin B12."""
    if at(words, start, "a") and at(words, start + 1, "one") and at(words, start + 2, "c"):
        return ["A1c"], start + 3
    if at(words, start - 1, "vitamin") and at(words, start, ("b", "d", "k")) and at(words, start + 1, SMALL):
        number = SMALL[key(words[start + 1])]
        return None if _goes_on(words, start + 2) else ([f"{words[start].upper()}{number}"], start + 2)
    return None


def _pressure(words: Sequence[str], start: int) -> _Written | None:
    """``one twenty over eighty`` → 120/80."""
    upper = read_spoken_hundreds(words, start)
    if upper is None or not at(words, upper.end, "over"):
        return None
    lower = read_spoken_hundreds(words, upper.end + 1)
    if lower is None or not (60 <= upper.value <= 300 and 20 <= lower.value <= 200 and upper.value > lower.value):
        return None
    if at(words, lower.end, "millimeters") and at(words, lower.end + 1, "of") and at(words, lower.end + 2, "mercury"):
        return [f"{upper.written}/{lower.written}", "mmHg"], lower.end + 3
    # "One hundred over sixty minutes" is the rate of an infusion.
    return None if _unit(words, lower.end, one=False) else ([f"{upper.written}/{lower.written}"], lower.end)


def _score(words: Sequence[str], start: int) -> _Written | None:
    """``two out of six murmur`` → 2/6 murmur; ``five over five strength``."""
    upper = read_number(words, start)
    if upper is None:
        return None
    gap = 2 if at(words, upper.end, "out") and at(words, upper.end + 1, "of") else 1 if at(words, upper.end, "over") else 0
    lower = read_number(words, upper.end + gap) if gap else None
    if lower is None or not 0 <= upper.value <= lower.value <= 10:
        return None
    said = [key(word) for word in (*words[max(0, start - 3) : start], *words[lower.end : lower.end + 2])]
    return ([f"{upper.written}/{lower.written}"], lower.end) if _SCORED & set(said) else None


def _date(words: Sequence[str], start: int) -> _Written | None:
    """``january fifth twenty twenty four`` → January 5, 2024; ``the fifth of january``; ``in nineteen ninety eight``."""
    if at(words, start - 1, _BEFORE_YEARS) and (year := read_year(words, start)):
        plain = read_number(words, start)
        # "In two thousand patients" is no year. Only a year is spoken in halves, or is followed by nothing that is counted.
        return None if (plain and plain.value % 100 == 0) or _unit(words, year.end, one=False) else ([year.written], year.end)
    if at(words, start, MONTHS):
        return _month_first(words, start)
    day = read_ordinal(words, start)
    if day and day.value <= 31 and at(words, day.end, "of") and at(words, day.end + 1, MONTHS):
        year = read_year(words, day.end + 2)
        written = [day.written, "of", words[day.end + 1].capitalize()]
        return ([*written, year.written], year.end) if year else (written, day.end + 2)
    return None


def _month_first(words: Sequence[str], start: int) -> _Written | None:
    month = words[start].capitalize()
    # May and march are verbs too.
    verb = month in ("May", "March") and start > 0 and not at(words, start - 1, _BEFORE_DATES)
    day = read_ordinal(words, start + 1) or _day_before_year(words, start + 1)
    if day and day.value <= 31:
        year = read_year(words, day.end)
        if year:
            return [month, f"{day.value:.0f},", year.written], year.end
        unsure = verb or at(words, day.end, is_cardinal) or at(words, day.end, str.isdigit)
        return None if unsure else ([month, f"{day.value:.0f}"], day.end)
    year = read_year(words, start + 1)
    return ([month, year.written], year.end) if year and not day and not verb else None


def _day_before_year(words: Sequence[str], start: int) -> Number | None:
    """``five twenty twenty four``: a cardinal is a day only if a year follows."""
    for end in (start + 2, start + 1):
        number = read_number(words[:end], start)
        if number and number.end == end and 1 <= number.value <= 31 and read_year(words, end):
            return number
    return None


def _age(words: Sequence[str], start: int) -> _Written | None:
    """``fifty four year old`` → 54-year-old."""
    number = read_number(words, start)
    if number is None or "." in number.written:
        return None
    if at(words, number.end, ("year", "month", "week", "day")) and at(words, number.end + 1, ("old", "olds")):
        return ["-".join([number.written, *words[number.end : number.end + 2]])], number.end + 2
    if at(words, number.end, ("year-old", "month-old", "week-old", "day-old")):
        return [f"{number.written}-{words[number.end]}"], number.end + 1
    return None


def _measure(words: Sequence[str], start: int) -> _Written | None:
    """``three by four by five millimeters``, ``two to three centimeters``, ``one or two tablets``, ``point five grams``."""
    numbers, joints = _joined_numbers(words, start)
    if not numbers:
        return None
    unit = _unit(words, numbers[-1].end, one=len(numbers) == 1 and numbers[0].value == 1)
    if unit is None:
        small = any(number.small for number in numbers)
        # "Five to ten" stays in words: nothing says what they count.
        bare = any(at(words, point, "point") for point in (start, *(number.end + 1 for number in numbers[:-1])))
        return (list(words[start : numbers[-1].end]), numbers[-1].end) if bare or (joints and small) else None
    written = [numbers[0].written]
    for (left, right), joint in zip(pairwise(numbers), joints, strict=True):
        change = left.value >= right.value or any(_CHANGES.fullmatch(key(word)) for word in words[max(0, start - 6) : start])
        if joint in ("to", "through") and not change:
            written[-1] += f"-{right.written}"
        else:
            written += ["x" if joint == "by" else joint, right.written]
    end = numbers[-1].end + unit[1]
    return ([*written[:-1], f"{written[-1]}%"] if unit[0] == "%" else [*written, unit[0]]), end


def _joined_numbers(words: Sequence[str], start: int) -> tuple[list[Number], list[str]]:
    """Numbers from ``start`` on with one kind of word between them: by (two or three), to, through, or, between … and."""
    between = at(words, start - 1, "between")
    numbers: list[Number] = []
    joints: list[str] = []
    # Put a zero before a bare point: people misread .5 as 5 (ISMP).
    number = read_fraction(words, start) if at(words, start, "point") else read_number(words, start, with_and=not between)
    while number:
        numbers.append(number)
        joint = key(words[number.end]) if number.end < len(words) else ""
        allowed = joint in ("by", "to", "through", "or") or (joint == "and" and between)
        following = number.end + 1
        read = read_fraction if at(words, following, "point") else read_number
        number = read(words, following) if allowed and len(numbers) < (3 if joint == "by" else 2) else None
        joints += [joint] if number else []
    if len(set(joints)) > 1:
        return [], []
    return numbers, joints


def _unit(words: Sequence[str], index: int, one: bool) -> tuple[str, int] | None:
    """The unit at ``index`` as written, and its number of words. ``one``: units that are counted but not measured do not
    apply."""
    if at(words, index, "per") and at(words, index + 1, "cent"):
        return "%", 2
    singular = _singular(words, index)
    if singular is None:
        return None
    symbol = SYMBOLS.get(singular)
    if symbol == "mm" and at(words, index + 1, "of") and at(words, index + 2, "mercury"):
        return "mmHg", 3
    per = SYMBOLS.get(_singular(words, index + 2) or "") if at(words, index + 1, "per") else None
    if per and (symbol or singular == "unit"):
        return f"{symbol or words[index]}/{per}", 3
    if symbol:
        return symbol, 1
    return (words[index], 1) if singular in UNITS_IN_WORDS or (singular in COUNTED and not one) else None


def _singular(words: Sequence[str], index: int) -> str | None:
    if not 0 <= index < len(words):
        return None
    word = key(words[index])
    known = word in SYMBOLS or word in UNITS_IN_WORDS or word in COUNTED
    return word if known or not word.endswith("s") else word[:-1]


def _ordinal(words: Sequence[str], start: int) -> _Written | None:
    """``twenty first`` → 21st, from tenth on, but not ``thirty second`` (a time) or ``one tenth`` (a fraction)."""
    number = read_ordinal(words, start)
    if number and number.value > 20 and at(words, number.end - 1, "second"):
        return list(words[start : number.end]), number.end
    if number is None or number.value < 10 or at(words, start - 1, is_cardinal) or at(words, number.end, "of"):
        return None
    # "Fourth through tenth ribs": both ordinals or none.
    first = read_ordinal(words, start - 2) if at(words, start - 1, ("through", "to", "and", "or")) and start > 1 else None
    return None if first and first.value < 10 else ([number.written], number.end)


def _plain(words: Sequence[str], start: int) -> _Written | None:
    """A number of ten or more, or with decimals."""
    number = read_number(words, start)
    if number is None or number.small:
        return None
    # "At one point five patients had left" holds no 1.5.
    idiom = at(words, start - 1, "at") and at(words, start, "one") and at(words, start + 1, "point")
    if idiom:
        return None
    # A number without a unit may be a year, and a year has no comma.
    written = number.written.replace(",", "") if 1900 <= number.value < 2100 else number.written
    return [written], number.end


_RULES: tuple[Callable[[Sequence[str], int], _Written | None], ...] = (
    _levels,
    _named_letters,
    _pressure,
    _score,
    _date,
    _age,
    _measure,
    _ordinal,
    _plain,
)
