"""Calls to a storage that end: with their result, or when their time is over, whatever they wait for.

A read that blocks in the kernel (a network file system whose server is gone) or in a library cannot be stopped. So a call runs
in a thread of its own, and who waits for it leaves it behind when its time is over. What it can be told to do then, it does: a
socket is shut down, a coroutine cancelled, and the next bytes that come are refused. Its thread is a daemon, which no exit of
the process waits for. Where so many calls stay behind that the threads would run out, no further one begins.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

LEAST_BYTES = 2**14  # fewer than these are silence: a server that sends a byte now and then does not hold a worker
REQUEST_S = 120.0  # for what is no object: a page of a listing, a block of a manifest, the state of an object
LISTING_S = 6 * 3600.0  # for a listing of millions that a library makes in one call
_MOST_IDLE = 32
_MOST_STUCK = 64  # calls left behind that have not ended; a storage that is back ends them

Result = TypeVar("Result")
_running = threading.local()


class SilentStorage(TimeoutError):
    """Nothing, or next to nothing, came for too long; the next try may go better."""


class TooLate(TimeoutError):
    """The whole time of the call is over."""


class HangingStorage(TimeoutError):
    """Too many earlier calls of this process still hang, so that this one was not begun; the next try may go better."""


class LeftBehind(BaseException):
    """Ends a call that nobody waits for any more. No ``except Exception`` of a library keeps it."""


class Call:
    """One call, as seen from the thread that runs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stops: list[Callable[[], object]] = []
        self._left = self._ended = False
        self._bytes = 0
        self.heard_at = time.monotonic()

    def hear(self, count: int) -> None:
        """Notes that so many bytes came. Raises LeftBehind where nobody waits for them."""
        if self._left:
            raise LeftBehind
        self._bytes += count
        if self._bytes >= LEAST_BYTES:
            self._bytes = 0
            self.heard_at = time.monotonic()

    def on_leaving(self, stop: Callable[[], object]) -> None:
        """``stop()`` is called, from another thread, when this call is left behind."""
        with self._lock:
            self._stops.append(stop)
            left = self._left
        if left:
            _run_all([stop])
            raise LeftBehind

    @contextmanager
    def stopped_by(self, stop: Callable[[], object]) -> Iterator[None]:
        """As ``on_leaving``, for what happens within."""
        self.on_leaving(stop)
        try:
            yield
        finally:
            with self._lock, suppress(ValueError):  # the call was left behind
                self._stops.remove(stop)

    def leave(self) -> None:
        with self._lock:
            self._left = True
            stops, self._stops = self._stops, []
            if not self._ended:
                _stuck.add(self)
        _run_all(stops)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            _stuck.discard(self)


def _run_all(stops: list[Callable[[], object]]) -> None:
    for stop in stops:
        with suppress(OSError):  # the socket is closed already
            stop()


def running_call() -> Call:
    """The call that this thread runs. Outside of ``call_within``, one that nobody leaves."""
    call: Call | None = getattr(_running, "call", None)
    return Call() if call is None else call


def call_within(work: Callable[[], Result], deadline: float, silence_s: float | None = None) -> Result:
    """``work()``, which runs in another thread.

    Raises TooLate at ``deadline`` (of ``time.monotonic``), and SilentStorage when ``Call.hear`` was told of fewer than
    LEAST_BYTES for ``silence_s`` seconds. Raises HangingStorage at once where many calls that were left behind still hang.
    """
    if len(_stuck) >= _MOST_STUCK:
        raise HangingStorage
    call = Call()
    results: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.jobs.put((call, work, results))
    try:
        while True:
            until = deadline if silence_s is None else min(deadline, call.heard_at + silence_s)
            try:
                is_good, result = results.get(timeout=max(0.0, until - time.monotonic()))
                break
            except Empty:
                now = time.monotonic()
                if now >= deadline:
                    raise TooLate from None
                if silence_s is not None and now >= call.heard_at + silence_s:
                    raise SilentStorage from None
    except BaseException:
        call.leave()
        raise
    if is_good:
        return result
    raise result


def run_coroutine(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of ``coroutine`` in the ``loop`` of another thread; it is cancelled when the running call is left behind."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    with running_call().stopped_by(future.cancel):  # the future holds the bytes that came
        return future.result()


class _Worker:
    """A thread that runs one call after the other: to start one for each costs more than to read a small file."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[Call, Callable[[], Any], SimpleQueue[tuple[bool, Any]]]] = SimpleQueue()
        threading.Thread(target=self._serve, name="storage", daemon=True).start()

    def _serve(self) -> None:
        while True:
            call, work, results = self.jobs.get()
            _running.call = call
            answer: tuple[bool, Any]
            try:
                answer = True, work()
            except BaseException as error:  # who waits for it raises it
                answer = False, error
            _running.call = None
            call.end()
            is_spare = len(_idle) >= _MOST_IDLE
            if not is_spare:
                _idle.append(self)
            results.put(answer)
            if is_spare:
                return
            del call, work, results, answer  # they may hold an object's bytes


_idle: list[_Worker] = []
_stuck: set[Call] = set()
os.register_at_fork(after_in_child=_idle.clear)  # a fork has no threads but the one that forked
os.register_at_fork(after_in_child=_stuck.clear)
