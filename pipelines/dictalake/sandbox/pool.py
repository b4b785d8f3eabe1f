"""Runs one function on untrusted bytes in child processes. A child may crash, hang or devour memory; the caller goes on.

A child is a fresh Python with an empty environment, so it has no credentials. Only its socket is open, and its output is
discarded. Before its first untrusted byte it enters the kernel's jail (``jail.py``): it reads no file but those of Python,
writes none but those handed to it, reaches no network and no other process, and starts none. The kernel ends a child that
exceeds its limit of memory, processor time or clock time, and a child whose caller is gone. Children are kept for the next
call.

Both sides exchange JSON and raw samples: what a child sends is data, is bounded, and is never unpickled. Linux enforces all of
it, macOS the limits alone, but for the one on memory.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from dictalake import errors
from dictalake.errors import DecoderCrashed, DecoderTimeout, LoadError, RunError, TooLarge
from dictalake.sandbox import jail
from dictalake.sandbox.child import TIMES_UP
from dictalake.sandbox.jail import Holds
from dictalake.sandbox.levels import Level, check_level
from dictalake.sandbox.messages import MOST_FILES, CallLimits, Function, read_answer, receive_answer, send_request
from dictalake.sandbox.spawner import start_process

Bytes = bytes | bytearray | memoryview
# What may be said of a recording by who has seen nothing but its bytes.
OF_CONTENT: tuple[type[LoadError], ...] = (
    errors.EmptyObject,
    errors.NotAudio,
    errors.UnsupportedContainer,
    errors.UnsupportedCodec,
    errors.CorruptAudio,
    errors.NoAudio,
    errors.TooLong,
    errors.TooManyChannels,
    errors.TooManyWindows,
    errors.TooLarge,
)

_SOCKET_BYTES = 2**22
_KEPT_BYTES = 2**26  # of an idle child, at most
_STARTS = 3
_START_PAUSE_S = 0.2
_START_S = 60.0
_GRACE_S = 2.0  # how long after its limit a child may still be alive
_RECYCLE_AFTER = 2000  # calls; a damaged file may have left something in the child's memory
_spent = threading.local()


def processor_s() -> float:
    """Processor seconds of children so far on calls of this thread; where the machine does not say, seconds of the clock."""
    return getattr(_spent, "seconds", 0.0)


class Sandbox:
    """Calls ``function`` in up to ``children`` processes at once. Any number of threads may share one sandbox.

    ``call`` raises the LoadError that the function raised, TooLarge when it ran out of memory and DecoderTimeout when it ran
    out of time. It raises DecoderCrashed when the process died twice on the same bytes: a single death may be the fault of
    an earlier recording, or of the machine.
    """

    def __init__(
        self,
        function: Function,
        limits: CallLimits,
        children: int = 2,
        level: Level = "auto",
        imports: Sequence[str] = (),
        raises: Collection[type[LoadError]] = OF_CONTENT,
    ) -> None:
        """With the level ``require``, a call raises ConfigError on a machine that cannot confine a child.

        ``imports`` are modules that the function imports only while it runs: in the jail it may be too late for that.
        ``raises`` are the LoadErrors that the function has a say in. A child that claims another one has been taken over.
        """
        self._target = f"{function.__module__}:{function.__qualname__}"
        self._limits, self._level, self._imports = limits, level, tuple(imports)
        self._raises = {kind.reason: kind for kind in raises}
        self._children = children
        self._renew()
        _sandboxes.add(self)
        atexit.register(self.close)

    def _renew(self) -> None:
        self._free = threading.Semaphore(self._children)
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    def call(
        self, data: Bytes, recording_id: str, settings: dict[str, Any], files: Sequence[int] = ()
    ) -> tuple[dict[str, Any], np.ndarray]:
        """What the function returns for ``data``.

        ``files`` are descriptors that the function finds with ``sandbox.child.received_files``; they stay open here. A
        descriptor carries the rights that it was opened with: open what the child only reads with O_RDONLY.
        """
        with self._free:
            for last_try in (False, True):
                child = self._take_child(fresh=last_try)
                try:
                    answer = child.call(data, recording_id, settings, files)
                except _ChildDiedError as death:
                    child.kill()
                    if last_try or death.timed_out:
                        raise self._explain_death(death, recording_id) from None
                    continue
                except BaseException:
                    child.kill()  # it may still work on this call
                    raise
                if answer[0].get("failure", {}).get("reason") == TooLarge.reason:
                    child.kill()  # its memory may be in pieces
                else:
                    self._put_back(child)
                return self._read(answer, recording_id)
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """One child for several calls, which may keep what it knows between them: a session counts as one of ``children``.

        A call that fails is not tried a second time, since its child is gone with all that it knew.
        """
        with self._free:
            session = Session(self)
            try:
                yield session
            finally:
                session._end()

    def close(self) -> None:
        """Ends the idle children."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def _take_child(self, *, fresh: bool) -> _Child:
        with self._lock:
            if self._idle and not fresh:
                return self._idle.pop()
        why: Exception | None = None
        for attempt in range(_STARTS):  # a child that dies before it has seen a byte says nothing about the recording
            time.sleep(attempt * _START_PAUSE_S)
            try:
                return _Child(self._target, self._limits, self._level, self._imports)
            except (_ChildDiedError, OSError) as error:
                why = error
        cause = str(why) if isinstance(why, _ChildDiedError) else f"{type(why).__name__} {getattr(why, 'errno', '')}"
        raise RunError(
            f"no process could be started to read recordings in, {_STARTS} times in a row ({cause}), as every recording "
            "would meet. Is the machine out of memory, processes or open files? dictalake doctor tries one"
        )

    def _put_back(self, child: _Child) -> None:
        if child.calls >= _RECYCLE_AFTER:
            child.kill()
            return
        with self._lock:
            self._idle.append(child)

    def _explain_death(self, death: _ChildDiedError, recording_id: str) -> LoadError:
        if death.timed_out:
            return DecoderTimeout(recording_id, self._explain_timeout())
        return DecoderCrashed(recording_id, f"{death}; handle this file with caution, or leave it out")

    def _read(self, answer: tuple[dict[str, Any], np.ndarray], recording_id: str) -> tuple[dict[str, Any], np.ndarray]:
        result, samples = answer
        failure = result.get("failure")
        if failure is None:
            return result["value"], samples
        if failure["reason"] == TooLarge.reason:
            raise TooLarge(
                recording_id,
                f"decoding it takes more than the {self._limits.memory_mb:g} MB of limits.decode_mb: the header is damaged, or "
                "the recording must be split",
            )
        if failure["reason"] == errors.InternalError.reason:
            raise errors.InternalError(recording_id, failure["detail"], "load")
        kind = self._raises.get(failure["reason"])
        if kind is None:  # such as that the row was erased, or that the storage gives nothing
            raise DecoderCrashed(
                recording_id, "the decoder's process claims what it cannot know; handle this file with caution, or leave it out"
            )
        raise kind(recording_id, failure["detail"])

    def _explain_timeout(self) -> str:
        return (
            f"decoding it took more than {self._limits.cpu_s:g} s of the processor or {self._limits.clock_s:g} s of the clock "
            "(limits.decode_s): the file is damaged, or the recording must be split"
        )


class Session:
    """Calls that one child answers, as long as none of them fails: the next call after that has a fresh child."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._child: _Child | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the next call meets a child that has answered none of this session."""
        return self._child is None

    def call(
        self, data: Bytes, recording_id: str, settings: dict[str, Any], files: Sequence[int] = ()
    ) -> tuple[dict[str, Any], np.ndarray]:
        """As ``Sandbox.call``, and raises the same."""
        if self._child is None or self._child.is_inherited:
            self._child = self._sandbox._take_child(fresh=True)
        try:
            answer = self._child.call(data, recording_id, settings, files)
        except _ChildDiedError as death:
            self._end()
            raise self._sandbox._explain_death(death, recording_id) from None
        except BaseException:
            self._end()
            raise
        return self._sandbox._read(answer, recording_id)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()


class _ChildDiedError(Exception):
    def __init__(self, sentence: str, *, timed_out: bool) -> None:
        super().__init__(sentence)
        self.timed_out = timed_out


class _Child:
    """One process and the socket to it."""

    def __init__(self, target: str, limits: CallLimits, level: Level, imports: Sequence[str]) -> None:
        self.calls = 0
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
        began_at, used_s = time.monotonic(), self._find_processor_s()
        deadline = began_at + self._limits.clock_s + _GRACE_S
        nonce = secrets.token_hex(8)
        request = json.dumps({"recording_id": recording_id, "settings": settings, "nonce": nonce}).encode()
        try:
            self._exchange(lambda: send_request(self._socket, request, data, files), deadline)
            return self._receive(deadline, nonce)
        finally:
            now_s = self._find_processor_s()
            known_s = None if used_s is None or now_s is None else now_s - used_s
            _spent.seconds = processor_s() + (time.monotonic() - began_at if known_s is None else known_s)

    @property
    def is_inherited(self) -> bool:
        """Whether it works for the process that this one was forked from."""
        return self._owner != os.getpid()

    def let_go(self) -> None:
        """In a fork: the child stays its owner's."""
        self._socket.close()
        self._process.returncode = 0  # nobody here waits for it

    def _find_processor_s(self) -> float | None:
        """None on macOS, and of a child that is gone."""
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
                raise _ChildDiedError("the decoder's process spoke out of turn", timed_out=False)

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
            raise _ChildDiedError("the decoder did not answer", timed_out=True) from None
        except ValueError:
            raise _ChildDiedError("the decoder's process answered as no decoder does", timed_out=False) from None
        except (OSError, EOFError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            code = self._process.returncode
            if code is not None and -code in TIMES_UP:
                raise _ChildDiedError("out of time", timed_out=True) from None
            how = signal.Signals(-code).name if code is not None and code < 0 else f"status {code or 0}"
            raise _ChildDiedError(f"the decoder's process ended with {how} while reading it", timed_out=False) from None


def _hide_where_needed(holds: Holds) -> None:
    """Keeps the child from this process's memory and environment where the jail does not.

    It is the last choice: Ray's memory monitor of an ordinary user does not see the memory of a process that hides.
    """
    if not (holds.hides_parent or (holds.no_capabilities and jail.has_capabilities())):
        jail.hide_from_user()


_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()
_all_children: weakref.WeakSet[_Child] = weakref.WeakSet()


def _begin_anew() -> None:
    """In a fork: two processes that ask one child would get each other's answers. Threads that held locks are gone."""
    for child in list(_all_children):
        child.let_go()
    _all_children.clear()
    for sandbox in list(_sandboxes):
        sandbox._renew()


os.register_at_fork(after_in_child=_begin_anew)
