"""Runs a module as on a kernel that lacks some system calls: ``python -m tests.attacks.old_kernel landlock,unshare MODULE``."""

from __future__ import annotations

import ctypes
import errno
import os
import runpy
import struct
import sys

from dictalake.sandbox.jail import Instruction

# What can be missing → its system calls on x86-64 and aarch64.
MISSING = {"landlock": (444, 444), "unshare": (272, 97), "seccomp": (317, 277)}


def forget(names: list[str]) -> None:
    """This process and those it starts get ENOSYS for these calls."""
    column = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
    program: list[Instruction] = [(0x20, 0, 0, 0)]  # the number of the call
    for name in names:
        program += [(0x15, 0, 1, MISSING[name][column]), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)]
    program.append((0x06, 0, 0, 0x7FFF0000))
    code = b"".join(struct.pack("<HBBI", *one) for one in program)
    kept = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(kept)))
    assert libc.prctl(22, ctypes.c_ulong(2), header, zero, zero) == 0


if __name__ == "__main__":
    forget(sys.argv[1].split(","))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
