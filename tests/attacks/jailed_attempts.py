"""Runs all attacks of ``hostile.py`` as a decoder of this process, and once more as a process that nobody confines.

Prints ``{"holds": …, "jailed": {attack: outcome}, "free": {attack: outcome}}``, whether what was attacked is as it was, and
whether Ray's memory monitor sees this process. Run as whom the attacks are to be tried as.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from ctypes import addressof, create_string_buffer
from pathlib import Path
from typing import Any

from dictalake.sandbox.levels import probe
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import Sandbox
from tests.attacks.hostile import attempt

_SECRET = create_string_buffer(b"patients")


def main() -> None:
    sandbox = Sandbox(attempt, CallLimits(cpu_s=20.0, memory_mb=300.0), children=1)
    with _target() as target:
        jailed = sandbox.call(b"", "r1", target.values)[0]
        untouched = target.is_untouched()
        # What Ray's memory monitor, another process of this user, reads of a worker.
        read = ["cat", f"/proc/{os.getpid()}/smaps_rollup"]
        is_visible = subprocess.run(read, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
    sandbox.close()
    with _target() as target:
        command = [sys.executable, "-m", "tests.attacks.hostile", json.dumps(target.values)]
        free = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, start_new_session=False).stdout)
    print(
        json.dumps({"holds": probe()._asdict(), "jailed": jailed, "free": free, "untouched": untouched, "visible": is_visible})
    )


class _target:  # noqa: N801
    """What the attacks are aimed at: a home, a listening port, a neighbour."""

    def __enter__(self) -> _target:
        self._folder = tempfile.TemporaryDirectory()
        home = Path(self._folder.name)
        for name in ("secret", "secret2", "a", "c", "d"):
            (home / name).write_text("patients")
        self._sockets = [socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        abstract = f"dictalake-{os.getpid()}"
        addresses: list[Any] = [("127.0.0.1", 0), str(home / "socket"), f"\0{abstract}"]
        for one, address in zip(self._sockets, addresses, strict=True):
            one.bind(address)
            one.listen()
        self._victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self._files = sorted(file.name for file in home.iterdir())
        self.values = {
            "parent": os.getpid(),
            "address": addressof(_SECRET),
            "home": str(home),
            "port": self._sockets[0].getsockname()[1],
            "abstract": abstract,
            "victim": self._victim.pid,
        }
        return self

    def is_untouched(self) -> bool:
        """Whether the home is as it was, and the neighbour alive."""
        home = Path(self._folder.name)
        whole = all((home / name).read_text() == "patients" for name in ("secret", "secret2", "a", "c", "d"))
        return whole and sorted(file.name for file in home.iterdir()) == self._files and self._victim.poll() is None

    def __exit__(self, *_: object) -> None:
        self._victim.kill()
        self._victim.wait()
        for one in self._sockets:
            one.close()
        self._folder.cleanup()


if __name__ == "__main__":
    main()
