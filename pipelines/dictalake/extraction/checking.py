"""From the model's answers to items that may enter the lake: each with a quote that stands in the transcript.

Nothing that a model writes is believed. An answer must be JSON with the lists of the schema. Each item is checked by itself.
One that does not fit is dropped, and counted under one of ``DROPPED``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pydantic_core
from pydantic import ValidationError

from dictalake.errors import AnswerInvalid
from dictalake.extraction.answer_schema import KINDS, MOST_ITEMS, Item, LabValue
from dictalake.extraction.parts import Part
from dictalake.extraction.quotes import Span, find_quote, says_number, says_spoken_numbers
from dictalake.extraction.support import DROPPED as UNSUPPORTED
from dictalake.extraction.support import Supported, hold_against
from dictalake.extraction.timing import WordTimes

CHECKING_VERSION = "3"
DROPPED = {
    "wrong_type": "a value has another type than the schema says, or is missing",
    "quote_not_found": "the quote does not stand in the transcript: it was invented or changed",
    "number_not_said": "the quote does not say the dose, size or value",
    **UNSUPPORTED,
    "repeated": "the model gave it, with this number and side, more often than the quote stands in the transcript",
    "seam": "the part before or after, whose words it quotes, has it too",
    "too_many": "the list was longer than the schema allows",
}
_Key = tuple[str, tuple[float, ...], str | None, int]  # of an item: name, numbers, side, where its quote begins
_FENCE = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)


@dataclass
class Checked:
    """The items of a whole transcript by kind, how many the model gave, and how many were dropped, or lost a
    value, for which reason."""

    items: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    offered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    blanked: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Found:
    """An item and where its quote stands in the whole text, at one of ``places``. ``is_own``: the part's own words."""

    supported: Supported
    span: Span
    places: int
    part: int
    is_own: bool


def check_answers(
    recording_id: str, text: str, parts: Sequence[Part], answers: Sequence[str], times: WordTimes, *, is_corrected: bool = False
) -> Checked:
    """The items of the answers to all parts. Raises AnswerInvalid where one is not JSON, or has none of the lists."""
    checked = Checked()
    documents = [read_answer(recording_id, answer) for answer in answers]
    for kind in KINDS:
        found = [
            one
            for number, (part, document) in enumerate(zip(parts, documents, strict=True))
            for one in _check_list(kind, document.get(kind, []), part, number, checked)
        ]
        for one in _without_seams(found, checked.dropped):
            checked.blanked.update(one.supported.reasons)
            checked.items[kind].append(_make_row(one, text, times, is_corrected=is_corrected))
    return checked


def read_answer(recording_id: str, answer: str) -> dict[str, Any]:
    """The JSON object of an answer, also of one that stands in a fence as servers that do not constrain send it.

    Raises AnswerInvalid.
    """
    fenced = _FENCE.search(answer)
    try:
        document = pydantic_core.from_json(fenced[1] if fenced else answer, allow_inf_nan=False)
    except ValueError:  # its message quotes the answer
        raise AnswerInvalid(recording_id, f"the answer of {len(answer)} characters is not JSON") from None
    if not isinstance(document, dict) or not any(isinstance(document.get(kind), list) for kind in KINDS):
        raise AnswerInvalid(recording_id, f"the answer is JSON, but has none of the lists {', '.join(KINDS)}")
    return document


def _check_list(kind: str, values: Any, part: Part, number: int, checked: Checked) -> list[_Found]:
    if not isinstance(values, list):
        checked.offered += 1
        checked.dropped["wrong_type"] += 1
        return []
    checked.offered += len(values)
    checked.dropped["too_many"] += max(0, len(values) - MOST_ITEMS)
    found: list[_Found] = []
    taken: Counter[_Key] = Counter()
    for value in values[:MOST_ITEMS]:
        try:
            item = KINDS[kind].model_validate(value)
        except ValidationError:
            checked.dropped["wrong_type"] += 1
            continue
        one = _locate(item, part, number, taken, checked.dropped)
        if one is not None:
            found.append(one)
    return found


def _locate(item: Item, part: Part, number: int, taken: Counter[_Key], dropped: Counter[str]) -> _Found | None:
    """Where the item's quote stands. Of several places, the same items take one after the other."""
    spans = find_quote(item.quote, part.text)
    if not spans:
        dropped["quote_not_found"] += 1
        return None
    passage = part.text[spans[0].start : spans[0].end]
    if not _says_numbers(item, passage):
        dropped["number_not_said"] += 1
        return None
    tried = [hold_against(item, part.text, span) for span in spans]
    # Where all of it is said comes first, then where a side or certainty is not.
    kept = sorted(
        (place for place, one in enumerate(tried) if one.item is not None), key=lambda place: len(tried[place].reasons)
    )
    if not kept:
        dropped.update(tried[0].reasons)
        return None
    for place in kept:
        supported, span = tried[place], spans[place]
        key = (item.name.casefold(), tuple(item.numbers), getattr(supported.item, "side", None), span.start)
        if not taken[key]:
            taken[key] += 1
            start = part.start + span.start
            return _Found(supported, Span(start, part.start + span.end), len(spans), number, part.owns(start))
    dropped["repeated"] += 1
    return None


def _says_numbers(item: Item, passage: str) -> bool:
    words = [value for name, value in item if name != "quote" and isinstance(value, str)]
    return all(says_number(value, passage) for value in item.numbers) and all(
        says_spoken_numbers(value, passage) for value in words
    )


def _without_seams(found: Sequence[_Found], dropped: Counter[str]) -> list[_Found]:
    """Where two parts overlap, what both have is taken from the part whose own words it quotes."""
    kept = []
    for one in found:
        others = [other for other in found if abs(other.part - one.part) == 1 and other.span.meets(one.span)]
        if not one.is_own and others:
            dropped["seam"] += 1
        else:
            kept.append(one)
    return kept


def _make_row(one: _Found, text: str, times: WordTimes, *, is_corrected: bool) -> dict[str, Any]:
    """The element of the list in the table ``findings``."""
    item = one.supported.item
    assert item is not None
    row = item.model_dump()
    if isinstance(item, LabValue):
        row["number"] = item.number
    if not one.supported.is_certainty_known:
        row["certainty"] = None
    timing = times.find(one.span, is_corrected=is_corrected)
    return (
        row
        | vars(timing)
        | {
            "quote": text[one.span.start : one.span.end],
            "places": one.places,
            "start_char": one.span.start,
            "end_char": one.span.end,
        }
    )
