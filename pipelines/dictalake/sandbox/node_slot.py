"""One place on a machine for work that takes much memory: whoever has it is alone with it, whichever run it belongs to.

The place is a lock on a file in a folder of this user. The kernel gives it back when its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dictalake.errors import ConfigError

_PAUSE_S = 0.05


@contextmanager
def hold_slot(name: str, wait_s: float) -> Iterator[None]:
    """Within, nobody else on this machine holds ``name``. Raises TimeoutError when it is not free for ``wait_s`` seconds.

    Raises ConfigError where the folder is not this user's own.
    """
    folder = _make_folder()
    lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take(lock, time.monotonic() + wait_s)
        yield
    finally:
        os.close(lock)


def _take(lock: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(_PAUSE_S)


def _make_folder() -> Path:
    """In the temporary folder anybody may have put something under this name: a link, or a folder that others can write to."""
    folder = Path(tempfile.gettempdir()) / f"dictalake-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise ConfigError(
            f"cannot make a folder for locks in the temporary folder ({type(error).__name__}); set TMPDIR"
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"the folder dictalake-{os.getuid()} in the temporary folder is open to other users or not yours, so they could "
            "hold up this run: remove it, or set TMPDIR to a folder of your own"
        )
    return folder
