"""Lines for operators: as they always were, or one JSON object each."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dictalake import logs
from dictalake.cli import main as command_line
from dictalake.config.observability import Logs
from dictalake.observers import progress
from dictalake.observers.base import RunEnd
from dictalake.observers.progress import ProgressReport, StallMonitor
from dictalake.observers.stats import FailureKind, RunStats


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """What ``set_up`` changes for the whole process."""
    loggers = [logging.getLogger(name) for name in (None, "ray", "dictalake")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    hook = sys.excepthook
    yield
    logs.set_up("")
    logging.captureWarnings(False)
    sys.excepthook = hook
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate


def set_up(**settings: Any) -> None:
    given = Logs.model_validate(settings)
    logs.set_up("nightly", given.format, given.file)


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def make_tally() -> RunStats:
    now = time.monotonic()
    stats = RunStats(started=now - 10_000)
    stats.expect(200, {})
    stats.note_pace(now - 10_000)
    stats.ok, stats.failed, stats.audio_s = 97, 3, 3_600_000.0
    stats.note_pace(now)
    stats.failures[FailureKind("not_audio", "load")] = 3
    stats.uncovered["secret"] = 8.0
    return stats


def test_a_line_of_json_says_when_what_and_of_which_run(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(format="json")
    logs.log_run_start("r1", "f1", "medasr-mini", "jail: Landlock 7, seccomp")
    logs.log_event("claims", "waiting for r0", print, logs.WARNING, others=1)
    printed = capsys.readouterr()
    assert printed.out == "", "people's way of showing it is not taken"
    started, waiting = read(printed.err)
    assert (started["event"], started["fingerprint"]) == ("run_started", "f1")
    assert started["confinement"] in started["message"]
    at = datetime.fromisoformat(waiting.pop("time"))
    assert at.utcoffset() == timedelta(0)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert waiting == {
        "level": "WARNING",
        "event": "claims",
        "job": "nightly",
        "run_id": "r1",
        "message": "waiting for r0",
        "others": 1,
    }


def test_the_progress_has_its_numbers_as_fields(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(format="json")
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    bar = io.StringIO()
    stats = make_tally()
    report = ProgressReport(stats, Console(file=bar, force_terminal=True))
    report.step_started("listing the archive")
    report.time_passed()
    report.run_ended(RunEnd())
    assert bar.getvalue() == "", "no bar between the lines, also on a terminal"
    [line] = read(capsys.readouterr().err)
    assert line["message"] == stats.describe()
    expected = {"event": "progress", "done": 100, "wanted": 200, "failed": 3, "failures": {"not_audio (load)": 3}}
    assert {name: line[name] for name in expected} == expected
    assert line["audio_hours"] == 1000
    assert line["speed"] == pytest.approx(360, rel=0.01)
    assert line["eta_s"] == pytest.approx(10_000, rel=0.01)
    assert "secret" not in json.dumps(line)


def test_a_run_that_stands_still_is_a_warning_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(format="json")
    stats = make_tally()
    watch = StallMonitor(stats, 0.01, lambda _: "waiting for a GPU")
    time.sleep(0.02)
    watch.time_passed()
    [line] = read(capsys.readouterr().err)
    assert (line["event"], line["level"], line["message"]) == ("waiting", "WARNING", "waiting for a GPU")
    assert (line["idle_s"], line["done"]) == (0, 100)


def test_text_is_shown_as_it_always_was_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(format="text")
    logs.log_run_start("r1", "f1", "medasr-mini", "jail: Landlock 7, seccomp")
    logs.log_event("claims", "waiting for r0", print, others=1)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("waiting for r0\n", "")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_file_gets_the_lines_too_and_keeps_what_is_in_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dictalake.log"
    for number in range(2):
        set_up(format=kind, file=str(path))
        logs.log_event("claims", f"line {number}", print)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    if kind == "json":
        assert [json.loads(line)["message"] for line in lines] == ["line 0", "line 1"]
        assert capsys.readouterr().err.splitlines() == lines
    else:
        assert lines[1].endswith(" INFO line 1")


def test_of_what_libraries_log_only_the_place_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(format="json")
    logging.getLogger("some.library").warning("cannot read gs://bucket/%s", "Mary Smith.wav")
    logging.getLogger("ray").error("Mary Smith.wav")
    warnings.warn("Mary Smith.wav is odd", UserWarning, stacklevel=1)
    try:
        raise ValueError("Mary Smith.wav")
    except ValueError:
        logging.getLogger("some.library").exception("Mary Smith.wav")
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    text = capsys.readouterr().err
    assert "Mary" not in text
    told = [(line["event"], line.get("logger"), line["level"]) for line in read(text)]
    assert told == [
        ("library", "some.library", "WARNING"),
        ("library", "ray", "ERROR"),
        ("library", "py.warnings", "WARNING"),
        ("library", "some.library", "ERROR"),
        ("crashed", None, "ERROR"),
    ]
    assert "ValueError in test_logs.py:" in read(text)[-1]["message"]


def test_the_line_a_command_ends_with_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["backfill", "--logs.format", "json", "--archive.uri", "x"]) == command_line.EXIT_BAD_CONFIG
    printed = capsys.readouterr()
    [line] = read(printed.err)
    assert (printed.out, line["event"], line["level"], line["job"]) == ("", "failed", "ERROR", "backfill")
    assert line["exit_code"] == command_line.EXIT_BAD_CONFIG
    assert line["message"].startswith("dictalake backfill: lake.uri is missing")


def test_a_configuration_that_cannot_be_read_is_told_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["backfill", "--logs.format", "json", "--lake.url", "x"]) == command_line.EXIT_BAD_CONFIG
    assert capsys.readouterr().err.startswith("dictalake backfill: unknown key lake.url from the command line: did you mean")
