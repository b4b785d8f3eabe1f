"""Scores extracted items against labelled dictations: precision and recall by kind, with negation and side.

An item is found if an item of the same kind has a similar name and a quote that overlaps the label's. Each is matched once, the
most similar names first. Negation and side are scored on matched pairs; an item with the wrong one is counted as wrong in
``strict``, since a finding on the other side, or one that was ruled out, is another statement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rapidfuzz import fuzz

from dictalake.errors import ConfigError
from dictalake.extraction.answer_schema import KINDS, Item, LabValue
from dictalake.extraction.quotes import find_quote

_SIMILAR = 60.0
_NUMBERS = {"findings": "measurement", "medications": "dose", "lab_values": "value"}


@dataclass(frozen=True)
class Dictation:
    """A text with what it says: the items by kind."""

    dictation_id: str
    text: str
    items: Mapping[str, Sequence[Item]]


@dataclass
class Score:
    """Of one kind: labels, items that were given, and pairs of the two. Of pairs: those that agree, of those asked."""

    labels: int = 0
    given: int = 0
    matched: int = 0
    strict: int = 0
    negation: list[bool] = field(default_factory=list)
    side: list[bool] = field(default_factory=list)
    number: list[bool] = field(default_factory=list)

    def numbers(self) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "given": self.given,
            "precision": _share(self.matched, self.given),
            "recall": _share(self.matched, self.labels),
            "f1": _share(2 * self.matched, self.labels + self.given),
            "strict_f1": _share(2 * self.strict, self.labels + self.given),
            "negation": _share(sum(self.negation), len(self.negation)),
            "side": _share(sum(self.side), len(self.side)),
            "number": _share(sum(self.number), len(self.number)),
        }


def read_labels(path: Path) -> list[Dictation]:
    """A JSON object a line: ``id``, ``text``, and the lists of items as the schema has them. Raises ConfigError by line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON may hold U+2028 and others
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from None
    found = [_read_line(line, f"{path} line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ConfigError(f"{path}: no dictation in it")
    ids: set[str] = set()
    for place, one in enumerate(found, 1):
        if one.dictation_id in ids:
            raise ConfigError(f"{path}: dictation {place} has the id of another one; give each its own")
        ids.add(one.dictation_id)
    return found


def _read_line(line: str, place: str) -> Dictation:
    try:
        document = json.loads(line)
        items = {kind: [model.model_validate(one) for one in document.get(kind, [])] for kind, model in KINDS.items()}
        dictation = Dictation(str(document["id"]), str(document["text"]), items)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ConfigError(f"{place}: an item is none of the schema, at {where}: {error.errors()[0]['msg']}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"{place}: not a JSON object with id, text and lists of items") from None
    for kind, of_kind in items.items():
        for number, one in enumerate(of_kind, 1):
            if not find_quote(one.quote, dictation.text):
                raise ConfigError(f"{place}: the quote of item {number} of {kind} does not stand in the text")
    return dictation


def score(labelled: Sequence[Dictation], given: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> dict[str, Score]:
    """A Score for each kind. ``given`` has the items of each dictation, by id and kind, as ``Checked.items``."""
    scores = {kind: Score() for kind in KINDS}
    for dictation in labelled:
        for kind, one in scores.items():
            labels, items = list(dictation.items[kind]), list(given.get(dictation.dictation_id, {}).get(kind, ()))
            one.labels, one.given = one.labels + len(labels), one.given + len(items)
            for label, item in _match(kind, labels, items, dictation.text):
                _compare(kind, label, item, one)
    return scores


def _match(
    kind: str, labels: Sequence[Item], items: Sequence[Mapping[str, Any]], text: str
) -> Iterator[tuple[Item, Mapping[str, Any]]]:
    pairs = []
    for place, label in enumerate(labels):
        spans = find_quote(label.quote, text)
        for number, item in enumerate(items):
            meets = any(span.start < item["end_char"] and item["start_char"] < span.end for span in spans)
            name = label.name if kind == "impressions" else KINDS[kind].model_construct(**item).name
            likeness = fuzz.token_set_ratio(label.name.casefold(), name.casefold())
            if meets and likeness >= _SIMILAR:
                pairs.append((likeness, _agreement(label, item), place, number))
    taken_labels: set[int] = set()
    taken_items: set[int] = set()
    for _, _, place, number in sorted(pairs, key=lambda pair: (-pair[0], -pair[1], pair[2], pair[3])):
        if place not in taken_labels and number not in taken_items:
            taken_labels.add(place)
            taken_items.add(number)
            yield labels[place], items[number]


def _agreement(label: Item, item: Mapping[str, Any]) -> int:
    return sum(item.get(name) == value for name, value in label if name != "quote")


def _compare(kind: str, label: Item, item: Mapping[str, Any], into: Score) -> None:
    into.matched += 1
    is_right = True
    if hasattr(label, "negated"):
        into.negation.append(item["negated"] == label.negated)
        is_right &= into.negation[-1]
    side = getattr(label, "side", None)
    if side is not None or item.get("side") is not None:
        into.side.append(item.get("side") == side)
        is_right &= into.side[-1]
    wanted = getattr(label, _NUMBERS.get(kind, ""), None)
    if wanted is not None:
        said = item[_NUMBERS[kind]]
        into.number.append(said == wanted or (isinstance(label, LabValue) and _is_same_value(said, wanted)))
        is_right &= into.number[-1]
    into.strict += is_right


def _is_same_value(one: str, other: str) -> bool:
    return one.casefold().replace(" ", "") == other.casefold().replace(" ", "")


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None
