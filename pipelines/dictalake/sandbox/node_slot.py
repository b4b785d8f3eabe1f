"""One place on a machine for work that takes much memory: whoever has it is alone with it, whichever run it belongs to.

The place is a lock on a file in a folder of this user, and so is the ticket of each who waits: the kernel gives both back when
their owner ends, however it ends. Tickets are in the order in which they were taken, and each waits for the one before it. They
decide who is next, and nothing else: that nobody has the place beside another one is up to the place's own lock. So who is
first and does not take the place though it is free, since its process is stopped, is passed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HIDDEN = "."  # how the name of a ticket begins before it is locked
_SLICE_S = 1.0  # how often who waits looks whether the first of all is stopped
_LOOKS = 3
_LITTER_S = 86_400.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_passed: set[str] = set()  # tickets; kept, so that a process waits for each of them once
_held: set[int] = set()
_own: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


@contextmanager
def hold_slot(name: str, wait_s: float) -> Iterator[None]:
    """Within, nobody else on this machine holds ``name``. Who asks first gets it first. Raises TimeoutError when it is not free
    for ``wait_s`` seconds.

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
    deadline = time.monotonic() + wait_s
    place = folder / f"{name}.lock"
    with _queue_up(find_queue(folder, name), place, deadline), _open_lock(place) as lock:
        while not _try_lock(lock):  # somebody without a ticket has it, or one who was passed
            _wait_for(place, deadline)
        _remove_litter(folder, name)
        yield


def find_queue(folder: Path, name: str) -> Path:
    """Of this boot: the clock of the tickets begins anew with each."""
    boot = ""
    with suppress(OSError):  # macOS has none
        boot = f".{_BOOT.read_text().strip()}"
    return folder / f"{name}{boot}.queue"


@contextmanager
def _queue_up(queue: Path, place: Path, deadline: float) -> Iterator[None]:
    """Begins when all are gone who came before, or stopped."""
    queue.mkdir(mode=0o700, exist_ok=True)
    ticket = queue / f"{time.monotonic_ns():020}-{os.getpid()}-{secrets.token_hex(4)}"  # the same clock for all processes
    hidden, owner = queue / f"{_HIDDEN}{ticket.name}", os.getpid()
    try:
        with _open_lock(hidden) as lock:
            _try_lock(lock)
            hidden.rename(ticket)  # from now on others see it
            stopped = _Stopped(ticket, place)
            while names := stopped.list_before():
                before = queue / max(names)
                if not _wait_for(before, deadline, stopped.look):
                    before.unlink(missing_ok=True)  # its owner was killed
            yield
    finally:
        if os.getpid() == owner:
            hidden.unlink(missing_ok=True)
            ticket.unlink(missing_ok=True)


class _Stopped:
    """Those before ``ticket`` who were first and did not take the place at ``place`` while it was free."""

    def __init__(self, ticket: Path, place: Path) -> None:
        self._ticket, self._place = ticket, place
        self._first, self._looks = "", 0

    def list_before(self) -> list[str]:
        """All others before the ticket."""
        names = os.listdir(self._ticket.parent)
        return [one for one in names if not one.startswith(_HIDDEN) and one < self._ticket.name and one not in _passed]

    def look(self) -> bool:
        """Whether there is one more. It is called once in a while."""
        first = min(self.list_before(), default="")
        if not first:  # another thread passed it
            return True
        if not _is_free(self._place):
            self._looks = 0
            return False
        self._looks = self._looks + 1 if first == self._first else 1
        self._first = first
        if self._looks < _LOOKS:
            return False
        _passed.add(first)
        return True


def _is_free(place: Path) -> bool:
    with suppress(FileNotFoundError):
        file = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return _try_lock(file, fcntl.LOCK_SH)
        finally:
            _close(file)
    return True


def _remove_litter(folder: Path, name: str) -> None:
    """What those left who were killed, also before the machine started anew."""
    for path in folder.glob(f"{name}*.queue/*"):
        with suppress(OSError):  # somebody else removes it
            if time.time() - path.lstat().st_mtime < _LITTER_S:
                continue
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if _try_lock(file):
                    path.unlink()
            finally:
                _close(file)


def _wait_for(path: Path, deadline: float, is_over: Callable[[], bool] = lambda: False) -> bool:
    """Returns when nobody has the lock of this file any more, or ``is_over``; False where nobody had it.

    Raises TimeoutError.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    if _try_lock(file, fcntl.LOCK_SH):
        _close(file)
        return False
    is_free = threading.Event()

    def wait() -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        finally:
            _close(file)
            is_free.set()

    # The kernel wakes it. Where the time is up before, it stays until then.
    threading.Thread(target=wait, name="node-slot", daemon=True).start()
    while not is_free.wait(max(0.0, min(_SLICE_S, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            raise TimeoutError
        if is_over():
            break
    return True


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    owner = os.getpid()
    _held.add(lock)
    try:
        yield lock
    finally:
        if os.getpid() == owner:
            _held.discard(lock)
            _close(lock)


def _close(file: int) -> None:
    _unlock(file)  # a process started meanwhile may have a copy of the descriptor
    os.close(file)


def _unlock(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)


def _try_lock(file: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def _let_go() -> None:
    """In a fork: the place is its parent's, also when that ends first."""
    for lock in _held:
        with suppress(OSError):
            os.close(lock)
    _held.clear()
    _own.clear()


os.register_at_fork(after_in_child=_let_go)
