"""The program that the kernel runs at each system call, read without a kernel: so its tables hold for both machines."""

from __future__ import annotations

import errno
import struct

import pytest

from dictalake.sandbox.jail import Instruction, make_filter
from tests.attacks.hostile import NUMBERS

PID = 4711
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = [*AUDIT]


def decide(program: list[Instruction], audit: int, number: int, *arguments: int) -> int:
    """What the kernel would do."""
    passed = struct.pack("<6Q", *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    fields = {0: number, 4: audit} | {16 + 4 * at: value for at, value in enumerate(struct.unpack("<12I", passed))}
    value, at = 0, 0
    while True:
        code, if_true, if_false, constant = program[at]
        at += 1
        match code:
            case 0x20:
                value = fields[constant]
            case 0x54:
                value &= constant
            case 0x15:
                at += if_true if value == constant else if_false
            case 0x35:
                at += if_true if value >= constant else if_false
            case 0x06:
                return constant
            case _:
                raise AssertionError(code)


def ask(machine: str, number: int, *arguments: int) -> int:
    return decide(make_filter(machine, PID), AUDIT[machine], number, *arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_few_calls_are_allowed_whatever_their_arguments(machine: str) -> None:
    allowed = [number for number in range(1024) if ask(machine, number) == ALLOW]
    assert 50 < len(allowed) < 90
    assert not {NUMBERS[name][MACHINES.index(machine)] for name in NUMBERS if name != "prlimit64"} & set(allowed)


# By name: socket, connect, accept, sendto, sendmsg, execve, kill, tkill, fork, vfork, unlinkat, renameat2, mkdirat, fchmodat
REFUSED = {
    "x86_64": (41, 42, 43, 44, 46, 59, 62, 200, 57, 58, 263, 316, 258, 268, 85, 82, 87, 90),
    "aarch64": (198, 203, 202, 206, 211, 221, 129, 130, 35, 276, 34, 53, 38),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_reach_others_are_refused(machine: str) -> None:
    assert {ask(machine, number) for number in REFUSED[machine]} == {ERRNO | errno.EPERM}


CASES = [  # number on x86-64, on aarch64, arguments, answer
    (257, 56, (0, 0, 0o2000000), ALLOW),  # openat: O_RDONLY, O_CLOEXEC
    (257, 56, (0, 0, 1), ERRNO | errno.EACCES),  # O_WRONLY
    (257, 56, (0, 0, 2), ERRNO | errno.EACCES),  # O_RDWR
    (257, 56, (0, 0, 0o100), ERRNO | errno.EACCES),  # O_CREAT
    (257, 56, (0, 0, 0o1000), ERRNO | errno.EACCES),  # O_TRUNC
    (437, 437, (), ERRNO | errno.ENOSYS),  # openat2
    (435, 435, (), ERRNO | errno.EPERM),  # clone3
    (56, 220, (0x3D0F00,), ERRNO | errno.EPERM),  # clone, as pthread_create asks
    (56, 220, (17,), ERRNO | errno.EPERM),  # fork
    (56, 220, (0x4111,), ERRNO | errno.EPERM),  # vfork
    (56, 220, (0x3D0F00 | 0x20000,), ERRNO | errno.EPERM),  # a thread in a mount namespace of its own
    (157, 167, (15,), ALLOW),  # prctl: the name of a thread
    (157, 167, (1,), ERRNO | errno.EPERM),  # PR_SET_PDEATHSIG
    (157, 167, (4,), ERRNO | errno.EPERM),  # PR_SET_DUMPABLE
    (302, 261, (0,), ALLOW),  # prlimit of itself
    (302, 261, (PID,), ALLOW),
    (302, 261, (0, 0, 4096), ERRNO | errno.EPERM),  # to change a limit
    (302, 261, (0, 0, 1 << 32), ERRNO | errno.EPERM),
    (302, 261, (1,), ERRNO | errno.EPERM),
    (234, 131, (PID, 1), ALLOW),  # tgkill of a thread of its own
    (234, 131, (1, 1), ERRNO | errno.EPERM),
    (16, 29, (0, 0x5451), ALLOW),  # ioctl: FIOCLEX
    (16, 29, (0, 0x5412), ERRNO | errno.EPERM),  # TIOCSTI
    (72, 25, (0, 1030), ALLOW),  # fcntl: F_DUPFD_CLOEXEC
    (72, 25, (0, 8), ERRNO | errno.EPERM),  # F_SETOWN
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_some_calls_are_allowed_with_some_arguments(machine: str, case: tuple[int, int, tuple[int, ...], int]) -> None:
    *numbers, arguments, answer = case
    number = numbers[MACHINES.index(machine)]
    assert isinstance(number, int)
    assert isinstance(arguments, tuple)
    assert ask(machine, number, *arguments) == answer


@pytest.mark.parametrize("machine", MACHINES)
def test_the_calls_of_another_machine_end_the_process(machine: str) -> None:
    for audit in (*AUDIT.values(), 0x40000003, 0x40000028):
        if audit != AUDIT[machine]:
            assert decide(make_filter(machine, PID), audit, 0) == KILL
    if machine == "x86_64":
        assert ask(machine, 0x40000000) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_fits_into_the_kernel(machine: str) -> None:
    assert len(make_filter(machine, PID)) < 4096
