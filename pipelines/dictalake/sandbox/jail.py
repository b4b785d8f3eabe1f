"""The kernel's part of the sandbox: a process gives up, for good, all that reading a recording does not need.

Three mechanisms, none of which needs a privilege, each of which holds without the others:

- **Landlock** takes the file system away, but for reading the folders of the interpreter and of imported packages. It also
  denies access to the memory and environment of every process outside, TCP (ABI 4), signals and abstract sockets (ABI 6).
- **seccomp** allows the system calls of CALLS alone: reading, memory, time. Whatever is not listed there (a socket, exec, a
  process, a thread, ptrace, kill, io_uring, mount, a kernel's next invention) fails with EPERM.
- **no capabilities**, and no way to gain any.

``apply`` comes after the imports and before the first untrusted byte. The tables hold for x86-64 and aarch64; on others,
and on kernels without one of the mechanisms, the rest holds, and ``apply`` says which. See docs/decisions/0033-the-jail.md.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

# Name → its number on x86-64 and on aarch64; None where the machine has no such call.
Numbers = tuple[int | None, int | None]
CALLS: dict[str, Numbers] = {
    # files that are open, and what may be known about others
    "read": (0, 63),
    "pread64": (17, 67),
    "readv": (19, 65),
    "preadv": (295, 69),
    "lseek": (8, 62),
    "write": (1, 64),
    "pwrite64": (18, 68),
    "writev": (20, 66),
    "close": (3, 57),
    "dup": (32, 23),
    "fstat": (5, 80),
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fadvise64": (221, 223),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "recvmsg": (47, 212),  # the caller's requests, and the files that it hands over
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    # memory
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    # locks and processors; there are no threads
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "getcpu": (309, 168),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    # who and where
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getpgrp": (111, None),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "times": (100, 153),
    # signals to itself, and time
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
}
# Allowed with some arguments alone.
_OPEN, _OPENAT = (2, None), (257, 56)
_FCNTL, _IOCTL, _PRCTL, _PRLIMIT, _TGKILL = (72, 25), (16, 29), (157, 167), (302, 261), (234, 131)
_OPENAT2 = (437, 437)
# Numbers that this module itself calls.
_SECCOMP, _CAPSET = (317, 277), (126, 91)
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same everywhere

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH
_X32_BIT = 0x40000000  # a second set of numbers for the same calls of x86-64

# prctl
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_GET_NAME, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 16, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, _PR_SET_VMA = 47, 4, 0x53564D41
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522
_SIGKILL = 9
_CLONE_NEWUSER = 0x10000000

# seccomp
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_SET_MODE_FILTER, _TSYNC = 1, 1
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16

_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONBIO, FIONCLEX, FIOCLEX

# Landlock
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # rights on files that an ABI knows: so many bits, from the lowest
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_TCP_BIND_CONNECT, _ABSTRACT_SOCKETS_AND_SIGNALS = 0b11, 0b11
_PATH_BENEATH = 1


class Holds(NamedTuple):
    """What the kernel has taken away from a process. ``landlock`` is the ABI in use; 0: none."""

    landlock: int = 0
    seccomp: bool = False
    no_capabilities: bool = False
    user_namespace: bool = False

    @property
    def hides_parent(self) -> bool:
        """Whether this process cannot read its parent's memory and environment, though both belong to one user."""
        return self.landlock > 0 or self.user_namespace


Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def die_with_parent(parent: int) -> None:
    """The kernel ends this process when the thread that started it ends. It ends now if ``parent`` is gone already."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def has_capabilities() -> bool:
    """Whether this process may do what an ordinary user may not. A process without such rights cannot look into it."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
        permitted = [line.split()[1] for line in status if line.startswith("CapPrm:")]
    return any(int(one, 16) for one in permitted)


def hide_from_user() -> None:
    """Other processes of this user can no longer read this one's memory and environment, nor how much memory it has."""
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)


def enter_user_namespace() -> bool:
    """A process in a user namespace of its own cannot look into processes outside. For kernels without Landlock.

    It must come before the first thread. Whether it may is the administrator's decision.
    """
    return sys.platform == "linux" and _libc().unshare(_CLONE_NEWUSER) == 0


def find_landlock() -> int:
    """The ABI of this kernel's Landlock; 0 where there is none, or it is turned off."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(_LANDLOCK_CREATE, None, 0, 1))


def apply(readable: Iterable[str], parent: int, *, has_user_namespace: bool = False) -> Holds:
    """Gives everything up that a decoder does not need. ``readable`` are the folders and files that stay readable.

    Nothing raises: what the kernel refuses is missing in the answer. A process that has threads already cannot be confined by
    Landlock, which confines a single thread and those that it starts.
    """
    if sys.platform != "linux":
        return Holds()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    is_alone = len(os.listdir("/proc/self/task")) == 1
    landlock = _restrict_files(readable) if is_alone else 0
    no_capabilities = _drop_capabilities() and is_alone
    die_with_parent(parent)  # again: a change of credentials may have undone it
    return Holds(landlock, _filter_calls(), no_capabilities, has_user_namespace)


def _drop_capabilities() -> bool:
    for capability in range(_LAST_CAPABILITY + 1):  # refused where there is none to drop
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    column = _column()
    if column is None:
        return False
    header, none = struct.pack("<Ii", _CAPABILITY_VERSION, 0), bytes(24)
    number = _CAPSET[column]
    return _call(number, header, none) == 0


def _restrict_files(readable: Iterable[str]) -> int:
    """Applies Landlock; gives the ABI in use."""
    abi = find_landlock()
    if abi < 1:
        return 0
    handled = (1 << _FS_RIGHTS[min(abi, max(_FS_RIGHTS))]) - 1
    attributes = struct.pack("<Q", handled)
    if abi >= 4:
        attributes += struct.pack("<Q", _TCP_BIND_CONNECT)
    if abi >= 6:
        attributes += struct.pack("<Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    rules = _call(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return 0
    try:
        for path in readable:
            _allow_reading(rules, path)
        return abi if _call(_LANDLOCK_RESTRICT, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow_reading(rules: int, path: str) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return  # a folder of the search path that does not exist
    rights = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
    _call(_LANDLOCK_ADD, rules, _PATH_BENEATH, struct.pack("<Qi", rights, opened), 0)
    os.close(opened)


def _filter_calls() -> bool:
    machine = os.uname().machine
    column = _column()
    if column is None:
        return False
    program = b"".join(struct.pack("<HBBI", *one) for one in make_filter(machine, os.getpid()))
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    return _call(_SECCOMP[column], _SET_MODE_FILTER, _TSYNC, header) == 0


def make_filter(machine: str, pid: int) -> list[Instruction]:
    """The program that the kernel runs at each system call of the process ``pid``."""
    column, audit = _MACHINES[machine]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL_PROCESS)]

    def add(numbers: Numbers, body: list[Instruction]) -> None:
        number = numbers[column]
        if number is not None:
            program.extend([(_EQUAL, 0, len(body), number), *body])

    for numbers in CALLS.values():
        add(numbers, [_allow()])
    add(_OPEN, _when(1, _WRITING, [0], errno.EACCES))
    add(_OPENAT, _when(2, _WRITING, [0], errno.EACCES))
    add(_OPENAT2, [_deny(errno.ENOSYS)])  # its flags are out of reach of a filter; callers go back to openat
    add(_FCNTL, _when(1, None, _FCNTL_COMMANDS))
    add(_IOCTL, _when(1, None, _IOCTL_COMMANDS))
    add(_PRCTL, _when(0, None, [_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA]))
    add(_PRLIMIT, [*_require_null(2), *_when(0, None, [0, pid])])  # it may read its limits, and change none
    add(_TGKILL, _when(0, None, [pid]))
    return [*program, _deny()]


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _when(argument: int, mask: int | None, values: Iterable[int], refusal: int = errno.EPERM) -> list[Instruction]:
    """Allows the call if the lower half of an argument, or what ``mask`` leaves of it, is one of ``values``."""
    body: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)]  # both machines put the lower half first
    if mask is not None:
        body.append((_AND, 0, 0, mask))
    for value in values:
        body += [(_EQUAL, 0, 1, value), _allow()]
    return [*body, _deny(refusal)]


def _require_null(argument: int) -> list[Instruction]:
    """Refuses the call if an argument is not 0, in either half."""
    body: list[Instruction] = []
    for half in (0, 4):
        body += [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument + half), (_EQUAL, 1, 0, 0), _deny()]
    return body


def _allow() -> Instruction:
    return (_RETURN, 0, 0, _ALLOW)


def _deny(refusal: int = errno.EPERM) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | refusal)


def _column() -> int | None:
    """Which column of the tables is this process's; None where there is none, as for 32 bits on a machine of 64."""
    found = _MACHINES.get(os.uname().machine)
    return None if found is None or sys.maxsize < 2**32 else found[0]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> int:
    return int(_libc().prctl(option, *(ctypes.c_ulong(one) for one in (value, 0, 0, 0))))


def _call(number: int | None, *arguments: int | bytes | None) -> int:
    """A system call; -1 where it failed."""
    call = _libc().syscall
    call.restype = ctypes.c_long
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(call(ctypes.c_long(number or -1), *passed))
