"""Reads the listing of an archive in a thread of its own, so that work can begin while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from dictalake.records import Recording

_MOST_WAITING = 50_000  # recordings, each about 1 KB: the listing waits until they are taken
_PATIENCE_S = 5.0  # with a storage that does not answer, at the end


class ListingReader:
    """A context in which what ``scan`` returns is read. ``scan`` is called in the thread.

    ``take`` gives what has arrived. ``is_over`` says that the listing has ended and all of it was taken.
    """

    def __init__(self, scan: Callable[[], Iterator[Recording]]) -> None:
        self._scan = scan
        self._arrived: list[Recording] = []
        self._changed = threading.Condition()
        self._has_ended = self._is_closed = False
        self._error: BaseException | None = None
        # A daemon, since a storage that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._read, name="listing", daemon=True)

    def __enter__(self) -> ListingReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_over(self) -> bool:
        with self._changed:
            return self._has_ended and not self._arrived and self._error is None

    def take(self, patience_s: float) -> list[Recording]:
        """What has arrived, after ``patience_s`` at most; nothing if nothing has. Raises what the listing raised, once all that
        came before was taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._arrived or self._has_ended, patience_s)
            arrived, self._arrived = self._arrived, []
            if not arrived and self._error is not None:
                raise self._error
            self._changed.notify_all()
            return arrived

    def _read(self) -> None:
        try:
            recordings = self._scan()
            for recording in recordings:
                with self._changed:
                    self._arrived.append(recording)
                    if len(self._arrived) == 1:
                        self._changed.notify_all()
                    self._changed.wait_for(lambda: len(self._arrived) < _MOST_WAITING or self._is_closed)
                    if self._is_closed:
                        break
        except BaseException as error:
            self._error = error
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
