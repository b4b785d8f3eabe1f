"""A decoder that a hostile file has taken over reaches nothing: no file, no memory, no network, no process, no kernel feature.

The attacks of ``hostile.py`` are tried as root and as an ordinary user: in the jail and, to show that they are attacks,
outside.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from dictalake.sandbox import jail
from tests.attacks.hostile import ATTACKS, FILES, KERNEL, NETWORK, PARENT, PROCESSES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has Landlock and seccomp")
ROOT = Path(__file__).parents[2]
AS_NOBODY: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
USERS = ["root", "ordinary"]
GROUPS = {"files": FILES, "parent": PARENT, "network": NETWORK, "processes": PROCESSES, "kernel": KERNEL}
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": os.pathsep.join([str(ROOT / "pipelines"), str(ROOT), sysconfig.get_path("purelib")]),
}
# What the kernel refuses to a process of this machine, too, so that the comparison says nothing.
ALSO_OUTSIDE = {
    "root": {"own session"},  # it has just become the leader of a group
    "ordinary": {"own session", "mount", "new mount", "mount tree", "setns", "chroot", "bpf"},
}


@functools.cache
def attempts(user: str, missing: str = "") -> dict[str, Any]:
    """The outcome of every attack, tried as this user, on a kernel where something is ``missing`` (``old_kernel.py``)."""
    if user == "root" and os.geteuid() != 0:
        pytest.skip("these tests do not run as root")
    old_kernel = ["tests.attacks.old_kernel", missing] if missing else []
    command = [*find_python(user), "-m", *old_kernel, "tests.attacks.jailed_attempts"]
    options: dict[str, Any] = {}
    if user == "ordinary" and os.geteuid() == 0:
        options = AS_NOBODY
    told = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True, **options)
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


def find_python(user: str) -> list[str]:
    """A Python that this user can run: the one of these tests may be in root's home."""
    if user == "root" or os.geteuid() != 0:
        return [sys.executable]
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([python, "-c", "import numpy"], env=ENVIRONMENT, check=True, **AS_NOBODY)
            return [python]
    pytest.skip("an ordinary user can run no Python here")


def outcomes(user: str, group: dict[str, Any], where: str = "jailed") -> dict[str, str]:
    return {name: attempts(user)[where][name] for name in group}


@pytest.fixture(autouse=True)
def _needs_kernel() -> None:
    if not jail.find_landlock():
        pytest.skip("this kernel has no Landlock")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "group", [FILES, PARENT, NETWORK, PROCESSES, KERNEL], ids=["files", "parent", "net", "process", "kernel"]
)
def test_whatever_it_tries_is_refused(group: dict[str, Any], user: str) -> None:
    found = outcomes(user, group)
    assert {name: how for name, how in found.items() if how not in ("EPERM", "EACCES", "ENOSYS")} == {}


@pytest.mark.parametrize("user", USERS)
def test_nothing_of_the_user_and_no_neighbour_is_harmed(user: str) -> None:
    assert attempts(user)["untouched"]


@pytest.mark.parametrize("user", USERS)
def test_outside_the_jail_the_same_attacks_are_not_refused(user: str) -> None:
    """Otherwise a refusal would say nothing about the jail."""
    inside, outside = outcomes(user, ATTACKS), outcomes(user, ATTACKS, "free")
    assert {name for name in ATTACKS if outside[name] == inside[name]} <= ALSO_OUTSIDE[user]
    for name in (*FILES, *NETWORK, "read the parent's environment", "read the parent's memory", "fork", "kill a process"):
        assert outside[name] == "done", name


READING = {"read /etc/passwd", "read a file in the home", "list the home", "list the root", "read the own environment by /proc"}


def done(user: str, missing: str) -> set[str]:
    return {name for name, how in attempts(user, missing)["jailed"].items() if how == "done"}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("missing", ["landlock", "landlock,unshare"])
def test_without_landlock_it_can_read_files_and_nothing_else(missing: str, user: str) -> None:
    """Not the memory and environment of its parent either: a user namespace, or the parent, sees to that."""
    holds = attempts(user, missing)["holds"]
    assert (holds["landlock"], holds["seccomp"]) == (0, True)
    assert done(user, missing) == READING


@pytest.mark.parametrize("user", USERS)
def test_without_seccomp_landlock_keeps_files_the_parent_and_tcp_from_it(user: str) -> None:
    found = attempts(user, "seccomp")
    assert (found["holds"]["landlock"], found["holds"]["seccomp"]) == (jail.find_landlock(), False)
    assert found["untouched"]
    kept = {*FILES, "read the parent's environment", "read the parent's memory", "peek into the parent", "trace the parent"}
    kept |= {"new mount", "mount tree"}  # for which root's capabilities would do
    kept |= {"TCP connection", "TCP server"} if jail.find_landlock() >= 4 else set()
    kept |= {"kill a process", "signal to the parent", "abstract UNIX socket"} if jail.find_landlock() >= 6 else set()
    kept |= {"fork", "thread", "clone without a thread"} if user == "ordinary" else set()  # root has no limit on processes
    assert done(user, "seccomp") & kept == {"make a file readable"}  # Landlock knows no right to change a file's mode


@pytest.mark.parametrize("user", USERS)
def test_where_nothing_holds_the_parent_hides_itself(user: str) -> None:
    found = attempts(user, "landlock,unshare,seccomp")
    assert (found["holds"]["landlock"], found["holds"]["seccomp"], found["holds"]["user_namespace"]) == (0, False, False)
    about_parent = {"read the parent's environment", "read the parent's memory", "peek into the parent", "trace the parent"}
    assert done(user, "landlock,unshare,seccomp") & about_parent == set()


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("missing", ["", "landlock", "seccomp"])
def test_rays_memory_monitor_sees_a_worker_whose_decoder_does_not(missing: str, user: str) -> None:
    """It reads ``/proc/PID/smaps_rollup``, as the worker's user, which a process that is not dumpable would hide."""
    found = attempts(user, missing)
    assert found["visible"]
    assert found["jailed"]["read the parent's memory"] == found["jailed"]["read the parent's environment"] == "EACCES"


def test_a_worker_of_an_ordinary_user_hides_only_where_nothing_else_protects_it() -> None:
    assert not attempts("ordinary", "landlock,unshare")["visible"]
    if os.geteuid() == 0:  # a child without capabilities cannot look into a parent that has them
        assert attempts("root", "landlock,unshare")["visible"]
