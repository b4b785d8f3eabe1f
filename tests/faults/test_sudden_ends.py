"""A run that dies without a message, or whose Ray cannot start: the user reads why, and where to find more."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dictalake.terminal import describe_death

ROOT = Path(__file__).parents[2]
# A library in C writes to file descriptor 2, and then the process meets its end.
SCRIPT = """
import os, signal, sys
from dictalake import terminal

with terminal.quiet_libraries("backfill") as log:
    log.name_run("r1", json=sys.argv[2] == "json")
    os.write(2, b"words of a library\\n")
    print("a line of ours", file=terminal.stderr())
    {end}
print("after it", file=sys.stderr)
"""


def run(end: str, cache: Path, kind: str = "text") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT / "pipelines")}
    script = SCRIPT.format(end=end)
    # The pipe is closed by the last that holds it, the process that watches: what it says is in stderr.
    return subprocess.run(
        [sys.executable, "-c", script, "x", kind], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_libraries_write_goes_to_a_file_for_the_owner_alone(tmp_path: Path) -> None:
    done = run("pass", tmp_path)
    assert (done.returncode, done.stderr) == (0, "a line of ours\nafter it\n")
    [file] = tmp_path.rglob("*.log")
    assert (file.name, file.read_text()) == ("r1.log", "words of a library\n")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_nobody_wrote_to_is_removed(tmp_path: Path) -> None:
    run("os.ftruncate(log._file, 0)", tmp_path)
    assert list(tmp_path.rglob("*.log")) == []


def test_a_forked_child_that_outlives_the_block_holds_nobody_up(tmp_path: Path) -> None:
    """The child ends when the script does, which waits for the process that watches."""
    fork = "ours, theirs = os.pipe()\n    if os.fork() == 0: os.close(theirs); os.read(ours, 1); os._exit(0)"
    done = run(fork, tmp_path)
    assert (done.returncode, done.stderr) == (0, "a line of ours\nafter it\n")


def test_the_process_that_watches_ends_at_the_last_word_though_the_pipe_stays_open() -> None:
    watcher = [sys.executable, "-I", "-S", str(ROOT / "pipelines/dictalake/terminal.py"), str(os.getpid())]
    with subprocess.Popen(watcher, stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"ended": true}\n')
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_forked_child_does_not_hold_the_pipe_that_tells_of_a_death(tmp_path: Path) -> None:
    look = f"open({str(tmp_path / 'out')!r}, 'w').write(str(os.path.exists(f'/proc/self/fd/{{fd}}')))"
    done = run(f"fd = log._watcher.stdin.fileno()\n    if os.fork() == 0: {look}; os._exit(0)\n    os.wait()", tmp_path)
    assert (done.returncode, (tmp_path / "out").read_text()) == (0, "False")


def test_a_run_whose_standard_error_is_closed_goes_on(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "pipelines")}
    script = SCRIPT.format(end="open(sys.argv[1], 'w').write('done')")
    command = ["bash", "-c", 'exec "$@" 2>&-', "x", sys.executable, "-c", script, str(tmp_path / "out"), "text"]
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == 0
    assert (tmp_path / "out").read_text() == "done"
    [file] = tmp_path.rglob("*.log")
    assert file.read_text() == "words of a library\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGHUP, r"ended by signal 1 \(SIGHUP\)"), (None, r"ended without a word: killed \(the usual reason .*")],
)
def test_an_end_is_not_called_a_crash_where_it_is_none(number: int | None, words: str, tmp_path: Path) -> None:
    (tmp_path / "r1.log").write_text("words of a library\n")
    line = describe_death({"job": "backfill", "file": str(tmp_path / "r1.log")}, number)
    assert re.match(rf"dictalake backfill: the process was {words}\.|dictalake backfill: the process was {words}", line)
    assert "crash" not in line


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, r"killed by signal 9 \(SIGKILL\); the usual reason is that the machine ran out of memory"),
        (signal.SIGSEGV, r"ended by (signal 11 \(SIGSEGV\): )?a crash inside of a library( \(Segmentation fault\))?"),
    ],
)
def test_a_process_that_dies_leaves_a_line_that_says_how_and_names_the_file(
    number: signal.Signals, words: str, tmp_path: Path
) -> None:
    done = run(f"os.kill(os.getpid(), {int(number)})", tmp_path)
    assert done.returncode == -number
    ours, last = done.stderr.splitlines()
    [file] = tmp_path.rglob("*.log")
    assert ours == "a line of ours"
    again = "What is committed stays; run the same command again to resume. What libraries wrote is in"
    assert re.fullmatch(rf"dictalake backfill: the process was {words}\. {again} {re.escape(str(file))}", last)
    written = file.read_text()
    assert written.startswith("words of a library")
    assert ("Fatal Python error: Segmentation fault" in written) == (number == signal.SIGSEGV)


def test_in_json_that_line_is_an_object_too(tmp_path: Path) -> None:
    done = run("os.kill(os.getpid(), 9)", tmp_path, "json")
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["event"], last["level"], last["job"], last["run_id"]) == ("died", "ERROR", "backfill", "r1")


def test_a_defect_shows_its_traceback(tmp_path: Path) -> None:
    done = run("raise ValueError('x')", tmp_path)
    assert done.stderr.startswith("a line of ours\nTraceback")
    assert done.stderr.endswith("ValueError: x\n")


def test_a_long_file_keeps_its_start_and_its_end(tmp_path: Path) -> None:
    lines = "os.write(2, b'y' * (17 << 20) + b'the end'); log.trim()"
    run(lines, tmp_path)
    [file] = tmp_path.rglob("*.log")
    text = file.read_bytes()
    assert len(text) < 5 << 20
    assert text.startswith(b"words of a library")
    assert text.endswith(b"the end")


def test_a_ray_that_cannot_start_says_why(random_lasr: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/1.wav").write_bytes(b"not a sound")
    (tmp_path / "in-the-way").write_text("no folder")
    options = {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake"), "decoding.kind": "greedy"}
    options |= {"acoustic.model": str(random_lasr), "acoustic.device": "cpu", "ray.cpus": "2"}
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT / "pipelines")}
    done = subprocess.run(
        [sys.executable, "-m", "dictalake", "backfill", *(f"--{key}={value}" for key, value in options.items())],
        env={**environment, "RAY_TMPDIR": str(tmp_path / "in-the-way")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert re.match(r"dictalake backfill: Ray cannot start on this machine \(NotADirectoryError in [^)]+\)\. ", last)
    assert f"(RAY_TMPDIR = {tmp_path / 'in-the-way'})" in last
    assert "Traceback" not in done.stderr
