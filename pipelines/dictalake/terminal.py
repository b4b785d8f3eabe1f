"""The terminal shows dictalake's own lines; what Ray, delta-rs and other libraries write goes to a file.

Libraries in C++ and Rust write to file descriptor 2, past ``sys.stderr``. ``quiet_libraries`` points that descriptor, which
Ray's processes inherit, at a file that only its owner may read:

    ~/.cache/dictalake/logs/20260301T013000-abcdef.log      (below $XDG_CACHE_HOME, or the folder for temporary files)

Our own lines go to ``stderr()``, the terminal as it was before. A run that fails names the file. A run that dies suddenly (a
segmentation fault, the kernel's out-of-memory killer) cannot do so. Then a small process that outlives it names the file. That
process runs this module as a script, so the module imports only the standard library.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

_FILES_KEPT = 20
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_MOST_BYTES = 16 << 20
_HEAD_BYTES = 64 << 10  # kept from the start of a long file, since the first complaint is often the cause
_DEATH = re.compile(rb"Fatal Python error: ([A-Za-z ]+)|\*\*\* (SIG[A-Z]+) received")  # as faulthandler or Ray writes it
_SHOW_CURSOR = "\x1b[?25h"  # the progress bar hides it
_current: LibraryLog | None = None


def printable(text: str, keep: str = "") -> str:
    """``text`` made safe for a terminal: characters that are not printable, except those in ``keep``, are escaped as in Python.

    The name of a device or file may hold an escape sequence, or a mark that reverses the direction of text.
    """
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() or mark in keep else repr(mark)[1:-1] for mark in text)


class LibraryLog:
    """The file that libraries write to, and the terminal, which they no longer reach."""

    def __init__(self, path: Path, file: int, terminal: TextIO, watcher: subprocess.Popen[bytes] | None) -> None:
        self.path, self.terminal = path, terminal
        self._file, self._watcher = file, watcher
        self.facts: dict[str, Any] = {}

    def describe_to_watcher(self, **facts: Any) -> None:
        """Tells the watcher what it needs in order to report a sudden death."""
        self.facts |= facts
        if self._watcher is not None and self._watcher.stdin is not None:
            with suppress(OSError):
                self._watcher.stdin.write(json.dumps(facts | {"file": str(self.path)}).encode() + b"\n")

    def name_run(self, run_id: str, **facts: Any) -> None:
        """Renames the file after the run, once its name is known."""
        with suppress(OSError):
            self.path = self.path.rename(self.path.with_name(f"{run_id}.log"))
        self.describe_to_watcher(run_id=run_id, **facts)

    def is_empty(self) -> bool:
        return os.fstat(self._file).st_size == 0

    def write(self, line: str) -> None:
        """Writes one of our own lines that the terminal does not show."""
        os.write(self._file, f"{line}\n".encode())

    def let_go(self) -> None:
        """For a forked child. The watcher belongs to the parent and must notice its death, even if the child lives longer."""
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
        self._watcher = None

    def trim(self) -> None:
        """Keeps the file small, however much a library writes. The start and the newest lines are kept."""
        if os.fstat(self._file).st_size <= _MOST_BYTES:
            return
        with self.path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            stream.seek(-(_MOST_BYTES // 4), os.SEEK_END)
            tail = stream.read()
        os.ftruncate(self._file, 0)
        os.write(self._file, head + b"\n... lines left out ...\n" + tail)

    def close(self) -> None:
        """Ends the watcher, and removes the file if it is empty."""
        if self._watcher is not None and self._watcher.stdin is not None:
            with suppress(OSError):
                self._watcher.stdin.write(b'{"ended": true}\n')
            with suppress(OSError):
                self._watcher.stdin.close()
            self._watcher.wait()
        if self.is_empty():
            self.path.unlink(missing_ok=True)
        os.close(self._file)


def _let_go() -> None:
    if _current is not None:
        _current.let_go()


os.register_at_fork(after_in_child=_let_go)


def stderr() -> TextIO:
    """Where our own lines go."""
    return sys.stderr if _current is None else _current.terminal


def library_log() -> LibraryLog | None:
    """The current file; None where libraries write to the terminal."""
    return _current


def say_last_words(line: str, exit_code: int) -> None:
    """Writes the last line of a run that the user ends at once. It takes no lock, and the watcher then stays silent."""
    facts = {} if _current is None else _current.facts
    line = f"dictalake {facts.get('job', '')}: {line}"
    if facts.get("json"):
        line = _make_record("failed", line, facts, exit_code=exit_code)
    descriptor = stderr().fileno()
    cursor = _SHOW_CURSOR if os.isatty(descriptor) else ""
    os.write(descriptor, f"{cursor}{line}\n".encode())
    if _current is not None:
        _current.describe_to_watcher(ended=True)


@contextmanager
def quiet_libraries(job: str) -> Iterator[LibraryLog | None]:
    """Keeps what libraries write to file descriptor 2 out of the terminal, until the block ends.

    Inside another such block it changes nothing. If it cannot write a file it yields None, and libraries write to the terminal.
    """
    global _current
    _require_descriptor()
    opened = None if _current is not None else _open_file(job)
    if opened is None:
        yield _current
        return
    path, file = opened
    try:
        saved = os.dup(2)
    except OSError:  # a daemon without a standard error
        os.close(file)
        path.unlink(missing_ok=True)
        yield None
        return
    _flush(sys.stderr)
    terminal = open(saved, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    ours = terminal if sys.stderr is None or _is_standard(sys.stderr) else sys.stderr
    log = LibraryLog(path, file, ours, _start_watcher(saved))
    log.describe_to_watcher(job=job)
    os.dup2(file, 2)
    was_enabled = enable_faulthandler()
    _current = log
    try:
        yield log
    finally:
        _current = None
        _flush(sys.stderr)
        terminal.flush()
        os.dup2(saved, 2)
        os.close(saved)
        if not was_enabled:
            faulthandler.disable()
        log.close()


def _require_descriptor() -> None:
    """If the process was started with standard error closed, the next file that it opens would get descriptor 2."""
    try:
        os.fstat(2)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != 2:
            os.dup2(null, 2)
            os.close(null)


def _flush(stream: TextIO | None) -> None:
    if stream is not None:
        stream.flush()


def enable_faulthandler() -> bool:
    """Makes a crash write the Python stacks of all threads to the file. Returns whether that was enabled already.

    Ray installs its own handler when it starts, so call this again afterwards.
    """
    was_enabled = faulthandler.is_enabled()
    if not was_enabled:
        faulthandler.enable(2)
    return was_enabled


def renew_faulthandler() -> None:
    """Call it after ``ray.init``, which replaces our signal handlers."""
    if _current is not None and faulthandler.is_enabled():
        faulthandler.disable()
        faulthandler.enable(2)


def _is_standard(stream: TextIO) -> bool:
    """Whether ``stream`` writes to file descriptor 2. In a notebook and under pytest it does not."""
    try:
        return stream.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


def _open_file(job: str) -> tuple[Path, int] | None:
    """A new empty file that only its owner can read. The oldest files are removed. None if no folder can hold one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dictalake/logs"
    for folder in (cache, Path(tempfile.gettempdir()) / f"dictalake-logs-{os.getuid()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.lstat().st_uid != os.getuid() or stat.S_ISLNK(folder.lstat().st_mode):
                continue  # somebody else made this folder in a shared place
            path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}-{job}.log"
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        except (OSError, RuntimeError):  # RuntimeError: there is no home
            continue
        _remove_oldest(folder)
        return path, file
    return None


def _remove_oldest(folder: Path) -> None:
    with suppress(OSError):  # another run may remove files too
        files = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        for path in files[:-_FILES_KEPT]:
            path.unlink(missing_ok=True)


def _start_watcher(terminal: int) -> subprocess.Popen[bytes] | None:
    """A process that reports the death of this one. It has its own session, so that it survives what ends this one."""
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            bufsize=0,
            start_new_session=True,
        )
    except OSError:  # no memory for a process: the run continues without a watcher
        return None


# -- the process that watches --------------------------------------------------------------------------------------------


def watch(pid: int) -> None:
    """Reads what the run reports until it ends. A run that ends without saying so has died.

    The message that it ends is enough, because a forked child may hold the pipe open for longer.
    """
    facts: dict[str, Any] = {}
    for line in sys.stdin.buffer:
        facts |= json.loads(line)
        if facts.get("ended"):
            return
    print(describe_death(facts, _read_status(pid)), file=sys.stderr, flush=True)


def describe_death(facts: dict[str, Any], status: int | None) -> str:
    """One line for the user: what ended the run, and which file holds what libraries wrote.

    ``status`` is as waitpid(2) returns it, or None if it is unknown.
    """
    file = Path(facts["file"])
    number = None if status is None or not status & 0x7F else status & 0x7F
    try:
        with file.open("rb") as stream:
            stream.seek(-min(_MOST_BYTES, file.stat().st_size), os.SEEK_END)
            written = _DEATH.findall(stream.read())
    except OSError:
        written = []
    if status is not None and number is None:
        cause = f"ended by a library with exit status {status >> 8}"
    elif number == signal.SIGKILL:
        cause = "killed by signal 9 (SIGKILL); the usual reason is that the machine ran out of memory"
    elif number is None and not written:
        cause = "ended without a word: killed (the usual reason is that the machine ran out of memory), or left by its terminal"
    elif number is not None:
        crash = ": a crash inside of a library" if number in _CRASHES else ""
        cause = f"ended by signal {number} ({signal.Signals(number).name}){crash}"
    else:
        cause = f"ended by a crash inside of a library ({b''.join(written[-1]).decode()})"
    line = (
        f"dictalake {facts.get('job', '')}: the process was {cause}. What is committed stays; run the same command again to "
        f"resume. What libraries wrote is in {file}"
    )
    if not facts.get("json"):
        return line
    return _make_record("died", line, facts, signal=number)


def _make_record(event: str, line: str, facts: dict[str, Any], **fields: Any) -> str:
    record = {"time": datetime.now(UTC).isoformat(), "level": "ERROR", "event": event, "message": line} | fields
    return json.dumps(record | {name: facts[name] for name in ("job", "run_id") if name in facts})


def _read_status(pid: int) -> int | None:
    """The exit status of process ``pid``, as waitpid(2) returns it (proc(5)). None if its parent has already collected it."""
    for _ in range(20):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        if fields[0] == "Z":
            return int(fields[49])
        time.sleep(0.01)  # a process closes its files shortly before it ends
    return None


if __name__ == "__main__":
    watch(int(sys.argv[1]))
