"""Finding the processes of a run, and killing them."""

from __future__ import annotations

import os
import re
import time

import psutil

_GONE_S = 60.0
# Ray's workers call themselves by what they do. A task's worker is idle between two tasks, and then nobody's victim.
_TITLES = {
    "worker": re.compile(r"ray::MapBatches\("),
    "actor": re.compile(r"ray::(MapWorker\(|CrashLedger)"),
    "runner": re.compile(r"ray::Runner"),
    "sandbox": re.compile(r".*dictalake\.sandbox\.child import serve"),
}


def find_family(session: int) -> list[psutil.Process]:
    """All living processes of a session: orphans stay in it, and Ray's workers, which leave the process group, do too."""
    assert session != os.getsid(0), "that is one's own"
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session and (process := psutil.Process(pid)).status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):  # gone meanwhile
            continue
    return found


def find_victims(kind: str, session: int) -> list[psutil.Process]:
    """The processes of a session that do work of ``kind`` right now: ``worker``, ``actor``, ``runner`` …"""
    return [process for process in find_family(session) if _TITLES[kind].match(_title(process))]


def find_stage(process: psutil.Process) -> str:
    """What a victim works for: ``Load``, ``Emit`` …; empty for what is no worker of a stage."""
    found = re.search(r"MapBatches\((\w+)\)|ray::_(Ledger)Actor", _title(process))
    return found[1] or found[2] if found else ""


def kill_family(session: int) -> int:
    """SIGKILL for all processes of a session, those too that come up meanwhile; how many there were."""
    killed: set[int] = set()
    deadline = time.monotonic() + _GONE_S
    while family := find_family(session):
        assert time.monotonic() < deadline, f"{len(family)} processes do not die"
        for process in family:
            kill(process)
        killed |= {process.pid for process in family}
        time.sleep(0.02)
    return len(killed)


def kill(process: psutil.Process) -> bool:
    """SIGKILL; False if it was gone before."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
