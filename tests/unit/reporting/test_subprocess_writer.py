"""A separate process makes the report of a run: it costs the driver no memory, and its failure does not fail the run.

Where a child has to be met alive, the lake is a server that takes a connection and never answers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from dictalake.config.sections import Config, Lake
from dictalake.errors import RunError
from dictalake.lake.reports import Reports
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.logs import console_handler
from dictalake.observers.base import RunStart, observing
from dictalake.observers.stats import RunStats
from dictalake.reporting import subprocess_writer
from dictalake.reporting.subprocess_writer import ReportWriter
from dictalake.transcript.provenance import Provenance
from tests.lake_rows import make_row

ROOT = Path(__file__).parents[3]
FINGERPRINT = "aaaaaaaaaaaa"
SECRETS = ("a-name", "a-secret/+=", "a-token/+=")
GONE_S = 20.0
# A user's script: no ``if __name__ == "__main__"``, and what it prints is all that may be seen.
SCRIPT = """
import json, signal, sys
from dictalake.config.sections import Config
from dictalake.logs import console_handler
from dictalake.observers.base import RunStart, observing
from dictalake.observers.stats import RunStats
from dictalake.reporting.subprocess_writer import ReportWriter
from rich.console import Console
from types import SimpleNamespace

def stop(number, frame):
    raise SystemExit(128 + number)

signal.signal(signal.SIGTERM, stop)
tally = RunStats()
tally.add_commit(1, 0, 0.1)
try:
    with console_handler(Console(file=sys.stdout, width=400)), observing([ReportWriter(tally)]) as observers:
        config = Config.model_validate(json.loads(sys.stdin.readline()))
        observers.run_started(RunStart(config, SimpleNamespace(run_id="r1"), "backfill"))
    print("loaded:", *(name for name in ("matplotlib", "jinja2", "dictalake.reporting.queries") if name in sys.modules))
except KeyboardInterrupt:
    print("stopped")
"""


@contextlib.contextmanager
def run(config: Config, run_id: str, stats: RunStats, said: list[str] | None = None) -> Iterator[None]:
    """A run that writes its report at its end; ``said`` gets the lines that it shows meanwhile."""
    provenance = Provenance(run_id, FINGERPRINT, "a", "d", "f", "0", None, "m", None, "s", None, "greedy", {})
    shown = io.StringIO()
    with console_handler(Console(file=shown, width=400)), observing([ReportWriter(stats)]) as observers:
        observers.run_started(RunStart(config, provenance, "backfill"))
        yield
    if said is not None:
        said += shown.getvalue().splitlines()


def committed() -> RunStats:
    stats = RunStats()
    stats.add_commit(1, 0, 0.1)
    return stats


def make_config(lake: Lake, **report: Any) -> Config:
    return Config.model_validate({"lake": lake.model_dump(), "report": report})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake of one recording, by the run r1."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    row = make_row("a", run_id="r1", fingerprint=FINGERPRINT)
    TranscriptTable(lake).commit(write_staged(make_transcripts([row]), lake))
    at = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
    RunLog(lake).append(RunRecord(run_id="r1", event="started", at=at, fingerprint=FINGERPRINT, job="backfill"))
    return lake


class SilentStore:
    """Takes connections and never answers; ``heard`` is set at the first request."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(GONE_S)
        self._open: list[socket.socket] = []
        self.heard = b""

    @property
    def lake(self) -> Lake:
        options = {
            "aws_endpoint": f"http://127.0.0.1:{self._server.getsockname()[1]}",
            "aws_access_key_id": SECRETS[0],
            "aws_secret_access_key": SECRETS[1],
            "aws_session_token": SECRETS[2],  # the one that a request holds as it is
            "aws_region": "eu-central-1",
        }
        return Lake.model_validate({"uri": "s3://bucket/lake", "storage_options": options})

    def wait_for_request(self) -> None:
        """Until somebody has come as far as to read the lake."""
        connection, _ = self._server.accept()
        connection.settimeout(GONE_S)
        self._open.append(connection)
        while b"\r\n\r\n" not in self.heard and (data := connection.recv(65536)):
            self.heard += data

    def close(self) -> None:
        for one in (*self._open, self._server):
            one.close()


@pytest.fixture
def store() -> Iterator[SilentStore]:
    store = SilentStore()
    yield store
    store.close()


def find_children(of: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(of).children():
        with contextlib.suppress(psutil.Error):
            if "dictalake.reporting.subprocess_writer" in process.cmdline():
                found.append(process)
    return found


def meet_child(store: SilentStore, do: Callable[[psutil.Process], object]) -> threading.Thread:
    """``do`` with the child of this process, once that asks the store."""

    def meet() -> None:
        store.wait_for_request()
        [child] = find_children(os.getpid())
        do(child)

    thread = threading.Thread(target=meet)
    thread.start()
    return thread


def test_a_run_leaves_its_report_in_the_lake(lake: Lake) -> None:
    said: list[str] = []
    with run(make_config(lake, price_per_hour=3.5, currency="€"), "r1", committed(), said):
        assert Reports(lake).find() == []
    assert said == []
    page = Reports(lake).read("r1")
    assert "Run r1" in page
    assert "€" in page
    assert "The whole lake" not in page
    assert Reports(lake).list_recordings("r1") == {"a"}
    assert find_children(os.getpid()) == []


def test_a_run_that_failed_leaves_one_too_and_one_that_is_stopped_does_not(lake: Lake) -> None:
    with pytest.raises(SystemExit), run(make_config(lake), "r1", committed()):
        raise SystemExit(143)
    assert Reports(lake).find() == []
    with pytest.raises(RunError), run(make_config(lake), "r1", committed()):
        raise RunError("the storage is gone")
    assert Reports(lake).find() == ["r1"]


def test_a_run_that_did_nothing_or_shall_not_leaves_none(lake: Lake) -> None:
    with run(make_config(lake), "r1", RunStats()):
        pass
    with run(make_config(lake, write=False), "r1", committed()):
        pass
    assert Reports(lake).find() == []


def test_a_report_that_fails_does_not_cost_the_run(lake: Lake) -> None:
    (Path(str(lake.uri)) / "reports").write_text("in the way")
    said: list[str] = []
    with run(make_config(lake), "r1", committed(), said):
        pass
    assert len(said) == 1
    assert re.match(r"the report of the run is not written \((FileExists|NotADirectory)Error in \w+\.py:\d+\)", said[0])
    assert "dictalake report --run r1" in said[0]


def test_a_run_that_the_lake_does_not_know_is_told_as_where_it_was_found(lake: Lake) -> None:
    said: list[str] = []
    with run(make_config(lake), "r9", committed(), said):
        pass
    assert len(said) == 1
    assert re.match(r"the report of the run is not written \(ConfigError in queries\.py:\d+\)", said[0])


def test_a_child_that_is_killed_does_not_cost_the_run(
    store: SilentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spilled: list[str] = []

    def kill(child: psutil.Process) -> None:
        folder = Path(child.environ()["TMPDIR"])
        (folder / "rows").write_text("spilled")
        spilled.append(str(folder.parent))
        child.kill()

    said: list[str] = []
    meeting = meet_child(store, kill)
    with run(make_config(store.lake), "r1", committed(), said):
        pass
    meeting.join()
    told = "the report of the run is not written (its process ended by signal 9); dictalake report --run r1 makes it again"
    assert said == [told]
    assert spilled == [str(tmp_path)]
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_cannot_start_does_not_cost_the_run(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(sys, "executable", shutil.which("false"))  # ends before it reads a word
    with run(make_config(lake), "r1", committed(), said):
        pass
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with run(make_config(lake), "r1", committed(), said):
        pass
    first, second = said
    assert "(its process ended with status 1)" in first
    assert "(FileNotFoundError in subprocess.py:" in second


def test_a_child_that_takes_too_long_is_ended(store: SilentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess_writer, "_LONGEST_S", 0.1)
    said: list[str] = []
    with run(make_config(store.lake), "r1", committed(), said):
        pass
    assert said == [
        "the report of the run is not written (it took more than an hour); dictalake report --run r1 makes it again"
    ]
    assert find_children(os.getpid()) == []


def test_credentials_arrive_whole_and_are_seen_by_nobody(store: SilentStore) -> None:
    words: list[str] = []

    def look(child: psutil.Process) -> None:
        words.extend([*child.cmdline(), *child.environ().values()])
        child.kill()

    said: list[str] = []
    meeting = meet_child(store, look)
    with run(make_config(store.lake), "r1", committed(), said):
        pass
    meeting.join()
    assert f"x-amz-security-token: {SECRETS[2]}\r\n".encode() in store.heard
    assert f"Credential={SECRETS[0]}/".encode() in store.heard
    assert "dictalake.reporting.subprocess_writer" in words
    assert len(said) == 1
    assert not any(secret in word for word in [*words, *said] for secret in SECRETS)


@contextlib.contextmanager
def script(lake: dict[str, Any], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A user's script that works in ``folder`` on the report of a run, in a new process group as a shell makes it."""
    (folder / "scripts").mkdir()
    (folder / "scripts/ours.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "temporary").mkdir()
    (folder / "json.py").write_text("raise SystemExit('of the folder, and not on the path')", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "scripts/ours.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "pipelines"), "TMPDIR": str(folder / "temporary")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    with process:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"lake": lake}) + "\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def test_a_script_without_a_guard_gets_its_report_and_loads_nothing_for_it(lake: Lake, tmp_path: Path) -> None:
    with script({"uri": "lake"}, tmp_path) as process:
        out, errors = process.communicate(timeout=GONE_S)
    assert (process.returncode, out, errors) == (0, "loaded:\n", "")
    assert Reports(lake).find() == ["r1"]


@pytest.mark.parametrize(
    ("to", "number", "status", "shown"),
    [
        ("everybody", signal.SIGINT, 0, "stopped\n"),  # Ctrl-C
        ("driver", signal.SIGINT, 0, "stopped\n"),
        ("driver", signal.SIGTERM, 143, ""),
        ("driver", signal.SIGKILL, -9, ""),
    ],
)
def test_a_run_that_is_stopped_leaves_no_child_and_no_file_behind(
    to: str, number: int, status: int, shown: str, store: SilentStore, tmp_path: Path
) -> None:
    with script(store.lake.model_dump(), tmp_path) as process:
        store.wait_for_request()
        [child] = find_children(process.pid)
        if to == "everybody":
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, errors = process.communicate(timeout=GONE_S)
        assert psutil.wait_procs([child], timeout=GONE_S)[1] == []
    assert (process.returncode, out, errors) == (status, shown, "")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_ctrl_c_is_for_the_driver(store: SilentStore) -> None:
    """A program that does not end by Ctrl-C gets its report all the same."""
    living: list[bool] = []

    def interrupt(child: psutil.Process) -> None:
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(psutil.TimeoutExpired):
            child.wait(0.5)
        living.append(child.is_running() and child.status() != psutil.STATUS_ZOMBIE)
        child.kill()

    meeting = meet_child(store, interrupt)
    with run(make_config(store.lake), "r1", committed()):
        pass
    meeting.join()
    assert living == [True]
