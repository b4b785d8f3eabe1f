"""Folders for what DuckDB spills. A process that is killed leaves its own behind; the next one removes it.

Who works in a folder holds a lock on it, which the kernel gives back when the process ends, however that happens.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_UNNAMED = "dictalake-new-"


def make_spill_folder(prefix: str) -> tuple[Path, Callable[[], None]]:
    """A new folder that only its owner can enter, and what removes it. Folders of this prefix whose process is gone are
    removed. Raises OSError."""
    parent = Path(tempfile.gettempdir())
    _remove_abandoned(parent, prefix)
    unnamed = Path(tempfile.mkdtemp(prefix=_UNNAMED, dir=parent))
    held = os.open(unnamed, os.O_RDONLY)
    with suppress(OSError):  # a file system without locks, as some clusters have: then nobody removes folders of others
        fcntl.flock(held, fcntl.LOCK_EX)
    folder = unnamed.rename(parent / f"{prefix}{unnamed.name.removeprefix(_UNNAMED)}")  # only now can others find it

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)

    return folder, remove


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Nothing of other users stops it, and no link is followed."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            with suppress(OSError):  # another process clears up too
                if entry.name.startswith(prefix) and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(folder: str) -> None:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)
