"""Where the machine code of the search lies, and which process makes it. Imports no numba, which takes half a second.

It lies in ``NUMBA_CACHE_DIR``, else in the user's cache folder, below a folder for exactly these sources. numba looks only at
the file of the function that Python calls. After an upgrade it would go on with old machine code if another file has changed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from dictalake.config.sections import Decoding

_OWNER_ONLY = 0o700
_LONGEST_WAIT_S = 120.0  # for another process that compiles; then one compiles for itself


@functools.cache
def hash_sources(folder: Path = Path(__file__).parent) -> str:
    """A name for all Python files of ``folder``: another one as soon as one of them changes."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def find_folder() -> Path:
    """The folder for these sources, whether it exists or not."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    return (Path(given) if given else _users_folder()) / f"dictalake-{hash_sources()}"


def open_folder() -> str | None:
    """A folder that may be written to, with all the machine code there is; None where there is no such place.

    numba uses no folder that it may not write to. Of one that may only be read, as in an image, there is a copy in the user's
    cache folder, or where that is read-only too in a folder of this process.
    """
    folder = find_folder()
    with suppress(OSError):
        _make(folder)
    if os.access(folder, os.W_OK):
        return str(folder)
    return _copy(folder) if folder.is_dir() else None


def _copy(folder: Path) -> str | None:
    copy = _users_folder() / folder.name
    if copy != folder and copy.is_dir() and os.access(copy, os.W_OK):
        return str(copy)
    with suppress(OSError):
        _make(copy.parent)
        beside = Path(tempfile.mkdtemp(prefix=".copying-", dir=copy.parent))
        _copy_files(folder, beside)
        with suppress(OSError):  # another process was faster
            beside.rename(copy)
        shutil.rmtree(beside, ignore_errors=True)
        return str(copy)
    with suppress(OSError):
        beside = Path(tempfile.mkdtemp(prefix="dictalake-numba-"))
        _copy_files(folder, beside)
        return str(beside)
    return None


def _copy_files(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, dirs_exist_ok=True, copy_function=shutil.copy, ignore=shutil.ignore_patterns("ready-*"))
    to.chmod(_OWNER_ONLY)


def _make(folder: Path) -> None:
    """What lies in the user's cache folder is for this user alone; others may read a folder that was named, as in an image."""
    mode = _OWNER_ONLY if _users_folder() in (folder, *folder.parents) else 0o777
    folder.mkdir(mode, parents=True, exist_ok=True)


def _users_folder() -> Path:
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # there is no home
        cache = Path(os.devnull)  # nothing can be made below it
    return cache / "dictalake" / "compiled"


def is_made() -> bool:
    """Whether a process with this Python, numba and type of processor has compiled the search."""
    return _ready_file(find_folder()).exists()


def needs_machine_code(config: Decoding) -> bool:
    """Whether the decoder of this configuration is compiled."""
    return config.kind == "beam" and config.engine != "pyctcdecode"


@contextmanager
def made_ahead(config: Decoding) -> Iterator[None]:
    """Compiles what ``config`` needs in a process beside this one, if nobody has yet. It ends with the block."""
    if is_made():
        yield
        return
    # -P: no file of the folder in which somebody runs this takes the place of a module.
    command = [sys.executable, "-P", "-m", __package__, *list_parts(config)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as compiler:
        try:
            yield
        finally:
            compiler.kill()  # files appear whole or not at all


def list_parts(config: Decoding) -> list[str]:
    """The parts in ``__main__`` that a decoder needs; it compiles what is missing itself."""
    parts = ["search"]
    if config.lm is not None:
        parts.insert(0, "arpa" if ".arpa" in Path(config.lm).name else "kenlm")  # the search calls it
    if config.hotwords is not None:
        parts.append("hotwords")
    return parts


@contextmanager
def made_once() -> Iterator[None]:
    """Open the first decoder of a process in it: of several processes one compiles, and the others wait and load the result."""
    folder = find_folder()
    ready = _ready_file(folder)
    if ready.exists():
        yield
        return
    try:
        _make(folder)
        lock = FileLock(folder / f"{ready.name}.lock")
        lock.acquire(timeout=_LONGEST_WAIT_S)
    except (OSError, NotImplementedError, Timeout):  # NotImplementedError: the file system has no locks
        yield
        return
    with lock:
        if not ready.exists():
            yield
            with suppress(OSError):
                ready.touch()
            return
    yield


def _ready_file(folder: Path) -> Path:
    processor = os.environ.get("NUMBA_CPU_NAME") or _read_processor()
    made_for = f"{sys.version_info[0]}.{sys.version_info[1]} {version('numba')} {platform.machine()} {processor}"
    return folder / f"ready-{hashlib.sha256(made_for.encode()).hexdigest()[:16]}"


def _read_processor() -> str:
    """What tells types of processors apart for LLVM: the model and its features."""
    names = ("model name", "flags", "CPU part", "Features")
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(names))
    return platform.processor()
