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
import os
import threading
import time
import weakref
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from dictalake import errors
from dictalake.errors import DecoderCrashed, DecoderTimeout, LoadError, RunError, TooLarge
from dictalake.sandbox.levels import Level
from dictalake.sandbox.messages import CallLimits, Function
from dictalake.sandbox.process import Bytes, ChildDiedError, ChildProcess

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

_STARTS = 3
_START_PAUSE_S = 0.2
_RECYCLE_AFTER = 2000  # calls; a damaged file may have left something in the child's memory


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
        self._idle: list[ChildProcess] = []
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
                except ChildDiedError as death:
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

    def _take_child(self, *, fresh: bool) -> ChildProcess:
        with self._lock:
            if self._idle and not fresh:
                return self._idle.pop()
        why: Exception | None = None
        for attempt in range(_STARTS):  # a child that dies before it has seen a byte says nothing about the recording
            time.sleep(attempt * _START_PAUSE_S)
            try:
                return ChildProcess(self._target, self._limits, self._level, self._imports)
            except (ChildDiedError, OSError) as error:
                why = error
        cause = str(why) if isinstance(why, ChildDiedError) else f"{type(why).__name__} {getattr(why, 'errno', '')}"
        raise RunError(
            f"no process could be started to read recordings in, {_STARTS} times in a row ({cause}), as every recording "
            "would meet. Is the machine out of memory, processes or open files? dictalake doctor tries one"
        )

    def _put_back(self, child: ChildProcess) -> None:
        if child.calls >= _RECYCLE_AFTER or child.is_spent:
            child.kill()
            return
        with self._lock:
            self._idle.append(child)

    def _explain_death(self, death: ChildDiedError, recording_id: str) -> LoadError:
        if death.timed_out:
            return DecoderTimeout(recording_id, self._explain_timeout())
        crash = DecoderCrashed(recording_id, f"{death}; handle this file with caution, or leave it out")
        crash.ended = death.ended
        return crash

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
        self._child: ChildProcess | None = None

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
        except ChildDiedError as death:
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


_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


def _begin_anew() -> None:
    """In a fork: threads that held locks are gone, and its children are not its own (``process.py``)."""
    for sandbox in list(_sandboxes):
        sandbox._renew()


os.register_at_fork(after_in_child=_begin_anew)
