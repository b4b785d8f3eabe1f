"""Every table that a command prints, on a terminal with lines around it, elsewhere as aligned columns without a colour.

A table is never wider than the terminal (80 columns where there is none). Columns of prose may wrap. Where that is not enough,
each record is printed with one field a line, so ids and numbers are never cut.

What people see passes through here: whatever a name, a tag or a transcript holds, the terminal gets printable characters, and
rich takes none of it for its own markup.
"""

from __future__ import annotations

import json
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dictalake.terminal import printable

_LEAST_WRAPPED = 24  # a column of prose that is narrower reads badly
_HIDDEN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN = Console()
_FORMULAS, _BREAKS = "=+-@＝＋－＠", "\t\r\n"
_UNSEEN = ("Cc", "Cf")  # controls and format characters, which a spreadsheet may drop
FORMULA = rf"^(?:[{_BREAKS}]|[\p{{Cc}}\p{{Cf}}]*[{re.escape(_FORMULAS)}])"  # as ``defuse`` finds it, for Arrow
Cell = str | Text


@dataclass(frozen=True)
class Column:
    """How a column is laid out."""

    name: str
    is_number: bool = False
    may_wrap: bool = False


def print_table(
    columns: Sequence[Column | str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str | None = None,
    console: Console | None = None,
    show_empty: bool = False,
    keep_lines: bool = True,
) -> None:
    """``show_empty`` says whether a field without a value gets its line where records are printed one field a line. With
    ``keep_lines`` a cell may have several lines; else their ends are written as ``\\n``."""
    console = console or Console()
    keep = "\n" if keep_lines else ""
    wanted = [column if isinstance(column, Column) else Column(column) for column in columns]
    wanted = [replace(column, name=printable(column.name)) for column in wanted]
    texts = [[_clean(cell, keep) for cell in row] for row in rows]
    _print_title(title, console)
    if _fits(wanted, texts, console):
        _print_lines(_lay_out(wanted, texts, console), console)
    else:
        _print_records(wanted, texts, console, show_empty=show_empty)


def print_fields(fields: Iterable[tuple[str, Cell]], *, title: str | None = None, console: Console | None = None) -> None:
    """Names with their values, one a line."""
    console = console or Console()
    _print_title(title, console)
    pairs = [(printable(name), _clean(value, "\n")) for name, value in fields]
    width = max((cell_len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        _print_field(name, value, width, console)


def print_lines(console: Console, *lines: str, style: str | None = None) -> None:
    """Each of ``lines`` on a line of its own, unwrapped."""
    for line in lines:
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True, style=style)


def defuse(text: str) -> str:
    """``text`` as a spreadsheet shows it and does not run it: with an apostrophe before what starts a formula (OWASP)."""
    first = next((mark for mark in text if unicodedata.category(mark) not in _UNSEEN), None)
    return f"'{text}" if text.startswith(tuple(_BREAKS)) or (first is not None and first in _FORMULAS) else text


def print_json(document: Any) -> None:
    """On standard output, readable and as text. Times are in ISO 8601; what else JSON has no form for becomes text."""
    print(show_hidden(json.dumps(document, indent=1, ensure_ascii=False, default=_to_text)))


def show_hidden(document: str) -> str:
    """JSON with the characters escaped that JSON allows in a text and a terminal obeys: C1 controls, directions of writing."""
    return _HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], document)


def _clean(cell: Cell, keep: str) -> Text:
    if isinstance(cell, str):
        return Text(printable(cell, keep))
    if printable(cell.plain, keep) == cell.plain:
        return cell
    marks = (
        Text(printable(mark.plain, keep), mark.get_style_at_offset(_PLAIN, 0)) for mark in cell.divide(range(1, len(cell)))
    )
    return Text().join(marks)


def _print_title(title: str | None, console: Console) -> None:
    if title:
        console.print(printable(title), highlight=False, markup=False, style="bold")


def _to_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def to_records(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Mapping[str, Any]]:
    """One dictionary for each row, for ``print_json``."""
    return [dict(zip(names, row, strict=True)) for row in rows]


def _overhead(columns: Sequence[Column], console: Console) -> int:
    """Columns of the terminal that hold lines and spaces."""
    return 3 * len(columns) + 1 if console.is_terminal else 2 * (len(columns) - 1)


def _fits(columns: Sequence[Column], rows: Sequence[Sequence[Text]], console: Console) -> bool:
    needed = _overhead(columns, console)
    for index, column in enumerate(columns):
        natural = max([cell_len(column.name), *(_width(row[index]) for row in rows)])
        needed += min(natural, max(_LEAST_WRAPPED, cell_len(column.name))) if column.may_wrap else natural
    return needed <= console.width


def _width(cell: Text) -> int:
    return max((cell_len(line) for line in cell.plain.split("\n")), default=0)


def _lay_out(columns: Sequence[Column], rows: Sequence[Sequence[Text]], console: Console) -> Table:
    table = Table() if console.is_terminal else Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for column in columns:
        justify = "right" if column.is_number else "left"
        table.add_column(Text(column.name), justify=justify, no_wrap=not column.may_wrap, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    return table


def _print_lines(table: Table, console: Console) -> None:
    """Without the spaces at the ends of lines, which only make diffs."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _print_records(columns: Sequence[Column], rows: Sequence[Sequence[Text]], console: Console, *, show_empty: bool) -> None:
    width = max(cell_len(column.name) for column in columns)
    for number, row in enumerate(rows, 1):
        console.print(f"-- {number} --", highlight=False, markup=False, style="dim")
        for column, cell in zip(columns, row, strict=True):
            if cell.plain or show_empty:
                _print_field(column.name, cell, width, console)


def _print_field(name: str, value: Text, width: int, console: Console) -> None:
    """Prose wraps under itself; a word without spaces stays whole however long it is."""
    room = max(_LEAST_WRAPPED, console.width - width - 2)
    start = f"{name}{' ' * (width - cell_len(name))}  "
    if _width(value) <= room and "\n" not in value.plain:
        line = Text(start) + value
        line.rstrip()
        console.print(line, highlight=False, soft_wrap=True)
        return
    wrapped = [
        part
        for line in value.plain.split("\n")
        for part in textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) or [""]
    ]
    for index, part in enumerate(wrapped):
        lead = start if index == 0 else " " * (width + 2)
        console.print(f"{lead}{part}".rstrip(), highlight=False, markup=False, soft_wrap=True)
