"""``dictalake query``: its arguments, its formats and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from dictalake.cli.main import make_command_parser, run_command
from dictalake.cli.query import check_question, choose_format, printable
from dictalake.errors import ConfigError
from dictalake.lake.query import connect
from tests.query_lake import ROOT, query, run_job, write_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_lake(tmp_path_factory.mktemp("query") / "lake")


def test_csv_writes_structs_as_json_and_tells_null_from_empty(lake: str, capfd: pytest.CaptureFixture[str]) -> None:
    columns = "recording_id, metadata, NULL::TEXT AS n, '' AS e, confidence, words[1:1] AS w"
    sql = f"SELECT {columns} FROM transcripts WHERE recording_id = 'c'"
    assert run_command("query", ["--format=csv", sql, "--lake.uri", lake]) == 0
    out = capfd.readouterr().out
    assert out.splitlines()[1].startswith('"c","{""department"": ""cardiology""}",,"",0.9,')
    (row,) = csv.DictReader(out.splitlines())
    assert row["w"] == '[{"word": "denies", "start_s": 0.25, "end_s": 0.75, "confidence": 0.8999999761581421, "channel": 0}]'


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_files_hold_every_row(lake: str, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"answer.{form}"
    sql = "SELECT i, i % 7 AS j FROM range(25000) t(i) ORDER BY i"
    assert run_command("query", ["--lake.uri", lake, "--out", str(out), sql]) == 0
    read = {"csv": pyarrow.csv.read_csv, "parquet": pq.read_table, "arrow": lambda path: pa.ipc.open_file(path).read_all()}
    table = read[form](str(out))
    assert table.column_names == ["i", "j"]
    assert table["i"].to_pylist() == list(range(25000))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_json_keeps_structs_and_lists(lake: str, capfd: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT recording_id, metadata, len(words) AS n, NULL AS nothing FROM transcripts WHERE recording_id = 'c'"
    assert run_command("query", [lake, sql, "--format", "json"]) == 0
    row = {"recording_id": "c", "metadata": {"department": "cardiology"}, "n": 8, "nothing": None}
    assert json.loads(capfd.readouterr().out) == [row]
    assert run_command("query", [lake, "SELECT 1 WHERE false", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out) == []


def test_a_row_of_many_columns_is_one_field_a_line(lake: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("query", [lake, "SELECT * FROM transcripts WHERE recording_id = 'c'"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "-- 1 --"
    assert lines[1].split() == ["recording_id", "c"]


def test_parquet_and_arrow_go_through_a_pipe(lake: str) -> None:
    sql = "SELECT recording_id FROM failures"
    arrow = run_job("--lake.uri", lake, "--format", "arrow", sql, stdout=subprocess.PIPE)
    assert pa.ipc.open_file(arrow.stdout).read_all().to_pydict() == {"recording_id": ["e"]}
    parquet = run_job("--lake.uri", lake, "--format", "parquet", sql, stdout=subprocess.PIPE)
    assert pq.read_table(pa.BufferReader(parquet.stdout)).to_pydict() == {"recording_id": ["e"]}


def test_a_reader_that_has_enough_is_no_error(lake: str) -> None:
    command = [
        sys.executable,
        "-m",
        "dictalake",
        "query",
        "--lake.uri",
        lake,
        "--format",
        "csv",
        "SELECT * FROM range(1000000)",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        assert job.stdout.readline() == b'"range"\n'
        job.stdout.close()
        assert job.stderr.read() == b""
        assert job.wait(60) == 0


def test_a_terminal_gets_a_table_and_no_escape_sequences_of_the_data(lake: str) -> None:
    leader, follower = os.openpty()
    sql = "SELECT chr(27) || '[31m[red]' AS shown, 1 AS one"
    done = run_job(
        "--lake.uri", lake, sql, stdout=follower, env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "60"}
    )
    os.close(follower)
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "│ \\x1b[31m[red] │   1 │" in shown


def test_a_table_says_that_it_is_cut(lake: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("query", ["--lake.uri", lake, "SELECT * FROM range(1001) ORDER BY 1"]) == 0
    captured = capfd.readouterr()
    assert captured.out.splitlines()[-1] == "  999"
    assert captured.err == "only the first 1,000 rows are shown; --format csv, json, parquet or arrow gives all\n"
    assert printable("a\nb\tc–") == "a\\nb\\tc–"


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("COPY transcripts TO 'x.csv'", "COPY"),
        ("ATTACH 'x.db'", "ATTACH"),
        ("INSTALL httpfs", "LOAD"),
        ("SET enable_external_access = true", "SET"),
        ("CREATE TABLE t AS SELECT 1", "CREATE"),
        ("DROP VIEW transcripts", "DROP"),
        ("PRAGMA version", "PRAGMA"),
        ("EXPORT DATABASE 'x'", "EXPORT"),
    ],
)
def test_what_could_write_is_refused(sql: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"^the SQL is a {kind} statement: only SELECT, .* are answered$"):
        check_question(sql)


@pytest.mark.parametrize("sql", ["", "SELECT 1; COPY transcripts TO 'x.csv'"])
def test_only_one_statement_is_answered(sql: str) -> None:
    with pytest.raises(ConfigError, match=r"statements: give one$"):
        check_question(sql)


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT * FROM read_text('/etc/hostname')", "Permission Error: .* disabled by configuration"),
        ("SELECT * FROM '/etc/hostname'", "Catalog Error: Table with name /etc/hostname does not exist!"),
        ("SELECT * FROM read_parquet('gs://bucket/x.parquet')", "Permission Error|disabled"),
        ("EXPLAIN ANALYZE COPY transcripts TO 'written.csv'", "Permission Error: .* disabled by configuration"),
        ("SELECT * FROM options", "Catalog Error: Table with name options does not exist!"),
        ("SELECT nothing FROM transcripts", 'Binder Error: Referenced column "nothing" not found'),
        ("SELECT text::INTEGER FROM transcripts", "^Conversion Error: Could not convert string '…' to INT32.*NULL instead$"),
        ("SELECT strptime(text, '%Y') FROM transcripts", "^Invalid Input Error: the SQL cannot do with some value"),
        ("SELECT error(text) FROM transcripts", "^Invalid Input Error: the SQL cannot do with some value"),
        ("SELECT * FROM runs JOIN transcrips USING (run_id)", "Did you mean .*transcripts"),
        # Found when the first batches are out already.
        ("SELECT CASE WHEN i > 90000 THEN ('a' || i)::INT ELSE i END FROM range(100000) r(i)", "^Conversion Error"),
    ],
)
def test_errors_are_one_line_without_a_word_of_the_lake(lake: str, tmp_path: Path, sql: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        query(lake, tmp_path, sql)
    assert "\n" not in str(caught.value)
    assert not re.search("aspirin|insulin", str(caught.value), re.IGNORECASE)
    assert list(tmp_path.iterdir()) == []
    assert not Path("written.csv").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "FROM (SHOW TABLES) WHERE name <> 'failures' ORDER BY ALL",
        "SELECT t.view_name FROM failures, duckdb_views() AS t WHERE NOT t.internal ORDER BY ALL",
        "SELECT v.recording_id FROM failures AS f, recording_versions AS v WHERE f.recording_id = v.recording_id",
        "SELECT t.recording_id FROM failures, query('FROM ' || 'transcri' || 'pts') AS t ORDER BY ALL",
    ],
)
def test_a_question_about_all_tables_sees_all(lake: str, capfd: pytest.CaptureFixture[str], sql: str) -> None:
    assert run_command("query", [lake, sql, "--format", "json"]) == 0
    found = capfd.readouterr()
    with connect(lake) as database:
        names = [column[0] for column in database.execute(sql).description]
        assert json.loads(found.out) == [dict(zip(names, row, strict=True)) for row in database.fetchall()] != []


def test_a_bad_question_exits_with_2(lake: str) -> None:
    done = run_job("--lake.uri", lake, "SELEC 1", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b'dictalake query: Parser Error: syntax error at or near "SELEC"\n'


def test_the_question_is_what_is_no_option() -> None:
    asked = ["--lake.uri", "x", "-- why\nSELECT 1", "--format=csv"]
    arguments = make_command_parser("query").parse(asked)
    assert (arguments.lake, arguments.sql, arguments.format) == ("-- why\nSELECT 1", None, "csv")
    with pytest.raises(ConfigError, match=r"^'FROM' is one argument too many; put words with spaces .* into quotation marks$"):
        make_command_parser("query").parse(["SELECT", "1", "--lake.uri", "x", "FROM"])
    with pytest.raises(ConfigError, match=r"^give either the SQL in quotation marks"):
        run_command("query", ["--lake.uri", "x"])


def test_binary_formats_are_kept_from_a_terminal() -> None:
    assert choose_format(None, Path("a.CSV"), True) == "csv"
    assert choose_format(None, None, False) == "table"
    with pytest.raises(ConfigError, match=r"^--format arrow is not for a terminal: give --out FILE"):
        choose_format("arrow", None, True)
    with pytest.raises(ConfigError, match=r"^--out a\.xlsx: its name must end in \.csv, \.json, \.parquet, \.arrow"):
        choose_format(None, Path("a.xlsx"), False)
