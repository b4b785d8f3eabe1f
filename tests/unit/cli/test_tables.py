"""Tables: as wide as the terminal at most, ids whole, no colours outside a terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from dictalake.cli.tables import Column, print_fields, print_table

ID = "0123456789abcdef" * 4


def show(columns: list[Column | str], rows: list[list[str]], *, width: int = 80, terminal: bool = False) -> list[str]:
    output = io.StringIO()
    print_table(columns, rows, console=Console(file=output, width=width, force_terminal=terminal, no_color=terminal))
    return output.getvalue().splitlines()


def test_columns_are_aligned_and_numbers_stand_to_the_right() -> None:
    assert show(["name", Column("count", is_number=True), "note"], [["a", "1", ""], ["long name", "12345", "x"]]) == [
        "name       count  note",
        "a              1",
        "long name  12345  x",
    ]


def test_a_terminal_gets_lines_around_the_table() -> None:
    assert show(["name"], [["a"]], terminal=True)[0].startswith("┏")


def test_what_is_too_wide_is_one_field_a_line_with_ids_whole() -> None:
    lines = show(["recording_id", "a", "empty"], [[ID, "x" * 30, ""], ["b", "y", ""]])
    assert lines == [
        "-- 1 --",
        f"recording_id  {ID}",
        f"a             {'x' * 30}",
        "-- 2 --",
        "recording_id  b",
        "a             y",
    ]


def test_prose_wraps_where_that_makes_room() -> None:
    lines = show(["id", Column("what", may_wrap=True)], [["a" * 40, "word " * 20]])
    assert lines[1].startswith("a" * 40 + "  word")
    assert max(map(len, lines)) <= 80
    assert sum(line.count("word") for line in lines) == 20


def test_prose_of_a_record_wraps_under_itself() -> None:
    lines = show(["recording_id", "text"], [[ID, "word " * 30]])
    assert max(map(len, lines)) <= 80
    assert lines[3].startswith("              word")


def test_colours_stay_on_the_terminal() -> None:
    output = io.StringIO()
    print_fields([("state", Text("FAIL", "bold red"))], title="t", console=Console(file=output, width=80))
    assert output.getvalue() == "t\nstate  FAIL\n"
