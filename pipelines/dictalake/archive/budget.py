"""What one archive object may cost: hours of sound, and processor seconds of who unpacks and decodes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from dictalake.config.sections import Limits
from dictalake.errors import ArchiveOverBudget
from dictalake.sandbox.process import processor_s


class ObjectBudget:
    """Counts what the files of one archive object cost so far in this run. Any number of threads may share it."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, Lock()
        self._sound_s = self._worked_s = 0.0

    def add_sound(self, seconds: float) -> None:
        """Counts one file: the sum over its channels."""
        with self._lock:
            self._sound_s += seconds

    def require(self, recording_id: str) -> None:
        """Raises ArchiveOverBudget, for this file, where the budget is used up."""
        with self._lock:
            sound_h, worked_s = self._sound_s / 3600, self._worked_s
        if sound_h >= self._limits.archive_h:
            spent = f"the {self._limits.archive_h:g} hours of sound of limits.archive_h"
        elif worked_s >= self._limits.archive_s:
            spent = f"the {self._limits.archive_s:g} processor seconds of limits.archive_s"
        else:
            return
        raise ArchiveOverBudget(
            recording_id,
            f"the files before this one in its archive have used up {spent}; split the archive, or raise the limit and run "
            "again with --retry-failed archive_over_budget",
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Counts what this thread has children do within, not how long it waits for one or for its place on the machine."""
        before_s = processor_s()
        try:
            yield
        finally:
            with self._lock:
                self._worked_s += processor_s() - before_s
