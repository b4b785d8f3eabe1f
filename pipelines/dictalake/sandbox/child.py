"""What runs in a sandboxed child: it puts limits on itself and enters its jail, then answers calls until its caller is gone."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import resource
import signal
import site
import socket
import sys
import sysconfig
import zoneinfo
from typing import Any

import numpy as np

from dictalake import errors
from dictalake.errors import LoadError, TooLarge
from dictalake.sandbox import jail
from dictalake.sandbox.messages import LONGEST_DETAIL, CallLimits, Function, receive_request, send_answer

TIMES_UP = (signal.SIGALRM, signal.SIGXCPU)
_files: list[int] = []
_status: int | None = None  # what the kernel knows of this process; in the jail it is too late to open it
_half_bytes = 0
# Of glibc and of musl. A folder that merely has such a name, or a library of another with one, opens nothing.
_C_LIBRARY = re.compile(
    r"/(?:.*/)?(?:libc\.so\.6|libc-\d[\d.]*\.so|ld-linux[^/]*\.so\.\d+|ld-\d[\d.]*\.so|(?:ld|libc)[.-]musl-[^/]*\.so\.1)"
)
_RECURSION = 400  # Python frames; no honest file nests its sequences deeper


def serve() -> None:
    """The child's main loop, until the caller is gone.

    ``sys.argv`` names the socket, the function, its limits, the caller's process, and modules to import before the jail.
    """
    channel, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[4])
    jail.die_with_parent(parent)
    has_user_namespace = not jail.find_landlock() and jail.enter_user_namespace()  # before there are threads
    module, _, name = sys.argv[2].partition(":")
    limits = CallLimits(**json.loads(sys.argv[3]))
    function = getattr(importlib.import_module(module), name)
    for early in sys.argv[5:]:
        importlib.import_module(early)
    sys.setrecursionlimit(_RECURSION)
    _limit_process(limits)
    holds = jail.apply(find_readable(), parent, has_user_namespace=has_user_namespace)
    _answer(channel, {"value": holds._asdict()}, np.zeros((0, 0), dtype=np.int16))
    while True:
        try:
            text, data, files = receive_request(channel)
        except (EOFError, OSError):
            return
        _start_clocks(limits)
        _files[:] = files
        request = json.loads(text)
        result, samples = _run(function, data, request)
        for file in _files:
            with contextlib.suppress(OSError):  # the function may have closed it
                os.close(file)
        _files.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(channel, {**result, "nonce": request["nonce"]}, samples)
        del data, samples


def received_files() -> list[int]:
    """The descriptors that the caller handed over with the call that is being answered. They are closed after it."""
    return list(_files)


def is_memory_tight() -> bool:
    """Whether this process has ever taken more than half of the memory that it may take (address space, as the limit counts).

    Libraries that are refused memory may call a whole file damaged.
    """
    if _status is None:
        return False
    peak = re.search(rb"VmPeak:\s*(\d+) kB", os.pread(_status, 4096, 0))
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    return peak is None or int(peak[1]) * 1024 > most - _half_bytes


def _answer(channel: socket.socket, result: dict[str, Any], samples: np.ndarray) -> None:
    text = json.dumps({**result, "shape": samples.shape}).encode()
    send_answer(channel, text, np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data)


def _run(function: Function, data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    nothing = np.zeros((0, 0), dtype=np.int16)
    try:
        value, samples = function(data, request["recording_id"], request["settings"])
    except LoadError as error:
        return {"failure": {"reason": error.reason, "detail": error.detail[:LONGEST_DETAIL]}}, nothing
    except MemoryError:
        return {"failure": {"reason": TooLarge.reason, "detail": ""}}, nothing
    except Exception as error:
        return {"failure": {"reason": errors.InternalError.reason, "detail": errors.name_place(error)}}, nothing
    return {"value": value}, np.asarray(samples, dtype=np.int16)


def find_readable() -> set[str]:
    """The folders and files that stay readable: of the interpreter, of packages, of time zones. Nothing of the user's own.

    A folder of the search path is none of them, since it may be a home; the packages in it that are imported are.
    """
    found = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {*site.getsitepackages(), *zoneinfo.TZPATH, "/dev/urandom"}
    for name, module in list(sys.modules.items()):
        if "." in name or name == "__main__":
            continue
        if folders := getattr(module, "__path__", None):
            found |= {str(folder) for folder in folders}
        elif file := getattr(module, "__file__", None):
            found.add(file)
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:  # the folder of the C library
        libraries = {line.split(maxsplit=5)[-1].rstrip("\n") for line in maps}
    return found | {os.path.dirname(library) for library in libraries if _C_LIBRARY.fullmatch(library)}


def _limit_process(limits: CallLimits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # no more threads and processes, where there is no seccomp; but for root
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    for timer in TIMES_UP:
        signal.signal(timer, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller; this process ends when the caller does
    if sys.platform == "linux":
        global _status, _half_bytes
        _status, _half_bytes = os.open("/proc/self/status", os.O_RDONLY), int(limits.memory_mb * 1e6 / 2)
        with open("/proc/self/statm", encoding="ascii") as file:
            idle_bytes = int(file.read().split()[0]) * resource.getpagesize()
        most = idle_bytes + int(limits.memory_mb * 1e6)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        _limit_life(limits)


def _limit_life(limits: CallLimits) -> None:
    """The kernel ends this process after so much processor time, whatever it does with signals. The caller sets less for each
    call: in the jail this process can change no limit."""
    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    life = int(used_s + limits.life_s) + 1
    life = life if most == resource.RLIM_INFINITY else min(life, most)
    resource.setrlimit(resource.RLIMIT_CPU, (life, life))


def _start_clocks(limits: CallLimits) -> None:
    if sys.platform != "linux":
        used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used_s + limits.cpu_s) + 1, hard))
    signal.setitimer(signal.ITIMER_REAL, limits.clock_s)
