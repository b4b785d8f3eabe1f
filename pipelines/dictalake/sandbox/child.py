"""What runs in a sandboxed child: it puts limits on itself, then answers calls until its caller is gone."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

import numpy as np

from dictalake import errors
from dictalake.errors import LoadError, TooLarge
from dictalake.sandbox.messages import CallLimits, Function, receive_request, send_answer

TIMES_UP = (signal.SIGALRM, signal.SIGXCPU)
_files: list[int] = []
_RECURSION = 400  # Python frames; no honest file nests its sequences deeper


def serve() -> None:
    """The child's main loop. ``sys.argv`` names the socket, the function and its limits; it ends when the caller is gone."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    module, _, name = sys.argv[2].partition(":")
    limits = CallLimits(**json.loads(sys.argv[3]))
    function = getattr(importlib.import_module(module), name)
    sys.setrecursionlimit(_RECURSION)
    _limit_process(limits)
    _answer(channel, {}, np.zeros(0, dtype=np.int16))
    while True:
        try:
            text, data, files = receive_request(channel)
        except (EOFError, OSError):
            return
        _start_clocks(limits)
        _files[:] = files
        result, samples = _run(function, data, json.loads(text))
        for file in _files:
            with contextlib.suppress(OSError):  # the function may have closed it
                os.close(file)
        _files.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(channel, result, samples)
        del data, samples


def received_files() -> list[int]:
    """The descriptors that the caller handed over with the call that is being answered. They are closed after it."""
    return list(_files)


def _answer(channel: socket.socket, result: dict[str, Any], samples: np.ndarray) -> None:
    text = json.dumps({**result, "shape": samples.shape}).encode()
    send_answer(channel, text, np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data)


def _run(function: Function, data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    nothing = np.zeros((0, 0), dtype=np.int16)
    try:
        value, samples = function(data, request["recording_id"], request["settings"])
    except LoadError as error:
        return {"failure": {"reason": error.reason, "detail": error.detail}}, nothing
    except MemoryError:
        return {"failure": {"reason": TooLarge.reason, "detail": ""}}, nothing
    except Exception as error:
        return {"failure": {"reason": errors.InternalError.reason, "detail": errors.name_place(error)}}, nothing
    return {"value": value}, np.asarray(samples, dtype=np.int16)


def _limit_process(limits: CallLimits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    for timer in TIMES_UP:
        signal.signal(timer, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller; this process ends when the caller does
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            idle_bytes = int(file.read().split()[0]) * resource.getpagesize()
        most = idle_bytes + int(limits.memory_mb * 1e6)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _start_clocks(limits: CallLimits) -> None:
    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used_s + limits.cpu_s) + 1, hard))
    signal.setitimer(signal.ITIMER_REAL, limits.clock_s)
