"""A stop stays a stop, whatever a library makes of it; while a run is at work a second Ctrl-C ends the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dictalake import stops
from dictalake.config.sections import Config, Lake
from dictalake.lake.query import connect
from dictalake.lake.superseded import refresh_superseded
from dictalake.lake.table import TranscriptTable
from dictalake.lake.tombstones import ErasedSubjects
from dictalake.workflow.worklist import WorkList
from tests.truth_lake import commit, make_version

TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    stops.forget()


def ask(number: int = TERM) -> None:
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        stops.handle(number, None)


@pytest.mark.parametrize(("number", "stop"), [(TERM, SystemExit), (INT, KeyboardInterrupt)])
def test_an_error_that_a_library_makes_of_a_stop_is_a_stop_again(number: int, stop: type[BaseException]) -> None:
    ask(number)
    with pytest.raises(stop), stops.converted():
        raise RuntimeError("Query interrupted")


def test_an_error_that_nobody_asked_for_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="defect"), stops.converted():
        raise RuntimeError("defect")
    stops.check()


def test_a_stop_that_was_lost_in_a_callback_is_raised_where_work_goes_on() -> None:
    ask()
    with pytest.raises(SystemExit, match="143"):
        stops.check()


def test_outside_of_a_run_each_request_is_heard() -> None:
    ask()
    ask(INT)


def test_while_a_run_ends_it_is_not_disturbed_by_the_same_signal_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops.os, "_exit", lambda code: pytest.fail("it ended"))
    with stops.second_ends_at_once(lambda line, code: None):
        ask(INT)
        stops.handle(INT, None)  # a wrapper handed it on
        stops.handle(TERM, None)


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_second_ctrl_c_ends_the_process_in_one_line(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    script = f"""
import signal
from dictalake import stops, terminal
stops._TWICE_S = -1.0
with terminal.quiet_libraries("backfill") as log, stops.second_ends_at_once(terminal.say_last_words):
    log.name_run("r1", json={kind == "json"})
    signal.signal(signal.SIGINT, stops.handle)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)
        print("not reached")
"""
    environment = {"PYTHONPATH": ":".join(sys.path), "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (130, "")
    line = f"dictalake backfill: ended at once; {stops.RESUME}"
    if kind == "text":
        assert done.stderr == f"{line}\n"
    else:
        record = json.loads(done.stderr)
        assert (record["message"], record["exit_code"], record["run_id"]) == (line, 130, "r1")


# Two kinds of work that the driver does in DuckDB and that would not end: a stream that Python feeds, as the listing of an
# archive and the rows of a lake are, and a computation of DuckDB's own threads.
ENDLESS = {
    "stream": "SELECT count(DISTINCT number) FROM numbers",
    "computation": "SELECT sum(a.range * b.range % 7) FROM range(1_000_000_000_000) AS a, range(1_000) AS b",
}


@pytest.mark.parametrize(("kind", "number", "code"), [("stream", signal.SIGINT, 130), ("computation", signal.SIGTERM, 143)])
def test_a_stop_ends_the_work_of_duckdb_in_the_driver(kind: str, number: signal.Signals, code: int) -> None:
    script = f"""
import os, signal, sys, threading, time
import pyarrow as pa
from dictalake import stops
from dictalake.lake.superseded import small_database

def tell_when_busy():
    while time.process_time() < began + 0.2:
        time.sleep(0.01)
    print("busy", flush=True)

def give():
    while True:
        yield pa.record_batch([pa.array(range(1000))], schema=schema)

schema, began = pa.schema([("number", pa.int64())]), time.process_time()
for one in (signal.SIGTERM, signal.SIGINT):
    signal.signal(one, stops.handle)
threading.Thread(target=tell_when_busy, daemon=True).start()
try:
    with stops.converted(), small_database() as database:
        database.register("numbers", pa.RecordBatchReader.from_batches(schema, give()))
        database.sql({ENDLESS[kind]!r}).fetchall()
except KeyboardInterrupt:
    sys.exit(130)
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "busy\n"
            process.send_signal(number)
            assert process.wait(timeout=60) == code
        finally:
            process.kill()


def test_each_stop_interrupts_duckdb_whose_threads_may_else_work_on() -> None:
    """Without it about one query in three of two threads worked on to its end, and the process waited."""
    interrupted = list[str]()

    class Connection:
        def interrupt(self) -> None:
            interrupted.append("told")
            raise RuntimeError("it is closed")

    connection = stops.interrupted_by_stops(Connection())
    ask(TERM)
    ask(INT)
    assert interrupted == ["told", "told"]
    del connection
    ask(TERM)
    assert len(interrupted) == 2


@pytest.mark.parametrize("make", ["work list", "superseded", "views"])
def test_each_connection_of_a_run_is_interrupted(make: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[object]()
    monkeypatch.setattr(stops, "interrupted_by_stops", lambda connection: made.append(connection) or connection)
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake)
    match make:
        case "work list":
            WorkList([], ErasedSubjects(), Config(), tmp_path)
        case "superseded":
            commit(lake, make_version("gs://a/1"))
            refresh_superseded(lake)
        case "views":
            connect(str(lake.uri)).close()
    assert made
