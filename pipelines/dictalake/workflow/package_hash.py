"""Tells whether two processes run the same code of dictalake.

A worker imports dictalake from its own machine. On another machine that may be another version, and a folder called
``dictalake`` in the directory where a run was started comes first on its workers' path. Such a worker would write text
under the name of code that did not make it, so the driver sends the hash of its package along and the worker compares.
"""

from __future__ import annotations

import socket
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from dictalake.config.locations import PACKAGE
from dictalake.errors import ConfigError


class Package(NamedTuple):
    """Where a process has its dictalake, and the hash of the code in it."""

    machine: str
    folder: str
    hash: str


def hash_package(folder: Path) -> str:
    """A hash of the code below ``folder``: relative paths and bytes of its Python and SQL files, in sorted order."""
    digest = blake2b(digest_size=8)
    code = (path for kind in ("*.py", "*.sql") for path in folder.rglob(kind))
    code = (path for path in code if not path.name.startswith("."))  # an editor's lock is no code
    for path in sorted(code, key=lambda path: path.relative_to(folder).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


@cache
def read_own_package() -> Package:
    """The package of this process, as it was when the process first asked."""
    return Package(socket.gethostname(), str(PACKAGE), hash_package(PACKAGE))


def is_own_code(driver: Package) -> bool:
    """Whether this process runs the code of ``driver``."""
    return read_own_package().hash == driver.hash


def require_same_package(driver: Package) -> None:
    """Raises ConfigError, naming both packages, if this process runs other code than ``driver``."""
    if is_own_code(driver):
        return
    own = read_own_package()
    if (own.machine, own.folder) == (driver.machine, driver.folder):
        what = "the files were changed while the run was at work; start it again"
    elif own.machine == driver.machine:
        what = "start the run in another directory, or remove or rename the folder that the workers found"
    else:
        what = "install the same dictalake on all machines of the cluster, and start the run again"
    raise ConfigError(
        f"a worker runs other code than the driver: the driver's dictalake is {driver.folder} on {driver.machine} "
        f"(hash {driver.hash}), the worker's is {own.folder} on {own.machine} (hash {own.hash}); {what}"
    )
