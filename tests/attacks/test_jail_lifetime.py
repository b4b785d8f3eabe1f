"""A taken-over decoder outlives neither its call nor its parent, and a parent's short-lived thread does not end it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import Sandbox
from dictalake.sandbox.process import ChildProcess
from dictalake.sandbox.spawner import start_process
from tests.unit.sandbox.functions import behave

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
_AGES_S = 3600.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    opened = Sandbox(behave, CallLimits(cpu_s=_AGES_S, memory_mb=150.0))
    yield opened
    opened.close()


def test_a_child_outlives_the_thread_that_first_asked_for_it(sandbox: Sandbox) -> None:
    """The kernel ends a child with the thread that started it, which may be one of a pool that is gone by now."""
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(sandbox.call(b"pid", "r1", {})[0]["pid"]))
    thread.start()
    thread.join()
    assert sandbox.call(b"pid", "r2", {})[0]["pid"] == pids[0]


def test_a_child_that_works_dies_with_its_parent() -> None:
    """It does not wait until it looks at its socket again, nor for its limit of an hour."""
    script = (
        "import os, threading\n"
        "from tests.unit.sandbox.functions import behave\n"
        "from dictalake.sandbox.messages import CallLimits\n"
        "from dictalake.sandbox.pool import Sandbox\n"
        f"sandbox = Sandbox(behave, CallLimits(cpu_s={_AGES_S}, memory_mb=150.0))\n"
        "pid = sandbox.call(b'pid', 'r1', {})[0]['pid']\n"
        "read, write = os.pipe()\n"
        "threading.Thread(target=sandbox.call, args=(b'sleep', 'r1', {}, [write])).start()\n"
        "os.read(read, 1)\n"
        "print(pid, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert select.select([child], [], [], 60)[0] == [child]  # it has ended
    os.close(child)


def test_a_parent_that_was_gone_before_the_child_could_ask_for_its_death_is_noticed() -> None:
    from dictalake.sandbox import jail

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        jail.die_with_parent(os.getpid())  # which is not its parent
        os.write(write, b"alive")
        os._exit(1)
    os.close(write)
    assert os.read(read, 10) == b""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(read)


def test_what_a_child_has_started_is_ended_with_it() -> None:
    """A kernel without seccomp lets it start something."""
    mine, theirs = socket.socketpair()
    child: Any = object.__new__(ChildProcess)
    child._socket, child._owner = mine, os.getpid()
    child._process = start_process(["/bin/sh", "-c", "sleep 3600 & echo $!; wait"], stdout=subprocess.PIPE, process_group=0)
    grandchild = os.pidfd_open(int(child._process.stdout.readline()))
    child.kill()
    assert select.select([grandchild], [], [], 60)[0] == [grandchild]
    for file in (theirs, child._process.stdout):
        file.close()
    os.close(grandchild)


def test_children_are_the_leaders_of_their_own_groups(sandbox: Sandbox) -> None:
    pid = sandbox.call(b"pid", "r1", {})[0]["pid"]
    assert os.getpgid(pid) == pid


def test_a_child_has_neither_the_environment_nor_the_files_of_its_parent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICTALAKE_PATIENT_KEY", "CANARY")
    with open(os.devnull, "rb") as file:
        os.set_inheritable(file.fileno(), True)
        child = psutil.Process(sandbox.call(b"pid", "r1", {})[0]["pid"])
        names = set(child.environ())
        assert names <= {
            *("PYTHONPATH", "PATH", "LC_ALL", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
            *("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"),
        }
        folder = f"/proc/{child.pid}/fd"
        opened = [os.readlink(f"{folder}/{one}").partition(":")[0] for one in os.listdir(folder)]
        assert sorted(opened) == [*["/dev/null"] * 3, f"/proc/{child.pid}/status", "socket"]  # what it says of itself


def test_a_fork_of_the_parent_starts_children_of_its_own() -> None:
    start_process(["/bin/true"]).wait()
    pid = os.fork()
    if pid == 0:  # its copy of the lasting thread does not run
        signal.alarm(60)
        os._exit(start_process(["/bin/true"]).wait())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_fork_and_its_parent_never_get_each_others_answers(sandbox: Sandbox) -> None:
    """They would talk to one child over one socket."""
    first = sandbox.call(b"pid", "r1", {})[0]["pid"]
    with sandbox.session() as session:
        kept = session.call(b"pid", "r1", {})[0]["pid"]
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            theirs = [sandbox.call(b"pid", "r2", {})[0]["pid"], session.call(b"pid", "r3", {})[0]["pid"]]
            os.write(write, " ".join(map(str, theirs)).encode())
            session._end()
            sandbox.close()  # as at its end
            os._exit(0)
        os.close(write)
        theirs = set(map(int, os.read(read, 100).split()))
        os.close(read)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(theirs) == 2
        assert not theirs & {first, kept}
        assert session.call(b"pid", "r4", {})[0]["pid"] == kept
    assert sandbox.call(b"pid", "r5", {})[0]["pid"] == first


def test_a_fork_neither_ends_nor_keeps_what_its_parent_talks_to(sandbox: Sandbox) -> None:
    """A copy of the socket would have a child wait on for the next call when its parent is gone."""
    with sandbox.session() as session:
        kept = session.call(b"pid", "r1", {})[0]["pid"]
        child = session._child
        assert child is not None
        ours = f"socket:[{os.fstat(child._socket.fileno()).st_ino}]"
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            opened = {os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()}
            is_waited_for = child._process.returncode is None
            child.kill()
            os._exit(is_waited_for or ours in opened)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert session.call(b"pid", "r2", {})[0]["pid"] == kept
