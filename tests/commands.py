"""``python -m jobs …`` as a user starts it: a process group of its own, with its own Ray and folder for temporary files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
KEPT: tuple[str, ...] = ()  # variables of dictalake that a job may see


@contextmanager
def own_ray_folder() -> Iterator[Path]:
    """A folder with a short name: the sockets of a Ray session lie below it, and their paths may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(
    arguments: list[str], ray_folder: Path, output: Path, temporary: Path | None = None, umask: int = -1
) -> subprocess.Popen[bytes]:
    """Starts a job; what it prints goes to the file ``output``. A ``umask`` of -1 is that of this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DICTALAKE_") or name in KEPT}
    environment |= {"RAY_TMPDIR": str(ray_folder), "PYTHONUNBUFFERED": "1"}
    if temporary is not None:
        environment["TMPDIR"] = str(temporary)
    with output.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "dictalake", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=umask,
        )
