"""``dictalake query``: the views, the formats, what is refused, what is read, and the questions of ``infra/queries``."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from dictalake.cli.main import make_command_parser, run_command
from dictalake.cli.query import check_question, choose_format, printable
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import make_failed_row, make_row

ROOT = Path(__file__).parents[3]
QUERIES = ROOT / "infra" / "queries"
OLD, NEW = "3f0c9a12b7de", "7be1d0a94c52"
MARCH, APRIL = datetime(2026, 3, 2, 8, tzinfo=UTC), datetime(2026, 4, 6, 8, tzinfo=UTC)


def make_dictation(recording_id: str, said: str, at: datetime, waited_h: float, **changes: Any) -> dict[str, Any]:
    """A good row of ``said``, a word a second, recorded at ``at`` and transcribed ``waited_h`` hours later."""
    fingerprint, confidence = changes.get("fingerprint", NEW), changes.get("confidence", 0.9)
    words = [
        {"word": word.replace("_", " "), "start_s": i + 0.25, "end_s": i + 0.75, "confidence": confidence, "channel": 0}
        for i, word in enumerate(said.split())
    ]
    row = make_row(recording_id, text=said.capitalize(), text_raw=said.replace("_", " "), words=words, confidence=confidence)
    row["source"] |= {"modified_at": at}
    row["dicom"] = None
    row["quality"] |= {"duration_s": 1800.0, "speech_s": 1000.0}
    row["provenance"] |= {"fingerprint": fingerprint, "transcribed_at": at + timedelta(hours=waited_h)}
    return {**row, "fingerprint": fingerprint, "recorded_month": f"{at:%Y-%m}", **changes}


def make_small_lake() -> list[dict[str, Any]]:
    """``a`` was transcribed by two models, ``b`` its study dictated again, ``c`` was heard at the second try, ``e`` never."""
    radiology, cardiology = [("specialty", "radiology"), ("device", "LFH 5274")], [("department", "cardiology")]
    study = {"study_instance_uid": "1.2.3", "manufacturer_model_name": "DS-9500"}
    findings = [
        {"heading": None, "name": None, "text": "Chest."},
        {"heading": "FINDINGS", "name": "FINDINGS", "text": "Clear."},
    ]
    summary = [*findings, {"heading": "CONCLUSION", "name": "IMPRESSION", "text": "Well."}]
    heard = make_row("d")["quality"] | {"duration_s": 3600.0, "speech_s": 2000.0, "uncovered_speech_s": 90.0}
    a = {"metadata": radiology, "dicom": {**study, "content_datetime": MARCH}}
    c_failed = {"fingerprint": NEW, "recorded_month": "2026-04"}
    fetch = {"stage": "load", "reason": "fetch_failed", "detail": "the storage did not answer", "retryable": True}
    no = "patient_denies taking any aspirin {period} she takes warfarin"
    return [
        make_dictation("a", "no aspirin", MARCH, 2, **a, fingerprint=OLD, confidence=0.5, sections=findings),
        make_dictation("a", "no aspirin given", MARCH, 900, **a, confidence=0.75, sections=findings),
        make_dictation("b", "warfarin [FINDINGS] no", MARCH + timedelta(days=1), 4, **a, sections=summary),
        make_failed_row("c", error=fetch, **c_failed),
        make_dictation("c", no.replace("patient_", ""), APRIL, 6, metadata=cardiology, attempt=1, sections=summary),
        make_dictation("d", "insulin", APRIL, 10, metadata=None, quality=heard, sections=[]),
        make_failed_row("e", **c_failed),
    ]


def make_runs() -> list[RunRecord]:
    def start(run_id: str, at: datetime, **changes: Any) -> RunRecord:
        return RunRecord(run_id=run_id, event="started", job="nightly", at=at, host="node-1", recordings=3, **changes)

    def end(run_id: str, at: datetime, **changes: Any) -> RunRecord:
        return RunRecord(run_id=run_id, event="finished", job="nightly", at=at, fingerprint=NEW, **changes)

    hour = timedelta(hours=1)
    first = end("r1", MARCH + hour, ok=3, failed=1, audio_hours=1.5, wall_s=3600.0, speed=1.5, failures={"fetch_failed": 1})
    second = end("r2", APRIL + hour, ok=2, failed=1, audio_hours=3.0, wall_s=1800.0, speed=6.0, failures={})
    return [start("r1", MARCH, cpus=2.0), first, start("r2", APRIL), second, start("r3", APRIL + 2 * hour)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_lake(tmp_path_factory.mktemp("query") / "lake")


def write_lake(folder: Path) -> str:
    lake = Lake.model_validate({"uri": str(folder)})
    TranscriptTable(lake).commit(write_staged(make_transcripts(make_small_lake()), lake))
    RunLog(lake).append(*make_runs())
    return str(folder)


def query(lake: str, tmp_path: Path, *arguments: str) -> list[tuple[Any, ...]]:
    """The answer's rows, by way of a Parquet file."""
    out = tmp_path / "answer.parquet"
    assert run_command("query", ["--lake.uri", lake, *arguments, "--out", str(out)]) == 0
    table = pq.read_table(out)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def run_job(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "dictalake", "query", *arguments], cwd=ROOT, stderr=subprocess.PIPE, **options)


def test_transcripts_are_the_newest_good_row_of_each_recording(lake: str, tmp_path: Path) -> None:
    sql = "SELECT recording_id, fingerprint, attempt, text FROM transcripts ORDER BY ALL"
    assert query(lake, tmp_path, sql) == [
        ("a", NEW, 0, "No aspirin given"),
        ("b", NEW, 0, "Warfarin [findings] no"),
        ("c", NEW, 1, "Denies taking any aspirin {period} she takes warfarin"),
        ("d", NEW, 0, "Insulin"),
    ]


def test_words_have_a_row_each(lake: str, tmp_path: Path) -> None:
    assert query(lake, tmp_path, "SELECT * FROM transcript_words WHERE recording_id = 'a' ORDER BY position") == [
        ("a", NEW, "2026-03", 1, "no", 0.25, 0.75, 0.75, 0),
        ("a", NEW, "2026-03", 2, "aspirin", 1.25, 1.75, 0.75, 0),
        ("a", NEW, "2026-03", 3, "given", 2.25, 2.75, 0.75, 0),
    ]
    assert query(lake, tmp_path, "SELECT count(*) FROM transcript_words") == [(3 + 3 + 8 + 1,)]


def test_sections_have_a_row_each(lake: str, tmp_path: Path) -> None:
    assert query(lake, tmp_path, "SELECT * FROM transcript_sections WHERE recording_id = 'b' ORDER BY position") == [
        ("b", NEW, "2026-03", 1, None, None, "Chest."),
        ("b", NEW, "2026-03", 2, "FINDINGS", "FINDINGS", "Clear."),
        ("b", NEW, "2026-03", 3, "CONCLUSION", "IMPRESSION", "Well."),
    ]
    columns = query(lake, tmp_path, "SELECT column_name FROM (DESCRIBE transcript_sections)")
    assert [name for (name,) in columns] == [
        *("recording_id", "fingerprint", "recorded_month", "position", "heading", "name", "text")
    ]


def test_a_run_has_one_row_of_its_start_and_its_end(lake: str, tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    sql = "SELECT run_id, state, started_at, ended_at, job, host, cpus, ok, failures FROM runs ORDER BY run_id"
    assert query(lake, tmp_path, sql) == [
        ("r1", "finished", MARCH, MARCH + hour, "nightly", "node-1", 2.0, 3, [("fetch_failed", 1)]),
        ("r2", "finished", APRIL, APRIL + hour, "nightly", "node-1", None, 2, []),
        ("r3", "unfinished", APRIL + 2 * hour, None, "nightly", "node-1", None, None, None),
    ]


def test_failures_are_those_that_no_later_attempt_made_good(lake: str, tmp_path: Path) -> None:
    assert query(lake, tmp_path, "SELECT recording_id, error.reason FROM failures") == [("e", "not_audio")]
    assert query(lake, tmp_path, "SELECT count(*) FROM history") == [(7,)]


def test_a_recording_whose_date_changed_is_there_once_a_month(tmp_path: Path) -> None:
    """The price of closed files: DuckDB cannot know what the months that it does not read hold."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    rows = [make_dictation("a", "old", MARCH, 1, fingerprint=OLD), make_dictation("a", "new", APRIL, 1)]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    answer = query(str(lake.uri), tmp_path, "SELECT recorded_month, text FROM transcripts ORDER BY ALL")
    assert answer == [("2026-03", "Old"), ("2026-04", "New")]


def test_a_lake_without_runs_has_none(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a")]), lake))
    assert query(str(lake.uri), tmp_path, "SELECT count(*) FROM runs") == [(0,)]
    assert query(str(lake.uri), tmp_path, "SELECT count(*) FROM transcripts") == [(1,)]


QUESTIONS: dict[str, list[tuple[Any, ...]]] = {
    "volume_by_month": [
        ("cardiology", "2026-04", 1, 0.5),
        ("radiology", "2026-03", 2, 1.0),
        ("unknown", "2026-04", 1, 1.0),
    ],
    "turnaround": [("2026-03", 2, 15.0, 25.4), ("2026-04", 2, 8.0, 9.6)],
    "drug_mentions": [("aspirin", 2, 2, 2), ("warfarin", 2, 0, 2), ("insulin", 1, 0, 1)],
    "redictation_rate": [("2026-03", 2, 1, 50.0), ("2026-04", 2, 0, 0.0)],
    "low_confidence_by_device": [("LFH 5274", 2, 1, 50.0, 0.825), ("unknown", 2, 0, 0.0, 0.9)],
    "failures_by_reason": [("not_audio", "load", False, 1, "2026-04", "2026-04")],
    "speech_without_words": [("2026-03", 2, 0, 0.0, None), ("2026-04", 2, 1, 3.0, "d")],
    "reports_without_impression": [("radiology", 2, 1, 50.0), ("cardiology", 1, 0, 0.0)],
    "what_a_new_model_changed": [(OLD, NEW, 1, 1, 100.0, 0.25)],
    "runs_by_month": [("2026-03", "nightly", 1, 0, 3, 1, 1.5, 1.5), ("2026-04", "nightly", 2, 1, 2, 1, 3.0, 6.0)],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_of_an_analytics_team(lake: str, tmp_path: Path, name: str) -> None:
    assert query(lake, tmp_path, "--file", str(QUERIES / f"{name}.sql")) == QUESTIONS[name]


def test_each_question_is_asked_in_words_first() -> None:
    files = sorted(QUERIES.iterdir())
    # Where a row comes from is asked of the demo lake, whose rows come from somewhere.
    assert [path.stem for path in files] == sorted([*QUESTIONS, "provenance_of_a_row"])
    assert [path.name for path in files if not re.match(r"-- [A-Z][^\n]+\?.*\n", path.read_text(encoding="utf-8"))] == []


def test_a_negation_ends_with_its_sentence_and_after_five_words(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    far = "no one two three four heparin no one two three four five morphine {new_paragraph} never. insulin No [PLAN] digoxin"
    rows = [make_dictation("a", far, MARCH, 1), make_dictation("b", "tramadol no no. {period} Tramadol, not", MARCH, 1)]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    answer = query(str(lake.uri), tmp_path, "--file", str(QUERIES / "drug_mentions.sql"))
    assert answer == [
        ("tramadol", 2, 0, 1),
        ("digoxin", 1, 0, 1),
        ("heparin", 1, 1, 1),
        ("insulin", 1, 0, 1),
        ("morphine", 1, 0, 1),
    ]


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


@pytest.mark.parametrize(
    ("number", "code", "form", "sql"),
    [
        (signal.SIGTERM, 143, "csv", "SELECT count(*) FROM range(1000000) a(i), range(1000000) b(j) WHERE i * j = 3"),
        (signal.SIGINT, 130, "json", "FROM range(1000000) a(i), range(1000000) b(j) WHERE i * j = -3"),
    ],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_stopped_question_ends_in_a_line_and_leaves_no_file(
    lake: str, tmp_path: Path, number: int, code: int, form: str, sql: str
) -> None:
    question, out, temporary = tmp_path / "question", tmp_path / "answer", tmp_path / "temporary"
    os.mkfifo(question)
    temporary.mkdir()
    command = [sys.executable, "-m", "dictalake", "query", lake, "--file", str(question), "--format", form, "--out", str(out)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as job:
        question.write_text(sql, encoding="utf-8")  # waits for the job to open it
        before = _read_cpu_s(job.pid)
        while job.poll() is None and _read_cpu_s(job.pid) < before + 3:  # DuckDB is at work
            time.sleep(0.05)
        job.send_signal(number)
        try:
            _, line = job.communicate(timeout=60)
        finally:
            job.kill()
    assert (job.returncode, line) == (code, b"dictalake query: stopped\n")
    assert list(temporary.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path not in (question, temporary)] == []


def _read_cpu_s(pid: int) -> float:
    """The processor time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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


def test_a_bad_question_exits_with_2(lake: str) -> None:
    done = run_job("--lake.uri", lake, "SELEC 1", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b'dictalake query: Parser Error: syntax error at or near "SELEC"\n'


def test_files_of_other_months_are_not_opened_through_the_views(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "lake")
    for path in Path(lake).glob("transcripts/fingerprint=*/recorded_month=2026-04/*.parquet"):
        path.unlink()
    for view, count in {"transcripts": 2, "transcript_words": 6, "transcript_sections": 5, "history": 3}.items():
        march = f"SELECT count(*) FROM (SELECT * FROM {view} WHERE recorded_month = '2026-03')"
        assert query(lake, tmp_path, march) == [(count,)]
        with pytest.raises(RunError, match=r"^cannot read the lake's files; .* No such file or directory$"):
            query(lake, tmp_path, f"SELECT count(*) FROM (SELECT * FROM {view})")


def test_files_of_other_fingerprints_are_not_opened_for_failures(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "lake")
    shutil.rmtree(f"{lake}/transcripts/fingerprint={OLD}")
    assert query(lake, tmp_path, f"SELECT recording_id FROM failures WHERE fingerprint = '{NEW}'") == [("e",)]


def test_columns_that_are_not_asked_for_are_not_read_through_the_views(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "lake")
    for path in Path(lake).glob("transcripts/*/*/*.parquet"):
        overwrite_columns(path, "text", "sections.list.element.text")
    assert len(query(lake, tmp_path, "SELECT recording_id, text_raw, words FROM transcripts")) == 4
    assert query(lake, tmp_path, "SELECT count(word) FROM transcript_words") == [(15,)]
    for sql in ("SELECT text FROM transcripts", "SELECT text FROM transcript_sections"):
        with pytest.raises(RunError, match=r"^cannot read the lake's files"):
            query(lake, tmp_path, sql)


def overwrite_columns(path: Path, *names: str) -> None:
    """Puts garbage where the columns' values are."""
    content = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(0)
    for chunk in (group.column(i) for i in range(group.num_columns)):
        if chunk.path_in_schema in names:
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)


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
