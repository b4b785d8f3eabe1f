"""Writes the report of a finished run into the lake, from a separate process.

Reading a large lake and drawing takes hundreds of megabytes, which the driver would keep, and C libraries, which may crash
or run out of memory. A separate process contains both. Each side sends one line of JSON.

    stdin    {"run_id": "…", "spill": "FOLDER", "config": {"lake": {…}, "report": {…}}}
    stdout   {"error": null}, or the type and place of the error

The child's standard input is open as long as the driver lives; when it closes, the child ends too.

Credentials of the lake go only through stdin, since anybody on the machine can read a command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory

from dictalake import logs
from dictalake.config.sections import Config
from dictalake.errors import name_place
from dictalake.observers.base import Observer, RunEnd, RunStart
from dictalake.observers.stats import RunStats

_LONGEST_S = 3600.0
_SECTIONS = {"lake", "report"}  # a report needs no others; they may hold values that JSON cannot
_FIRST_TO_GO = "1000"  # when memory is short, the kernel kills this process first: a report can be made again


# -- in the driver -------------------------------------------------------------------------------------------------------


class ReportWriter(Observer):
    """Writes the report of a run that did something into the lake, also if the run failed.

    A report never fails a run: an error only gives a warning. A run that is being stopped writes no report.
    """

    name = "report"

    def __init__(self, stats: RunStats) -> None:
        self._stats = stats
        self._start: RunStart | None = None

    def run_started(self, start: RunStart) -> None:
        self._start = start

    def run_ended(self, end: RunEnd) -> None:
        start = self._start
        if start is not None and end.state != "stopped" and start.config.report.write and self._stats.committed:
            write_report(start.config, start.provenance.run_id)


def write_report(config: Config, run_id: str) -> None:
    """Has a child write the report; logs a warning if that fails."""
    try:
        wrong = _have_written(config, run_id)
    except Exception as error:  # no memory for a process, no disk
        wrong = name_place(error)
    if wrong is not None:
        line = f"the report of the run is not written ({wrong}); dictalake report --run {run_id} makes it again"
        logs.log_event("report", line, level=logs.WARNING)


def _have_written(config: Config, run_id: str) -> str | None:
    """The child's error in a few words; None if the report is in the lake."""
    settings = config.model_dump(mode="json", include=_SECTIONS)
    # The driver removes it, however the child ends.
    with TemporaryDirectory(prefix="dictalake-report-", ignore_cleanup_errors=True) as spill, _child(spill) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        rest = json.dumps({"run_id": run_id, "spill": spill, "config": settings}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # the child is gone already; its status is read below
            while rest:
                rest = rest[child.stdin.write(rest) :]
        if not wait([child.stdout.fileno()], _LONGEST_S):
            return "it took more than an hour"
        answer = child.stdout.readline()
        if answer.endswith(b"\n"):
            wrong: str | None = json.loads(answer)["error"]
            return wrong
        code = child.wait()
        return f"its process ended by signal {-code}" if code < 0 else f"its process ended with status {code}"


@contextmanager
def _child(spill: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that imports what this one would, without the user's script. Its temporary files are below ``spill``. The
    process has ended after the block."""
    path = os.pathsep.join(str(folder) or os.curdir for folder in sys.path)
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "dictalake.reporting.subprocess_writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # messages of libraries may quote a path, and the terminal belongs to the run
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": spill},
        bufsize=0,
    )
    with child:
        try:
            yield child
        finally:  # Popen alone would not wait for it after Ctrl-C
            child.kill()
            child.wait()


# -- in the child --------------------------------------------------------------------------------------------------------


def main() -> None:
    """Runs in the child: reads one request and writes one answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends this process
    with contextlib.suppress(OSError):  # exists only on Linux
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    answer = os.dup(1)
    os.dup2(2, 1)  # keeps the output of libraries out of the answer
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_driver, args=[request["spill"]], daemon=True).start()
    error = None
    try:
        from dictalake.reporting.queries import write_report  # imported here, so that a missing library is reported

        write_report(Config.model_validate(request["config"]), request["run_id"])
    except BaseException as problem:  # a panic of a library in Rust is no Exception
        error = name_place(problem)
    os.write(answer, json.dumps({"error": error}).encode() + b"\n")


def _end_with_driver(spill: str) -> None:
    """Ends this process and removes ``spill`` when the driver ends: a killed driver cannot do it."""
    while os.read(0, 1024):
        pass
    shutil.rmtree(spill, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
