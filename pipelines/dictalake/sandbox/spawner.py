"""Starts processes from one thread that lasts as long as this process.

The kernel ends a child with its parent (PDEATHSIG) when the *thread* that started it ends, which may be one of a pool that
is gone a second later.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any


class _Spawner:
    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[Sequence[str], dict[str, Any], Future[subprocess.Popen[bytes]]]]
        self._wanted = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """As ``subprocess.Popen``."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="sandbox-spawner", daemon=True)
                self._thread.start()
        started: Future[subprocess.Popen[bytes]] = Future()
        self._wanted.put((arguments, options, started))
        return started.result()

    def _serve(self) -> None:
        while True:
            arguments, options, started = self._wanted.get()
            try:
                started.set_result(subprocess.Popen(arguments, **options))
            except BaseException as error:
                started.set_exception(error)
            del started


_spawner = _Spawner()


def start_process(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """``subprocess.Popen`` on the lasting thread."""
    return _spawner.start(arguments, **options)


def _renew() -> None:
    global _spawner
    _spawner = _Spawner()  # a fork has none of its parent's threads


os.register_at_fork(after_in_child=_renew)
