"""Decoders that misbehave, for the tests of the sandbox: its children import this module by its name."""

from __future__ import annotations

import os
import resource
import signal
import time
from typing import Any

import numpy as np

from dictalake.errors import CorruptAudio
from dictalake.sandbox.child import received_files


def behave(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Does what ``data`` says."""
    what, _, argument = data.decode().partition(" ")
    match what:
        case "die":
            signal.raise_signal(int(argument or signal.SIGSEGV))
        case "die-once":  # the second process finds the open file where the first has left it
            (file,) = received_files()
            if os.lseek(file, 0, os.SEEK_CUR) == 0:
                os.lseek(file, 1, os.SEEK_SET)
                signal.raise_signal(signal.SIGKILL)
        case "sleep":
            for file in received_files():
                os.write(file, b"asleep")
            time.sleep(3600)
        case "limit":
            return {"processor": resource.getrlimit(resource.RLIMIT_CPU)}, np.zeros((0, 0), dtype=np.int16)
        case "spin":
            if argument == "on":
                signal.signal(signal.SIGXCPU, signal.SIG_IGN)
                signal.setitimer(signal.ITIMER_REAL, 0)
            while True:
                pass
        case "allocate":
            hoard = []
            while True:
                hoard.append(np.ones(1_000_000))
        case "write":
            with open(argument, "wb") as file:
                file.write(b"x" * 100)
        case "recurse":
            _recurse()
        case "fail":
            raise CorruptAudio(recording_id, "it is broken")
        case "bug":
            raise ValueError(f"secret words {argument}")
        case "environment":
            return {"environment": dict(os.environ)}, np.zeros((0, 0), dtype=np.int16)
        case "pid":
            return {"pid": os.getpid()}, np.zeros((0, 0), dtype=np.int16)
    return {"said": what, "settings": settings}, np.arange(6, dtype=np.int16).reshape(2, 3)


def _recurse() -> None:
    _recurse()


_seen: list[str] = []


def use_files(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Reads the files that came with the call; remembers the calls of its process; dies where ``data`` says so."""
    if data == b"die":
        os.abort()
    _seen.append(recording_id)
    read = [os.pread(file, 100, 0).decode() for file in received_files()]
    return {"read": read, "seen": list(_seen), "pid": os.getpid()}, np.zeros((0, 0), dtype=np.int16)
