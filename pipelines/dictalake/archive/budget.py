"""What one archive object may cost: hours of sound, and seconds of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import TypeVar

from dictalake.config.sections import Limits
from dictalake.errors import ArchiveOverBudget

Item = TypeVar("Item")


class ObjectBudget:
    """Counts what the files of one archive object cost so far in this run. Any number of threads may share it."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, Lock()
        self._sound_s = self._worked_s = 0.0
        self._since: float | None = None

    def add_sound(self, seconds: float) -> None:
        """Counts one file: the sum over its channels."""
        with self._lock:
            self._sound_s += seconds

    def require(self, recording_id: str) -> None:
        """Raises ArchiveOverBudget, for this file, where the budget is used up."""
        with self._lock:
            sound_h, worked_s = self._sound_s / 3600, self._worked_s
            if self._since is not None:
                worked_s += monotonic() - self._since
        if sound_h >= self._limits.archive_h:
            spent = f"the {self._limits.archive_h:g} hours of sound of limits.archive_h"
        elif worked_s >= self._limits.archive_s:
            spent = f"the {self._limits.archive_s:g} seconds of limits.archive_s"
        else:
            return
        raise ArchiveOverBudget(
            recording_id,
            f"the files before this one in its archive have used up {spent}; split the archive, or raise the limit and run "
            "again with --retry-failed archive_over_budget",
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        """The clock runs within."""
        with self._lock:
            self._since = monotonic()
        try:
            yield
        finally:
            with self._lock:
                assert self._since is not None
                self._worked_s, self._since = self._worked_s + monotonic() - self._since, None

    def count_time(self, items: Iterator[Item]) -> Iterator[Item]:
        """``items``. The clock runs while the next one is made, not while its taker works on it."""
        while True:
            with self.working():
                item = next(items, None)
            if item is None:
                return
            yield item
