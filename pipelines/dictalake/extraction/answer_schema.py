"""What the model is asked to answer: the schema, as pydantic models. Their descriptions go to the model with it.

Bounds on texts and lists are for a model that does not stop. An answer is checked item by item (``checking``), so one item of
a wrong type does not cost the others.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1"
MOST_ITEMS = 60
_WORDS, _QUOTE = 120, 400
_NUMBER = re.compile(r"\d+(?:\.\d+)?|(?<![\w.])\.\d+")
_GROUPING_COMMA = re.compile(r"(?<=\d)(?<!\b0),(?=\d{3}(?!\d))")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")

Words = Annotated[str, Field(min_length=1, max_length=_WORDS)]
Quote = Annotated[
    str,
    Field(min_length=1, max_length=_QUOTE, description="the shortest passage of the dictation that says it, copied exactly"),
]


def _write_points(value: str) -> str:
    """Without the commas that group digits, and with a point for the comma of 4,2."""
    return _DECIMAL_COMMA.sub(".", _GROUPING_COMMA.sub("", value))


class Item(BaseModel):
    """One thing that the dictation says. ``quote`` is copied from it."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)

    quote: Quote

    @property
    def name(self) -> str:
        """What the item is about, by which items are told apart."""
        return ""

    @property
    def numbers(self) -> list[float]:
        """The numbers of all its values: its quote must say each."""
        values = [value for name, value in self if name != "quote"]
        digits = [found for value in values if isinstance(value, str) for found in _NUMBER.findall(_write_points(value))]
        return [float(one) for one in digits] + [value for value in values if isinstance(value, float)]


class Finding(Item):
    """Something found or ruled out: a disease, a sign, a measurement of the body."""

    term: Words
    anatomy: Words | None = None
    side: Literal["left", "right", "bilateral", "midline"] | None = None
    certainty: Literal["certain", "probable", "possible"] = "certain"
    negated: bool = Field(False, description="true if the dictation says that it is absent")
    measurement: float | None = Field(None, description="its size, the largest where several are said")
    unit: Words | None = Field(None, description="unit of measurement")
    change: Literal["new", "increased", "decreased", "unchanged", "resolved"] | None = Field(None, description="against before")

    @property
    def name(self) -> str:
        return self.term


class Medication(Item):
    """A drug."""

    drug: Words
    dose: float | None = Field(None, description="single dose")
    unit: Words | None = Field(None, description="unit of dose")
    route: Words | None = None
    frequency: Words | None = None
    negated: bool = Field(False, description="true if it is not taken: stopped, refused, not tolerated")

    @property
    def name(self) -> str:
        return self.drug


class LabValue(Item):
    """A value of the laboratory, or of a measurement such as blood pressure."""

    test: Words
    value: Words = Field(description="as said: 4.2, negative, 120/80")
    unit: Words | None = None

    @property
    def name(self) -> str:
        return self.test

    @property
    def number(self) -> float | None:
        """The value where it is a number."""
        plain = _write_points(self.value)
        number = float(plain) if re.fullmatch(rf"[-+]?(?:{_NUMBER.pattern})", plain) else None
        return number if number is not None and abs(number) < 1e12 else None


class FollowUp(Item):
    """Something that is to be done: a visit, an examination, a referral."""

    what: Words
    when: Words | None = None

    @property
    def name(self) -> str:
        return self.what


class Impression(Item):
    """A sentence of the impression or the summary, which is its quote."""

    @property
    def name(self) -> str:
        return self.quote


KINDS: dict[str, type[Item]] = {
    "findings": Finding,
    "medications": Medication,
    "lab_values": LabValue,
    "follow_ups": FollowUp,
    "impressions": Impression,
}


class Answer(BaseModel):
    """All that one part of a dictation says."""

    findings: list[Finding] = Field(max_length=MOST_ITEMS)
    medications: list[Medication] = Field(max_length=MOST_ITEMS)
    lab_values: list[LabValue] = Field(max_length=MOST_ITEMS)
    follow_ups: list[FollowUp] = Field(max_length=MOST_ITEMS)
    impressions: list[Impression] = Field(max_length=MOST_ITEMS)


def make_json_schema() -> dict[str, Any]:
    """The schema that a server or a grammar binds the model to. Every key must be there and no other, as OpenAI asks."""
    return _close(Answer.model_json_schema())


def _close(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_close(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close(value) for key, value in schema.items() if key not in ("title", "default")}
    if isinstance(closed.get("properties"), dict):
        closed |= {"required": list(closed["properties"]), "additionalProperties": False}
    return closed
