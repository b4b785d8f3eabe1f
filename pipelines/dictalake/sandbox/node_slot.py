"""One place on a machine for work that takes much memory: whoever has it is alone with it, whichever run it belongs to.

The place is a lock on a file in a folder of this user. The kernel gives it back when its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PAUSE_S = 0.05
_held: set[int] = set()
_own: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


@contextmanager
def hold_slot(name: str, wait_s: float) -> Iterator[None]:
    """Within, nobody else on this machine holds ``name``. Raises TimeoutError when it is not free for ``wait_s`` seconds.

    Where nobody but others has made a folder for it, this process is alone with itself: what they put there never stops a run.
    """
    folder = find_folder()
    if folder is None:
        if not _own[name].acquire(timeout=max(0.0, wait_s)):
            raise TimeoutError
        try:
            yield
        finally:
            _own[name].release()
        return
    lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    owner = os.getpid()
    _held.add(lock)
    try:
        _take(lock, time.monotonic() + wait_s)
        yield
    finally:
        if os.getpid() == owner:
            _held.discard(lock)
            fcntl.flock(lock, fcntl.LOCK_UN)  # a process started meanwhile may have a copy of the descriptor
            os.close(lock)


def find_folder() -> Path | None:
    """The first of a few places where this user has, or can make, a folder that nobody else can write to."""
    places = []
    with suppress(OSError):  # no temporary folder is writable
        places.append(Path(tempfile.gettempdir()) / f"dictalake-{os.getuid()}")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(runtime) / "dictalake")
    with suppress(RuntimeError):  # no home
        places.append(Path.home() / ".cache" / "dictalake")
    return next((place for place in places if _make_own(place)), None)


def _make_own(folder: Path) -> bool:
    """In the temporary folder anybody may have put something under this name: a link, or a folder that others can write to."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True, parents=True)
        status = folder.lstat()
    except OSError:
        return False
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
    return is_own and os.access(folder, os.W_OK | os.X_OK)


def _take(lock: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(_PAUSE_S)


def _let_go() -> None:
    """In a fork: the place is its parent's, also when that ends first."""
    for lock in _held:
        with suppress(OSError):
            os.close(lock)
    _held.clear()
    _own.clear()


os.register_at_fork(after_in_child=_let_go)
