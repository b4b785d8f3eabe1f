"""Reads the output of Ray Data in a separate thread, so that the driver can do other work while it waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa


class ReportReader:
    """Iterates over ``reports`` as they arrive, and gives None after each ``tick_s`` without one.

    ``interrupt`` makes ``reports`` end soon, also while the thread waits for the next one.
    """

    def __init__(self, reports: Iterable[pa.Table], tick_s: float, interrupt: Callable[[], None] = lambda: None) -> None:
        self._reports, self._tick_s, self._interrupt = reports, tick_s, interrupt
        self._arrived: queue.Queue[pa.Table | BaseException | None] = queue.Queue()
        self._is_over = threading.Event()
        # A daemon, since a Ray that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._read, name="reports", daemon=True)

    def __iter__(self) -> Iterator[pa.Table | None]:
        self._thread.start()
        while True:
            try:
                report = self._arrived.get(timeout=self._tick_s)
            except queue.Empty:
                yield None
                continue
            if report is None:
                return
            if isinstance(report, BaseException):
                raise report
            yield report

    def take_arrived(self) -> Iterator[pa.Table]:
        """The reports that have already arrived, for a caller that wants no more."""
        while not self._arrived.empty():
            if isinstance(report := self._arrived.get_nowait(), pa.Table):
                yield report

    def stop(self, patience_s: float) -> bool:
        """Stops the thread, waits for it, and returns whether it ended.

        Call it while Ray still runs: Ray ends the process when a thread uses it after its shutdown.
        """
        self._is_over.set()
        if self._thread.is_alive():
            self._interrupt()
            self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            for report in self._reports:
                if self._is_over.is_set():
                    return
                self._arrived.put(report)
            self._arrived.put(None)
        except BaseException as error:
            self._arrived.put(error)
