"""Manifests that are text, as people and spreadsheets write them: CSV, and JSON with an object a line.

Excel saves CSV with the list separator of the country (``;`` in much of Europe), "Unicode text" as UTF-16 with tabs, and CSV
without "UTF-8" in Windows-1252. A line that is broken makes a bad row. It never hides the lines after it: a quote that is not
closed would make one field of them all.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TextIO

from dictalake.archive.manifest_rows import (
    KEY,
    URI,
    BadRow,
    Line,
    ManifestRow,
    Notes,
    clean_name,
    explain_no_uri,
    is_uri_column,
    make_bad_row,
    make_row,
    name_columns,
)
from dictalake.errors import ConfigError

_SEPARATORS = (",", ";", "\t", "|")
_MOST_CHARACTERS = 2**22  # of a row; a longer one is a quote that is not closed, or no manifest
_SEP_LINE = re.compile(r'"?sep=(.)"?[\s;,|]*', re.IGNORECASE)  # Excel's own way to name the separator
_DOS_END = "\x1a"
_JSON_LINES_TRIED = 100
_UNCLOSED = "has a quote that is not closed, or not doubled inside of a quoted field"
_TOO_LONG = f"is longer than {_MOST_CHARACTERS:,} characters"

Row = ManifestRow | BadRow


class _TextLine(NamedTuple):
    """One line of the file, with its end. ``is_whole``: not cut because it is too long."""

    number: int
    text: str
    is_whole: bool = True

    def is_blank(self) -> bool:
        return not self.text.strip().strip(_DOS_END)


class _Lines:
    """The lines of a file; what was taken can be put back."""

    def __init__(self, text: TextIO) -> None:
        self._text, self._number = text, 0
        self._waiting: list[_TextLine] = []  # the next one last

    def take(self) -> _TextLine | None:
        if self._waiting:
            return self._waiting.pop()
        text = self._text.readline(_MOST_CHARACTERS)
        if not text:
            return None
        self._number += 1
        if len(text) < _MOST_CHARACTERS or text[-1] in "\r\n":
            return _TextLine(self._number, text)
        while (rest := self._text.readline(_MOST_CHARACTERS)) and rest[-1] not in "\r\n":
            pass
        return _TextLine(self._number, text, is_whole=False)

    def take_first(self) -> _TextLine | None:
        """The next one that is not blank."""
        while (line := self.take()) is not None and line.is_blank():
            pass
        return line

    def put_back(self, lines: Sequence[_TextLine]) -> None:
        self._waiting += reversed(lines)


@dataclass(frozen=True)
class _Record:
    """One row of a CSV and the lines that it takes; without ``fields`` its first line is broken."""

    lines: Sequence[_TextLine]
    fields: Sequence[str] = ()
    problem: str | None = None

    @property
    def place(self) -> str:
        return f"line {self.lines[0].number}"

    @property
    def content(self) -> bytes:
        return _encode("".join(line.text for line in self.lines))


def read_text(file: io.BufferedReader, notes: Notes) -> Iterator[Line]:
    """The lines of CSV or JSON lines. Raises ConfigError at the call where the file as a whole cannot be used."""
    lines = _Lines(io.TextIOWrapper(file, *_find_encoding(file.peek(4)[:4]), newline=""))
    first = lines.take_first()
    if first is None:
        raise explain_no_uri(())
    if first.text.lstrip().startswith("["):
        raise ConfigError(f"{KEY}: begins like a JSON array; write JSON with one object a line, or CSV")
    lines.put_back([first])
    if first.text.lstrip().startswith("{"):
        return _open_json(lines, notes)
    return _open_csv(lines, notes)


def _find_encoding(head: bytes) -> tuple[str, str]:
    """The name of the encoding and what becomes of bytes that are none of it."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16", "replace"
    if len(head) == 4 and head[1::2] == b"\0\0" and head[0]:
        return "utf-16-le", "replace"
    if len(head) == 4 and head[::2] == b"\0\0" and head[1]:
        return "utf-16-be", "replace"
    return "utf-8-sig", "surrogateescape"


def _encode(text: str) -> bytes:
    return text.rstrip("\r\n").encode("utf-8", "surrogateescape")


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _open_csv(lines: _Lines, notes: Notes) -> Iterator[Line]:
    csv.field_size_limit(max(csv.field_size_limit(), _MOST_CHARACTERS))
    separators: Sequence[str] = _SEPARATORS
    first = lines.take_first()
    if first is not None and (named := _SEP_LINE.fullmatch(first.text.rstrip("\r\n"))):
        separators = (named[1],)
        first = lines.take_first()
    if first is None:
        raise explain_no_uri(())
    lines.put_back([first])
    tried: list[_Record] = []
    for separator in separators:
        header = _read_record(lines, separator)
        assert header is not None
        if header.problem is None and any(is_uri_column(name) for name in header.fields):
            return _iterate_csv(lines, separator, name_columns(header.fields), notes)
        lines.put_back(header.lines)
        tried.append(header)
    readable = [header.fields for header in tried if header.problem is None]
    if not readable:
        raise ConfigError(f"{KEY}: the first line is not CSV (a quote that is not closed?)")
    raise explain_no_uri(max(readable, key=len))


def _iterate_csv(lines: _Lines, separator: str, names: Sequence[str], notes: Notes) -> Iterator[Line]:
    while (record := _read_record(lines, separator)) is not None:
        if len(record.lines) > 1 and _has_swallowed(record, names, separator):
            lines.put_back(record.lines[1:])
            record = _Record(record.lines[:1], problem=_UNCLOSED)
        yield Line(record.place, record.content, partial(_make_csv_row, record, names, notes))


def _make_csv_row(record: _Record, names: Sequence[str], notes: Notes) -> Row | None:
    if record.problem is not None:
        return make_bad_row(record.place, record.problem, record.content)
    fields = list(record.fields)
    if not any(field.strip().strip(_DOS_END) for field in fields):
        return None
    while len(fields) > len(names) and not fields[-1].strip():
        fields.pop()
    if len(fields) > len(names):
        problem = f"has {len(fields)} fields, the first line names {len(names)}; put fields with a separator in quotes"
        return make_bad_row(record.place, problem, record.content)
    return make_row(record.place, zip(names, fields, strict=False), record.content, notes)


def _read_record(lines: _Lines, separator: str) -> _Record | None:
    """The next row, over several lines where a quoted field goes on. If that fails, the first line alone is broken."""
    first = lines.take()
    if first is None:
        return None
    if not first.is_whole:
        return _Record([first], problem=_TOO_LONG)
    if '"' not in first.text:
        return _Record([first], first.text.rstrip("\r\n").split(separator))
    taken = [first]

    def feed() -> Iterator[str]:
        yield first.text
        left = _MOST_CHARACTERS - len(first.text)
        while (line := lines.take()) is not None:
            taken.append(line)
            left -= len(line.text)
            if left < 0 or not line.is_whole:
                raise csv.Error
            yield line.text

    try:
        return _Record(taken, next(csv.reader(feed(), delimiter=separator, strict=True)))
    except csv.Error:
        lines.put_back(taken[1:])
        return _Record([first], problem=_UNCLOSED)


def _has_swallowed(record: _Record, names: Sequence[str], separator: str) -> bool:
    """Whether a quote was not closed, and a stray one lines later ended its field: the URI goes over lines, or a line inside
    looks like a row of its own, with as many fields and the URI of another such file.

    URIs without an extension tell nothing; then too many fields say so.
    """
    place = names.index(URI)
    own = record.fields[place].strip() if place < len(record.fields) else ""
    kind = PurePosixPath(own).suffix.lower()
    if len(own.splitlines()) > 1:
        return True
    if not kind:
        return len(record.fields) > len(names)
    for line in record.lines[1:]:
        fields = next(csv.reader([line.text], delimiter=separator), [])
        uri = fields[place].strip() if len(fields) == len(names) else own
        if uri != own and PurePosixPath(uri).suffix.lower() == kind:
            return True
    return False


# -- JSON --------------------------------------------------------------------------------------------------------------


def _open_json(lines: _Lines, notes: Notes) -> Iterator[Line]:
    """Raises ConfigError where the first object has no ``uri``, or where none of the first lines is an object."""
    seen: list[_TextLine] = []
    while len(seen) < _JSON_LINES_TRIED and (line := lines.take_first()) is not None:
        seen.append(line)
        record = _parse_json(line)
        if isinstance(record, dict):
            name_columns(list(record))
            return _iterate_json(chain(seen, iter(lines.take, None)), notes)
    raise ConfigError(f"{KEY}: begins like JSON, but none of its first lines is an object; write one object a line")


def _iterate_json(lines: Iterator[_TextLine], notes: Notes) -> Iterator[Line]:
    for line in lines:
        if not line.is_blank():
            place, content = f"line {line.number}", _encode(line.text)
            yield Line(place, content, partial(_make_json_row, line, place, content, notes))


def _make_json_row(line: _TextLine, place: str, content: bytes, notes: Notes) -> Row | None:
    record = _parse_json(line)
    if isinstance(record, str):
        return make_bad_row(place, record, content)
    if sum(map(is_uri_column, record)) > 1:
        return make_bad_row(place, "has more than one uri", content)
    fields = ((URI if is_uri_column(name) else clean_name(name), _make_plain(value)) for name, value in record.items())
    return make_row(place, fields, content, notes)


def _parse_json(line: _TextLine) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with it."""
    if not line.is_whole:
        return _TOO_LONG
    try:
        value = json.loads(line.text, object_pairs_hook=_make_object)
    except (ValueError, RecursionError):
        return "is not JSON, or names a field twice"
    return value if isinstance(value, dict) else "is JSON, but not an object"


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError
    return made


def _make_plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
