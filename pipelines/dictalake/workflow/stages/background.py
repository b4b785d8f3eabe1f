"""Runs work in a background thread, on items that the caller submits one at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _End:
    """Marks the end of the items; ``error`` says why, if they are incomplete."""

    error: BaseException | None = None


class BackgroundTask(Generic[Item, Result]):
    """Runs ``consume`` over the items in a thread of ``pool``. Every task needs one ``finish`` or ``fail``.

    ``submit`` waits while ``most_waiting`` items have not been taken yet. Once ``consume`` has returned or raised, items are
    dropped, so that the caller never waits for a thread that has ended.
    """

    def __init__(self, pool: ThreadPoolExecutor, consume: Callable[[Iterator[Item]], Result], most_waiting: int) -> None:
        self._items: queue.Queue[Item | _End] = queue.Queue(most_waiting)
        self._is_over = threading.Event()
        self._result = pool.submit(self._run, consume)

    def submit(self, item: Item) -> None:
        """Hands over the next item."""
        self._put(item)

    def finish(self) -> None:
        """Says that there are no more items."""
        self._put(_End())

    def fail(self, error: BaseException) -> None:
        """Says that the items end here because of ``error``, which ``result`` then raises unless ``consume`` has returned."""
        self._put(_End(error))

    def result(self) -> Result:
        """Waits for what ``consume`` returns. Raises what it raised, or what ``fail`` was given."""
        return self._result.result()

    def _put(self, item: Item | _End) -> None:
        if not self._is_over.is_set():
            self._items.put(item)

    def _run(self, consume: Callable[[Iterator[Item]], Result]) -> Result:
        try:
            return consume(self._take())
        finally:
            self._is_over.set()
            while not self._items.empty():  # makes room for a caller that waits in submit
                self._items.get()

    def _take(self) -> Iterator[Item]:
        while True:
            item = self._items.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return
