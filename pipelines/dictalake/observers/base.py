"""Observers of a run: the progress on the terminal, metrics, lineage and the report. The run calls all of them alike.

An observer never fails the run: an error in one becomes a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from dictalake import logs, stops, terminal
from dictalake.config.sections import Config
from dictalake.errors import name_place
from dictalake.transcript.provenance import Provenance

State = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True)
class RunStart:
    """The identity of a run, known once the model and the decoder are."""

    config: Config
    provenance: Provenance
    job: str


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: with ``error``, or without one."""

    error: BaseException | None = None

    @property
    def state(self) -> State:
        """A run that is stopped (Ctrl-C, SIGTERM) has not failed."""
        if self.error is None:
            return "finished"
        return "stopped" if stops.is_stop(self.error) else "failed"


class Observer:
    """Does nothing; those below override what concerns them. The methods are called in this order, in the run's own thread."""

    name = "observer"

    def step_started(self, step: str) -> None:
        """The run begins ``step``, such as "starting Ray". It may have no name yet."""

    def run_started(self, start: RunStart) -> None:
        """The run has a name."""

    def block_finished(self) -> None:
        """A block of recordings is done; its counts are in the RunStats."""

    def time_passed(self) -> None:
        """Called about once a second, whether or not anything finished."""

    def run_ended(self, end: RunEnd) -> None:
        """The run is over. Also called for a run that failed before it had a name."""


class LibraryLogTrimmer(Observer):
    """Keeps the file that Ray and other libraries write to small while the run lasts."""

    name = "library log"

    def time_passed(self) -> None:
        if (log := terminal.library_log()) is not None:
            log.trim()


class Observers(Observer):
    """All observers of a run, as one."""

    name = "observers"

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def step_started(self, step: str) -> None:
        for observer in self._observers:
            _call(observer, observer.step_started, step)

    def run_started(self, start: RunStart) -> None:
        for observer in self._observers:
            _call(observer, observer.run_started, start)

    def block_finished(self) -> None:
        for observer in self._observers:
            _call(observer, observer.block_finished)

    def time_passed(self) -> None:
        for observer in self._observers:
            _call(observer, observer.time_passed)

    def run_ended(self, end: RunEnd) -> None:
        """Calls each observer at the end, even if the user stops the run while an earlier one is still working."""
        stopped: BaseException | None = None
        for observer in self._observers:
            try:
                _call(observer, observer.run_ended, end)
            except BaseException as error:
                stopped, end = error, RunEnd(error)
        if stopped is not None:
            raise stopped


@contextmanager
def observing(observers: Sequence[Observer]) -> Iterator[Observers]:
    """Tells the observers how the block ended."""
    all_of_them = Observers(observers)
    try:
        yield all_of_them
    except BaseException as error:
        all_of_them.run_ended(RunEnd(error))
        raise
    all_of_them.run_ended(RunEnd())


def _call(observer: Observer, method: Callable[..., None], *arguments: Any) -> None:
    try:
        method(*arguments)
    except Exception as error:  # whatever it is, it must not cost the run
        line = f"{observer.name}: {name_place(error)}; the run continues without it"
        logs.log_event("observer", line, level=logs.WARNING, observer=observer.name)
