"""One sandboxed child as its caller has it: the process, the socket to it, and what it has used."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dictalake.sandbox import jail
from dictalake.sandbox.child import TIMES_UP
from dictalake.sandbox.jail import Holds
from dictalake.sandbox.levels import Level, check_level
from dictalake.sandbox.messages import MOST_FILES, CallLimits, read_answer, receive_answer, send_request
from dictalake.sandbox.spawner import start_process

Bytes = bytes | bytearray | memoryview
_SOCKET_BYTES = 2**22
_KEPT_BYTES = 2**26  # of an idle child, at most
_START_S = 60.0
_GRACE_S = 2.0  # how long after its limit a child may still be alive
_spent = threading.local()


def processor_s() -> float:
    """Processor seconds of children so far on calls of this thread; where the machine does not say, seconds of the clock."""
    return getattr(_spent, "seconds", 0.0)


class ChildDiedError(Exception):
    """``ended``: it did so by itself. Else it answered as no decoder does, or not in time."""

    def __init__(self, sentence: str, *, timed_out: bool = False, ended: bool = False) -> None:
        super().__init__(sentence)
        self.timed_out, self.ended = timed_out, ended


class ChildProcess:
    """One process and the socket to it."""

    def __init__(self, target: str, limits: CallLimits, level: Level, imports: Sequence[str]) -> None:
        self.calls = 0
        self._used_s: float | None = 0.0  # processor seconds when the last call began
        self._life_s = math.inf
        self._owner = os.getpid()
        self._limits = limits
        self._socket, theirs = socket.socketpair()
        for end in (self._socket, theirs):  # fewer round trips; the kernel caps it
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        program = "from dictalake.sandbox.child import serve; serve()"
        arguments = [str(theirs.fileno()), target, json.dumps(vars(limits)), str(os.getpid()), *imports]
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PATH": os.environ.get("PATH", ""),
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            # The C library keeps some memory between calls: fresh memory costs a page fault for each page.
            "MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES),
            "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
        }
        try:
            with theirs:
                self._process = start_process(
                    [sys.executable, "-P", "-c", program, *arguments],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    cwd="/",
                    process_group=0,
                )
        except BaseException:
            self._socket.close()
            raise
        _all_children.add(self)
        try:
            holds = Holds(**self._receive(time.monotonic() + _START_S)[0]["value"])  # it has seen no untrusted byte yet
            check_level(level, holds)
            _hide_where_needed(holds)
            self._life_s = self._find_life_s()
        except BaseException:
            self.kill()
            raise

    def call(
        self, data: Bytes, recording_id: str, settings: dict[str, Any], files: Sequence[int]
    ) -> tuple[dict[str, Any], np.ndarray]:
        if len(files) > MOST_FILES:
            raise ValueError(f"{len(files)} files for one call")
        self.calls += 1
        self._check_silent()
        began_at, self._used_s = time.monotonic(), self._find_processor_s()
        self._limit_processor()
        deadline = began_at + self._limits.clock_s + _GRACE_S
        nonce = secrets.token_hex(8)
        request = json.dumps({"recording_id": recording_id, "settings": settings, "nonce": nonce}).encode()
        try:
            self._exchange(lambda: send_request(self._socket, request, data, files), deadline)
            return self._receive(deadline, nonce)
        finally:
            worked_s = self._find_worked_s()
            _spent.seconds = processor_s() + (time.monotonic() - began_at if worked_s is None else worked_s)

    @property
    def is_spent(self) -> bool:
        """Whether what is left of the processor time that it may use in its life is not enough for one more call."""
        used_s = self._find_processor_s()
        return used_s is not None and used_s + self._limits.cpu_s + 1 > self._life_s

    @property
    def is_inherited(self) -> bool:
        """Whether it works for the process that this one was forked from."""
        return self._owner != os.getpid()

    def let_go(self) -> None:
        """In a fork: the child stays its owner's."""
        self._socket.close()
        self._process.returncode = 0  # nobody here waits for it

    def _find_life_s(self) -> float:
        """The child has set it, and nobody can raise it: processor seconds after which the kernel ends it."""
        if sys.platform != "linux":
            return math.inf
        limits = self._call_prlimit()
        if limits is not None:
            self._call_prlimit(limits)  # whoever refuses it shall do so now, and not when a recording is read
        return math.inf if limits is None or limits[1] == resource.RLIM_INFINITY else limits[1]

    def _limit_processor(self) -> None:
        """For one call. The child cannot change it, but may ignore it: then ``_life_s`` and the clock end it."""
        if self._used_s is None or sys.platform != "linux":  # it does so itself
            return
        most = resource.RLIM_INFINITY if self._life_s == math.inf else int(self._life_s)
        now = int(min(self._used_s + self._limits.cpu_s, self._life_s - 1)) + 1
        self._call_prlimit((now, most))

    def _call_prlimit(self, *limits: tuple[int, int]) -> tuple[int, int] | None:
        """None of a child that is gone."""
        try:
            return resource.prlimit(self._process.pid, resource.RLIMIT_CPU, *limits)
        except ProcessLookupError:
            return None
        except OSError as error:
            what = f"this machine refuses prlimit on the decoder's process: {type(error).__name__} {error.errno}"
            raise ChildDiedError(what) from None

    def _find_worked_s(self) -> float | None:
        """Processor seconds of the last call."""
        now_s = self._find_processor_s()
        return None if self._used_s is None or now_s is None else now_s - self._used_s

    def _find_processor_s(self) -> float | None:
        """None on macOS, and of a child that is gone and was waited for."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            return time.clock_gettime((~self._process.pid << 3) | 2)  # as clock_getcpuclockid makes it
        except OSError:
            return None

    def _check_silent(self) -> None:
        """An answer that nobody asked for would pass for the next recording's."""
        self._socket.settimeout(0)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            if self._socket.recv(1, socket.MSG_PEEK):
                raise ChildDiedError("the decoder's process spoke out of turn")

    def kill(self) -> None:
        """Ends the process and whatever it may have started."""
        if self.is_inherited:
            self.let_go()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; on macOS a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _receive(self, deadline: float, nonce: str = "") -> tuple[dict[str, Any], np.ndarray]:
        def read() -> tuple[dict[str, Any], np.ndarray]:
            return read_answer(*receive_answer(self._socket, int(self._limits.memory_mb * 1e6), deadline), nonce)

        answer: tuple[dict[str, Any], np.ndarray] = self._exchange(read, deadline)
        return answer

    def _exchange(self, do: Callable[[], Any], deadline: float) -> Any:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            return do()
        except TimeoutError:
            raise ChildDiedError("the decoder did not answer", timed_out=True) from None
        except ValueError:
            raise ChildDiedError("the decoder's process answered as no decoder does") from None
        except (OSError, EOFError):
            worked_s = self._find_worked_s()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            code = self._process.returncode
            if (code is not None and -code in TIMES_UP) or (worked_s is not None and worked_s > self._limits.cpu_s):
                raise ChildDiedError("out of time", timed_out=True) from None
            how = signal.Signals(-code).name if code is not None and code < 0 else f"status {code or 0}"
            raise ChildDiedError(f"the decoder's process ended with {how} while reading it", ended=True) from None


def _hide_where_needed(holds: Holds) -> None:
    """Keeps the child from this process's memory and environment where the jail does not.

    It is the last choice: Ray's memory monitor of an ordinary user does not see the memory of a process that hides.
    """
    if not (holds.hides_parent or (holds.no_capabilities and jail.has_capabilities())):
        jail.hide_from_user()


_all_children: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


def _leave_children() -> None:
    """In a fork: two processes that ask one child would get each other's answers."""
    for child in list(_all_children):
        child.let_go()
    _all_children.clear()


os.register_at_fork(after_in_child=_leave_children)
