"""A question that is stopped ends at once, in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from dictalake.cli.query import _stop_working
from tests.query_lake import ROOT, write_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_lake(tmp_path_factory.mktemp("query") / "lake")


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


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_second_signal_does_not_leave_duckdb_at_work(stop: type[BaseException]) -> None:
    """Signals come before, in and after an interrupt, and DuckDB heeds only the last one."""
    answered: Future[None] = Future()

    class Database:
        interrupts = 0

        def interrupt(self) -> None:
            self.interrupts += 1
            if self.interrupts < 3:
                raise stop
            answered.set_result(None)

    database = Database()
    _stop_working(database, answered)  # type: ignore[arg-type]
    assert (database.interrupts, answered.done()) == (3, True)


def _read_cpu_s(pid: int) -> float:
    """The processor time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
