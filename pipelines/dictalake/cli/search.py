"""What ``dictalake search`` found, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from dictalake.cli.tables import Column, defuse, print_json, print_table
from dictalake.lake.search import Hit
from dictalake.terminal import printable

_MARKS = ("«", "»")


def show(hits: Sequence[Hit]) -> None:
    columns = [Column("recording_id"), Column("month"), Column("specialty"), Column("score", is_number=True)]
    columns.append(Column("where", may_wrap=True))
    console, rows = Console(), []
    for hit in hits:
        styled = Text.assemble(*((text, "bold red" if is_hit else "") for text, is_hit in hit.snippet))
        where = styled if console.is_terminal else Text(mark(hit))
        rows.append((hit.recording_id, hit.recorded_month, hit.specialty or "", f"{hit.score:.2f}", where))
    print_table(columns, rows, title=f"{len(hits)} transcripts", console=console)


def write_csv(hits: Sequence[Hit], *, is_raw: bool = False) -> None:
    """``is_raw`` leaves texts as they are, formulas too."""

    def text(value: str | None) -> str | None:
        if value is None:
            return None
        shown = printable(value, "\n") if sys.stdout.isatty() else value
        return shown if is_raw else defuse(shown)

    writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(("recording_id", "recorded_month", "specialty", "score", "snippet"))
    for hit in hits:
        names = text(hit.recording_id), text(hit.recorded_month), text(hit.specialty)
        writer.writerow((*names, round(hit.score, 4), text(mark(hit))))


def write_json(hits: Sequence[Hit]) -> None:
    print_json([asdict(hit) | {"snippet": mark(hit)} for hit in hits])


def mark(hit: Hit) -> str:
    """The snippet with «what was asked for»."""
    return "".join(text.join(_MARKS) if is_hit else text for text, is_hit in hit.snippet)


WRITERS = {"table": show, "csv": write_csv, "json": write_json}
