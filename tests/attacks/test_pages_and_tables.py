"""Texts, names and tags that attack whoever looks at them: in a spreadsheet, on a terminal, in a browser, in a search."""

from __future__ import annotations

import csv
import io
import logging
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from rich.console import Console
from rich.text import Text

from dictalake import logs
from dictalake.cli import search as cli_search
from dictalake.cli.main import main, run_command
from dictalake.cli.query import write_csv, write_raw_csv
from dictalake.cli.tables import defuse, print_fields, print_json, print_lines, print_table
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
from dictalake.html import open_templates
from dictalake.lake.query import connect
from dictalake.lake.schema import make_transcripts
from dictalake.lake.search import Hit, TextIndex
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.terminal import printable
from tests.lake_rows import make_row

FORMULAS = ["=HYPERLINK(1)", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＠SUM(A1)"]
FORMULAS += ["\0=1", "\ufeff=1", "\u200b\x01+1", "\u202e@SUM(A1)"]
# The colour and the title of a terminal, in seven and eight bits; a bell; a text that turns around; a name that is not UTF-8
CONTROLS = "\x1b[31m\x1b]0;owned\x07\x9b31m\x08\u202etxt\u2066\udc80\x7f"
MARKUP = "[/red] [bold]x[/bold] [link=http://tracker.invalid]y[/link] [/]"
ATTACK = f"{MARKUP}{CONTROLS}"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
STYLES = re.compile("\x1b\\[[0-9;]*m")  # rich's own


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Rows whose texts and devices attack the reader; as in a lake they are UTF-8."""
    lake = Lake.model_validate({"uri": str(tmp_path_factory.mktemp("attacks") / "lake")})
    text = f"=HYPERLINK(1) pneumothorax {ATTACK}".encode(errors="replace").decode()
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("r1", text=text)]), lake))
    return str(lake.uri)


# -- spreadsheets --------------------------------------------------------------------------------------------------------


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


def write(writer: Callable[..., None], table: pa.Table) -> list[list[str]]:
    out = io.BytesIO()
    writer(table.schema, table.to_batches(), out)
    return read_csv(out.getvalue())


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_text_is_no_formula_in_a_csv_and_a_number_stays_one(formula: str) -> None:
    texts = pa.array([formula, "plain", "", None])
    table = pa.table(
        {"text": texts, formula: [-1.5, 2.0, 3.0, 4.0], "enum": texts.dictionary_encode(), "many": [[formula]] * 4}
    )
    safe, raw = write(write_csv, table), write(write_raw_csv, table)
    assert [row[0] for row in safe] == ["text", f"'{formula}", "plain", "", ""]
    assert [row[1] for row in safe] == [f"'{formula}", "-1.5", "2", "3", "4"]
    assert safe[1][2] == f"'{formula}"
    assert safe[1][3].startswith("[")
    assert [row[0] for row in raw] == ["text", formula, "plain", "", ""]


def test_both_csvs_look_past_every_character_that_is_not_seen() -> None:
    unseen = [chr(code) for code in range(0xE0080) if unicodedata.category(chr(code)) in ("Cc", "Cf")]
    texts = [f"{mark}=1" for mark in unseen] + [f"{mark}a=1" for mark in unseen if mark not in "\t\r\n"] + ["a=1", "🙂=1", ""]
    expected = [f"'{text}" if "a" not in text and "🙂" not in text and text else text for text in texts]
    assert [defuse(text) for text in texts] == expected
    assert [row[0] for row in write(write_csv, pa.table({"text": texts, "n": [1] * len(texts)}))[1:]] == expected


def test_no_kind_of_text_column_is_passed_over(lake: str) -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        table = pa.table({"text": pa.array(["=1", None, "a"]).cast(kind), "n": [1, 2, 3]})
        assert [row[0] for row in write(write_csv, table)] == ["text", "'=1", "", "a"], kind


@pytest.mark.parametrize(
    ("sql", "cell"),
    [("union_value(k := '=1')", '"=1"'), ("[union_value(k := '=1')]", '["=1"]'), ("1::BIGNUM", None), ("'=1'::BLOB", None)],
)
def test_a_value_that_csv_has_no_form_for_becomes_json(
    lake: str, sql: str, cell: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command("query", [lake, f"SELECT {sql} AS a", "--format", "csv"]) == 0
    (found,) = list(csv.reader(io.StringIO(capfd.readouterr().out)))[1]
    assert found[0] in '"['
    assert cell is None or found == cell


@pytest.mark.parametrize(("form", "sql"), [("parquet", "union_value(k := '=1')"), ("parquet", "INTERVAL 1 DAY")])
def test_a_value_that_a_format_has_no_form_for_is_named_as_such(lake: str, tmp_path: Path, form: str, sql: str) -> None:
    out = tmp_path / "answer"
    with pytest.raises(ConfigError, match=f"--format {form} has no form for a value of the answer: cast its column"):
        run_command("query", [lake, f"SELECT {sql} AS a", "--format", form, "--out", str(out)])
    assert list(tmp_path.iterdir()) == []


def test_the_csv_of_a_question_and_of_a_search_are_harmless_unless_asked_otherwise(
    lake: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    question = ["query", lake, "SELECT text, -5 AS n FROM transcripts", "--format", "csv"]
    found = ["search", lake, "pneumothorax", "--index", str(tmp_path / "index"), "--format", "csv"]
    for command, column in ((question, 0), (found, 4)):
        for flag, start in (((), "'=HYPERLINK"), (("--raw-csv",), "=HYPERLINK")):
            assert main([*command, *flag]) == 0
            (_, row) = csv.reader(io.StringIO(capfd.readouterr().out, newline=""))
            assert row[column].replace("«", "").startswith(start)
            assert command is found or row[1] == "-5"


# -- terminals -----------------------------------------------------------------------------------------------------------


def see(show: Callable[[Console], object], width: int, *, is_terminal: bool = True) -> str:
    """What of it reaches a terminal, without rich's own styles."""
    out = io.StringIO()
    show(Console(file=out, width=width, force_terminal=is_terminal, color_system="truecolor" if is_terminal else None))
    return STYLES.sub("", out.getvalue())


@pytest.mark.parametrize("width", [30, 400])
@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize(
    "show",
    [
        lambda console: print_table(["a", ATTACK], [(ATTACK, Text(ATTACK, "bold"))], title=ATTACK, console=console),
        lambda console: print_fields([(ATTACK, ATTACK), ("b", Text.assemble((ATTACK, "red")))], title=ATTACK, console=console),
        lambda console: print_lines(console, ATTACK),
        lambda console: logs.shown_on(console)(ATTACK),
        lambda console: logs.log_event("report", ATTACK, lambda line: console.print(line, markup=False)),
    ],
    ids=["table", "fields", "lines", "log on a console", "log"],
)
def test_no_control_character_reaches_a_terminal_and_markup_stays_text(
    show: Callable[[Console], object], width: int, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("dictalake")  # what pytest captures of it breaks xdist's messages: it is half a character
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [])
    seen = see(show, width, is_terminal=is_terminal)
    assert RAW.findall(seen) == []
    together = re.sub(r"\s|│", "", seen)
    assert "[/red]" in together
    assert "[link=http://tracker.invalid]y[/link]" in together
    assert r"\x1b[31m\x1b]0;owned\x07\x9b31m\x08\u202etxt\u2066\udc80\x7f" in together or width == 30


def test_a_table_keeps_the_colours_of_its_own() -> None:
    styled = Text.assemble("a\x1bb ", ("tumor", "bold red"))
    out = io.StringIO()
    print_table(["where"], [(styled,)], console=Console(file=out, width=80, force_terminal=True, color_system="standard"))
    assert r"a\x1bb" in STYLES.sub("", out.getvalue())
    assert re.search("\x1b\\[1;31m.*tumor|(\x1b\\[1;31m.)+", out.getvalue())


def test_json_holds_nothing_that_a_terminal_obeys_and_is_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    print_json({"text": ATTACK, "ü": "ä\nb"})
    out = capsys.readouterr().out
    assert RAW.findall(out) == []
    assert "ä" in out
    assert json.loads(out) == {"text": ATTACK, "ü": "ä\nb"}


def run_on_terminal(*arguments: str) -> str:
    """What a command writes on a terminal of its own."""
    ours, its = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "dictalake", *arguments], stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # the other end is closed
            pass
        process.wait()
    os.close(ours)
    return STYLES.sub("", written.decode(errors="surrogateescape").replace("\r\n", "\n"))


def test_a_terminal_gets_a_harmless_answer_of_every_format_and_command(lake: str, tmp_path: Path) -> None:
    question = 'SELECT text AS "[/red] \x1b[31m", text FROM transcripts'
    index = ("--index", str(tmp_path / "index"))
    assert main(["search", lake, "x", *index]) == 0  # so that the three below print the same
    for command in (
        *(("query", lake, question, "--format", form) for form in ("table", "csv", "json")),
        *(("search", lake, "pneumothorax", *index, "--format", form) for form in ("table", "csv", "json")),
        ("search", lake, f"[/red] {CONTROLS[:-2]}", *index),  # an error quotes it
    ):
        written = run_on_terminal(*command)
        assert "red" in written
        assert "Traceback" not in written
        assert RAW.findall(written) == [], command


def test_an_error_that_quotes_a_name_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "/nowhere/\x1b[31m[/red]", "SELECT 1"]) != 0
    err = capsys.readouterr().err
    assert r"\x1b[31m[/red]" in err
    assert RAW.findall(err) == []


def test_printable_leaves_plain_text_alone() -> None:
    assert printable("Müller, 5 µg – ok") == "Müller, 5 µg – ok"
    assert printable("a\nb\tc", "\n") == "a\nb\\tc"


# -- browsers ------------------------------------------------------------------------------------------------------------


def test_every_page_forbids_scripts_and_requests() -> None:
    folder = Path(open_templates.__code__.co_filename).parent
    written = [path for path in folder.rglob("*") if path.suffix in (".html", ".py") and "<html" in path.read_text()]
    templates = [path for path in written if "review" not in path.parts]  # served, with a policy in their headers
    assert len(templates) == 3, "a new page begins its head with {{ head }} too"
    for path in templates:
        assert re.search(r"<html[^>]*><head>\{\{ head \}\}", path.read_text()), path
    head = open_templates(folder).from_string("{{ head }}").render()
    assert "default-src 'none'" in head
    assert "script-src" not in head
    assert "http:" not in head


# -- searches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("(" * 20_000, "the words have 20,000 characters: give 4,000 at most"),
        ("(" * 2_000, "the words have more than 32 parentheses inside each other"),
        ("a AND (b OR " * 300 + "c" + ")" * 300, "the words have more than 32 parentheses inside each other"),
        (")" * 50 + "(" * 50, "the words have more than 32 parentheses inside each other"),
        ('"' + "(" * 50 + '"', "the words have more than 32 parentheses inside each other"),
        ("x" * 5_000, "the words have 5,000 characters: give 4,000 at most"),
    ],
)
def test_a_search_that_could_end_the_process_is_refused(lake: str, tmp_path: Path, words: str, error: str) -> None:
    index = TextIndex(Lake.model_validate({"uri": lake}), tmp_path / "index")
    index.refresh()
    with pytest.raises(ConfigError, match=error):
        index.search(words, 10)


PIECES = ["-", "+", "NOT ", "text:", "[", "{", '"', "*", "a^2", "/", "a AND ", "text:(", "-(", "\\("]
SEARCH_FOR_EACH = """
import sys
from dictalake.cli.main import main
lake, index, *pieces = sys.argv[1:]
for piece in pieces:
    words = (piece * 4000)[: 31 * len(piece) if "(" in piece else 3999] + "a"
    print(repr(piece), main(["search", lake, f"--index={index}", "--", words]), flush=True)
"""


def test_other_operators_without_end_are_answered_or_refused(lake: str, tmp_path: Path) -> None:
    """In a process of its own, which a crash would end: the last line then is of the piece before."""
    done = subprocess.run(
        [sys.executable, "-c", SEARCH_FOR_EACH, lake, str(tmp_path / "index"), *PIECES],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(tuple(map(repr, PIECES)))]
    assert [line.rpartition(" ")[0] for line in lines] == [repr(piece) for piece in PIECES], done.stderr
    assert {line.rpartition(" ")[2] for line in lines} <= {"0", "2"}, lines


def test_a_search_of_many_parentheses_that_people_write_is_answered(lake: str, tmp_path: Path) -> None:
    index = TextIndex(Lake.model_validate({"uri": lake}), tmp_path / "index")
    index.refresh()
    words = "(" * 30 + "pneumothorax" + ")" * 30
    (hit,) = index.search(words, 10)
    assert hit.recording_id == "r1"


# -- questions -----------------------------------------------------------------------------------------------------------

ENDLESS = "SELECT count(*) FROM range(10_000_000_000) AS a, range(1_000_000) AS b WHERE a.range + b.range = -1"


def test_a_question_without_end_is_stopped(lake: str) -> None:
    with pytest.raises(RunError, match=r"the question took more than 0\.2 s: .* --timeout SECONDS"):
        run_command("query", [lake, ENDLESS, "--timeout", "0.2"])


def test_a_limit_of_time_is_a_number(lake: str) -> None:
    for wrong in ("-1", "nan", "inf", "1e10"):
        with pytest.raises(ConfigError, match=r"--timeout .*: must be a number of seconds"):
            run_command("query", [lake, "SELECT 1", f"--timeout={wrong}"])


def test_the_disk_that_a_question_may_take_can_be_set(lake: str, capfd: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT current_setting('max_temp_directory_size') AS most"
    for options, most in (((), "18.6 GiB"), (("--spill-gb", "100"), "93.1 GiB")):
        assert run_command("query", [lake, sql, "--format", "csv", *options]) == 0
        assert capfd.readouterr().out.splitlines()[1] == f'"{most}"'
    with pytest.raises(ConfigError, match="--spill-gb 0: must be a number of gigabytes"):
        run_command("query", [lake, sql, "--spill-gb", "0"])


def test_duckdb_is_bounded_and_fetches_nothing_of_its_own_accord(lake: str) -> None:
    database = connect(lake)
    settings: dict[str, Any] = dict(database.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    off = (
        "autoload_known_extensions",
        "autoinstall_known_extensions",
        "allow_community_extensions",
        "allow_persistent_secrets",
    )
    assert {name: settings[name] for name in off} == dict.fromkeys(off, "false")
    assert settings["max_temp_directory_size"] == "18.6 GiB"
    unbound = duckdb.connect().execute("SELECT current_setting('memory_limit')").fetchone()
    assert unbound is not None
    assert settings["memory_limit"] != unbound[0]


def test_what_a_question_spills_is_for_its_owner_alone_and_gone_with_it(lake: str) -> None:
    database = connect(lake)
    (folder,) = database.execute("SELECT current_setting('temp_directory')").fetchone() or ()
    database.execute("SET memory_limit = '60MB'; SET threads = 1")
    database.execute("CREATE TEMP TABLE big AS SELECT range AS a, hash(range) AS b FROM range(8_000_000)")
    assert list(Path(folder).iterdir())
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    database.close()
    del database
    assert not Path(folder).exists()


def test_a_spill_that_is_too_large_is_an_error_and_not_a_full_disk(lake: str) -> None:
    database = connect(lake)
    database.execute("SET memory_limit = '60MB'; SET threads = 1; SET max_temp_directory_size = '10MB'")
    with pytest.raises(duckdb.OutOfMemoryException, match="max_temp_directory_size"):
        database.execute("CREATE TEMP TABLE big AS SELECT range AS a, hash(range) AS b FROM range(8_000_000)")


def test_the_marks_of_a_hit_do_not_hide_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    cli_search.write_csv([Hit("@r", "-m", "+s", 1.0, (("=1 ", False), ("x", True)))])
    assert capsys.readouterr().out.splitlines()[1] == """"'@r","'-m","'+s",1.0,"'=1 «x»\""""


def test_every_text_of_a_search_is_quoted_so_that_no_other_separator_cuts_it(capsys: pytest.CaptureFixture[str]) -> None:
    cli_search.write_csv([Hit("r", "2026-03", None, 1.0, (("a,x;=1+1\t=2", False),))])
    assert capsys.readouterr().out.splitlines()[1] == '"r","2026-03","",1.0,"a,x;=1+1\t=2"'
