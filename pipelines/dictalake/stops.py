"""Requests to stop: Ctrl-C, SIGTERM from the system, SIGHUP from a terminal that closes.

The first request raises in the main thread, so that what is finished is committed and the lease is given back. A library may
turn that exception into an error of its own, as DuckDB does, or lose it in a callback. So the request is noted here too:
``converted`` makes a stop of such an error, and ``check`` raises a stop that was lost. A query of DuckDB would wait for its
threads to end their work; ``interrupted_by_stops`` has them told.

While a run is at work, a second Ctrl-C ends the process at once: what is committed stays, and Ray's processes end with this
one. All other requests after the first are ignored then: ``timeout`` and some supervisors send each signal twice.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Protocol, TypeVar
from weakref import WeakSet

RESUME = "what was committed stays, run the same command again to resume"
_TWICE_S = 0.5  # a wrapper that hands Ctrl-C on makes two of one


@dataclass(frozen=True)
class _Request:
    number: int
    at: float


class _Interruptible(Protocol):
    def interrupt(self) -> None: ...


Connection = TypeVar("Connection", bound=_Interruptible)
_connections: WeakSet[_Interruptible] = WeakSet()
_requests: list[_Request] = []  # the first one, if any
_last_words: list[Callable[[str, int], None]] = []


def handle(number: int, frame: FrameType | None) -> None:
    """The handler of the signals that ask this process to stop."""
    is_first = not _requests
    if is_first:
        _requests.append(_Request(number, time.monotonic()))
    if is_first or not _last_words:
        for one in list(_connections):
            with suppress(Exception):  # it is closed
                one.interrupt()
        raise _make_stop()
    if number == signal.SIGINT and time.monotonic() - _requests[0].at > _TWICE_S:
        _end_at_once()


def interrupted_by_stops(connection: Connection) -> Connection:
    """``connection`` to DuckDB, whose queries end when this process is asked to stop."""
    _connections.add(connection)
    return connection


def forget() -> None:
    """Forgets the request: what comes now is another command, or another run of a script that went on."""
    _requests.clear()


def check() -> None:
    """Raises the stop again that was asked for, if any: for places where work goes on."""
    if _requests:
        raise _make_stop()


@contextmanager
def converted() -> Iterator[None]:
    """Raises the stop that was asked for in place of what a library made of it."""
    try:
        yield
    except Exception as error:
        if _requests:
            raise _make_stop() from error
        raise


def is_stop(error: BaseException | None) -> bool:
    """Whether this is how a stop is raised. A run that a person or the machine's owner stops has not failed."""
    return isinstance(error, KeyboardInterrupt | SystemExit)


def _make_stop() -> BaseException:
    number = _requests[0].number
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def second_ends_at_once(say: Callable[[str, int], None]) -> Iterator[None]:
    """Has a second Ctrl-C end the process while the block lasts; ``say(line, exit_code)`` tells of it. It may take no lock: the
    main thread may hold it.
    """
    _last_words.append(say)
    try:
        yield
    finally:
        _last_words.pop()


def _end_at_once() -> None:
    code = 128 + signal.SIGINT
    with suppress(Exception):  # whatever it is, it must not keep the process
        _last_words[-1](f"ended at once; {RESUME}", code)
    os._exit(code)
