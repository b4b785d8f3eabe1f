"""The list of recordings: filters on any column, order, and pages that are found by where the last one ended."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlencode

from dictalake.review.snapshot import Snapshot

PAGE_ROWS = 50
_TEXTS: tuple[str, ...] = ("recording_id", "recorded_month", "specialty", "status", "reason", "model", "fingerprint", "run_id")
_TEXTS += ("recorded_at_source", "checked_by", "flags")
_NUMBERS = ("duration_s", "channels", "confidence", "lost_s", "attempt", "speech_s", "uncovered_s")
_TIMES = ("recorded_at", "checked_at")
_OF_CHECKED = ("checked_by", "checked_at", "flags")
_PRIVATE = ("uri", "metadata")  # what may name a patient never stands in an address
COLUMNS = (*_TEXTS, *_NUMBERS, *_TIMES, *_PRIVATE)
OPERATORS = {
    "eq": "is",
    "ne": "is not",
    "lt": "below",
    "gt": "at least",
    "has": "contains",
    "none": "is empty",
    "some": "is not empty",
}
_SIGNS = {"eq": "=", "lt": "<", "gt": ">="}
SORTS = {
    "confidence": ("confidence", False, "least confident first"),
    "uncovered": ("uncovered_s", True, "most speech without words first"),
    "lost": ("lost_s", True, "most lost sound first"),
    "newest": ("recorded_at", True, "newest first"),
    "oldest": ("recorded_at", False, "oldest first"),
    "longest": ("duration_s", True, "longest first"),
}
_MONTH = re.compile(r"[\w.-]{1,40}")
_SHOWN = "recorded_at, specialty, duration_s, status, reason, confidence, lost_s, uncovered_s, checked_by"


class BadFilter(ValueError):
    """The sentence for the person who gave it."""


@dataclass(frozen=True)
class Filter:
    """``confidence lt 0.8``."""

    column: str
    operator: str
    value: str = ""

    @property
    def is_private(self) -> bool:
        return self.column in _PRIVATE

    def __str__(self) -> str:
        return f"{self.column}~{self.operator}~{self.value}"

    def describe(self) -> str:
        return f"{self.column} {OPERATORS[self.operator]} {self.value}".strip()

    def write(self, values: dict[str, Any]) -> str:
        """The condition in SQL; its value goes into ``values``. Raises BadFilter."""
        column = "listed.recording_id" if self.column == "recording_id" else self.column
        if self.operator in ("none", "some"):
            return f"{column} IS {'NOT ' if self.operator == 'some' else ''}NULL"
        name = f"value_{len(values)}"
        values[name] = self._read()
        if self.operator == "has":
            return f"contains(lower(CAST({column} AS VARCHAR)), lower(${name}))"
        if self.operator == "ne":
            return f"{column} IS DISTINCT FROM ${name}"
        return f"{column} {_SIGNS[self.operator]} ${name}"

    def _read(self) -> Any:
        if self.operator == "has" or self.column in (*_TEXTS, *_PRIVATE):
            return self.value
        try:
            return float(self.value) if self.column in _NUMBERS else _read_time(self.value)
        except (ValueError, OverflowError):
            kind = "a number" if self.column in _NUMBERS else "a date as 2026-03-31"
            raise BadFilter(f"{self.column}: give {kind}") from None


def _read_time(text: str) -> datetime:
    """Raises ValueError, OverflowError."""
    day = date.fromisoformat(text) if len(text) == 10 else None
    when = datetime.fromisoformat(text) if day is None else datetime(day.year, day.month, day.day)
    return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)


def read_filter(column: str, operator: str, value: str) -> Filter:
    """Raises BadFilter."""
    if column not in COLUMNS or operator not in OPERATORS:
        raise BadFilter("there is no such column or condition")
    return Filter(column, operator, "" if operator in ("none", "some") else value[:200])


def parse_filter(text: str) -> Filter:
    """What ``str`` gave, as it stands in an address. Raises BadFilter."""
    column, _, rest = text.partition("~")
    operator, _, value = rest.partition("~")
    found = read_filter(column, operator, value)
    if found.is_private:
        raise BadFilter("a place or metadata never stands in an address; use the form")
    return found


@dataclass(frozen=True)
class View:
    """What is asked for. ``search`` is the number of the words and private filters that the session remembers."""

    filters: tuple[Filter, ...] = ()
    sort: str = "confidence"
    search: str = ""

    def link(self, **changes: str) -> str:
        fields = [("f", str(one)) for one in self.filters if not one.is_private]
        fields += [("sort", self.sort)] + ([("search", self.search)] if self.search else [])
        return f"/recordings?{urlencode([*fields, *changes.items()])}"


@dataclass(frozen=True)
class Page:
    rows: list[dict[str, Any]]
    total: int
    after: str | None  # where the next page begins


def read_page(
    snapshot: Snapshot, filters: Sequence[Filter], sort: str, after: str = "", only: Sequence[str] | None = None
) -> Page:
    """At most ``PAGE_ROWS`` recordings behind the place ``after``. Raises BadFilter.

    The columns of a condition and of the order are looked through; the others are read of the rows of the page alone.
    """
    column, is_falling, _ = SORTS[sort]
    values: dict[str, Any] = {}
    conditions = [one.write(values) for one in filters]
    if only is not None:
        values["only"] = list(only)
        conditions.append("key IN (SELECT to_key(unnest($only)))")
    of_checked = any(one.column in _OF_CHECKED for one in filters)
    source = "listed LEFT JOIN checked USING (key)" if of_checked else "listed"
    where = " AND ".join(conditions) or "true"
    counted = (source, where, json.dumps(values, default=str))
    [count] = snapshot.remember(counted, lambda: snapshot.query(f"SELECT count(*) AS rows FROM {source} WHERE {where}", values))
    paged = dict(values)
    # A recording has a row in each month where its object's date changed and its version did not.
    order = f"sorted_by {'DESC' if is_falling else 'ASC'} NULLS LAST, key, month"
    narrow = f"SELECT number, key, recorded_month AS month, {column} AS sorted_by FROM {source} WHERE {where}"
    parts = [
        f"({narrow} AND {part} ORDER BY {order} LIMIT {PAGE_ROWS + 1})"
        for part in (_write_after(column, after, paged, is_falling=is_falling) if after else ("true",))
    ]
    rows = snapshot.query(
        f"""
        WITH page AS MATERIALIZED (FROM ({" UNION ALL ".join(parts)}) ORDER BY {order} LIMIT {PAGE_ROWS + 1})
        SELECT listed.recording_id, {_SHOWN}, page.sorted_by, page.month
        FROM page JOIN listed USING (number) LEFT JOIN checked ON checked.key = page.key
        ORDER BY {order.replace("key", "page.key")}
        """,
        paged,
    )
    more = len(rows) > PAGE_ROWS
    rows = rows[:PAGE_ROWS]
    return Page(rows, count["rows"], _name_place(rows[-1]) if more else None)


def _name_place(row: Mapping[str, Any]) -> str:
    value = row["sorted_by"]
    known = value.isoformat() if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(json.dumps([known, row["recording_id"], row["month"]]).encode()).decode()


def _write_after(column: str, after: str, values: dict[str, Any], *, is_falling: bool) -> Sequence[str]:
    """Conditions of which one holds for what comes behind a place; apart they are quicker than as one. Raises BadFilter for a
    place that no page has given."""
    try:
        value, recording_id, month = json.loads(base64.urlsafe_b64decode(after.encode()))
        value = _check_place(column, value)
        if not (isinstance(recording_id, str) and recording_id.isalnum() and recording_id.isascii()):
            raise ValueError("no id")
        if not (isinstance(month, str) and _MONTH.fullmatch(month)):
            raise ValueError("no month")
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise BadFilter("this page of the list is not known; begin with the first") from None
    values |= {"last_id": recording_id, "last_month": month}
    same = "(key, recorded_month) > (to_key($last_id), $last_month)"
    if value is None:
        return (f"{column} IS NULL AND {same}",)
    values["last"] = value
    return f"{column} = $last AND {same}", f"{column} {'<' if is_falling else '>'} $last", f"{column} IS NULL"


def _check_place(column: str, value: Any) -> float | datetime | None:
    """A value of this column as ``_name_place`` wrote it. Raises ValueError, TypeError, OverflowError."""
    if value is None:
        return None
    if column in _TIMES:
        return _read_time(value)
    if not isinstance(value, int | float):
        raise TypeError("no number")
    return float(value)
