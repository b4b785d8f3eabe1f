"""A stop stays a stop, whatever a library makes of it; while a run is at work a second Ctrl-C ends the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dictalake import stops

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
