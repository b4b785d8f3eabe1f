"""Several hosts on one machine, with links that can be cut: each is a set of Linux namespaces with addresses of its own.

A host has its own network, processes, name, ``/tmp``, ``/dev/shm`` and ``/run``. It has two links: ``cluster`` to the other
hosts (10.0.0.x) and ``storage`` to the object store (10.0.1.x). A cut link drops what is sent, as an unplugged cable does.
Everything here needs root and lives in a network namespace that the caller has entered (``can_make_hosts``, ``enter``).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

LINKS = {"cluster": "10.0.0", "storage": "10.0.1"}
OWN_NUMBER = 254  # of who looks at the hosts from outside
_ENTER = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_HOST = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity")
_START_S = 10.0
_PR_SET_PDEATHSIG = 1
# The log of a host's Ray is in its /tmp. What it keeps in memory and in /run is gone with the host.
_MOUNT = """
hostname {name}
ip link set lo up
mount --bind {tmp} /tmp
mount -t tmpfs -o size=8g tmpfs /dev/shm
mount -t tmpfs tmpfs /run
"""


def can_make_hosts() -> str | None:
    """Why this machine cannot make such hosts; None if it can."""
    try:
        tried = subprocess.run([*_ENTER, "ip", "link", "add", "try", "type", "bridge"], capture_output=True, text=True)
    except FileNotFoundError as error:
        return f"the command {error.filename} is missing (Debian's util-linux and iproute2)"
    return None if tried.returncode == 0 else (tried.stderr.strip().splitlines() or ["unshare failed"])[-1]


def enter(module: str, arguments: Sequence[str], marker: str) -> int:
    """Runs ``python -m module`` in namespaces of its own, with ``marker`` in its environment; its exit code.

    They and all hosts in them are gone when it ends, however it ends.
    """
    command = [*_ENTER, sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, env={**os.environ, marker: "1"}, preexec_fn=_end_with_parent) as process:
        try:
            return process.wait()
        except BaseException:
            process.kill()  # it takes no other signal; what it has forked is killed with it
            raise


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Host:
    """A host that runs. ``number`` ends its addresses."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name, self.number, self.folder = name, number, folder
        self._process = subprocess.Popen(_HOST, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._pid = _find_child(self._process.pid)
        tmp = folder / "tmp"
        tmp.mkdir(parents=True)
        tmp.chmod(0o1777)
        for link, network in LINKS.items():
            _call("ip", "link", "add", self._cable(link), "type", "veth", "peer", "name", link, "netns", str(self._pid))
            _call("ip", "link", "set", self._cable(link), "master", link, "up")
            _call(*self._inside(), "ip", "addr", "add", f"{network}.{number}/24", "dev", link)
            _call(*self._inside(), "ip", "link", "set", link, "up")
        _call(*self._inside(), "sh", "-ec", _MOUNT.format(name=name, tmp=tmp))

    def address(self, link: str) -> str:
        return f"{LINKS[link]}.{self.number}"

    def start(self, command: str, output: Path, environment: Mapping[str, str] = os.environ) -> subprocess.Popen[bytes]:
        """Starts a shell command on the host; what it prints goes to ``output``."""
        with output.open("wb") as stream:
            return subprocess.Popen(
                [*self._inside(), "bash", "-c", command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def call(self, command: str, environment: Mapping[str, str] = os.environ, timeout_s: float = 120.0) -> tuple[int, str]:
        """A shell command on the host: its exit code, and what it printed. 124 where it did not end in time."""
        try:
            done = subprocess.run(
                [*self._inside(), "bash", "-c", command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired as late:
            printed = late.stdout or b""
            return 124, printed if isinstance(printed, str) else printed.decode(errors="replace")
        return done.returncode, done.stdout

    def cut(self, *links: str) -> None:
        """Unplugs cables: all where none is named."""
        self._set(links, "down")

    def heal(self, *links: str) -> None:
        self._set(links, "up")

    def kill(self) -> None:
        """As a loss of power: nobody hears a last word from it, and all of its processes are gone."""
        self.cut()
        psutil.Process(self._pid).kill()
        self._process.wait()

    def _set(self, links: Sequence[str], state: str) -> None:
        for link in links or LINKS:
            _call("ip", "link", "set", self._cable(link), state)

    def _cable(self, link: str) -> str:
        """The end that is not in the host."""
        return f"{link}-{self.number}"

    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", "--target", str(self._pid), "--net", "--mount", "--uts", "--pid")


@contextmanager
def run_network() -> Iterator[None]:
    """The switches of the links. Whoever made them has an address on each."""
    _call("ip", "link", "set", "lo", "up")
    for link, network in LINKS.items():
        _call("ip", "link", "add", link, "type", "bridge")
        _call("ip", "link", "set", link, "up")
        _call("ip", "addr", "add", f"{network}.{OWN_NUMBER}/24", "dev", link)
    try:
        yield
    finally:
        for link in LINKS:
            _call("ip", "link", "del", link)


def _find_child(pid: int) -> int:
    """The first process of the namespaces that ``unshare`` has made."""
    deadline = time.monotonic() + _START_S
    while not (children := psutil.Process(pid).children()) or children[0].name() != "sleep":
        if time.monotonic() > deadline:
            raise RuntimeError("unshare started no host")
        time.sleep(0.01)
    return int(children[0].pid)


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
