"""A decoder that a hostile file has taken over: it tries what such a program would try, and says what came of it.

``attempt`` runs in the sandbox; ``python -m tests.attacks.hostile`` runs the same attacks as a process of this machine that
nobody confines, for comparison. Each attack raises OSError where it is refused.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

_LIBC = ctypes.CDLL(None, use_errno=True)
_IS_ARM = platform.machine() == "aarch64"
# Numbers of system calls: x86-64, aarch64.
NUMBERS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "memfd_create": (319, 279),
    "execveat": (322, 281),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "clone": (56, 220),
    "clone3": (435, 435),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "rt_sigqueueinfo": (129, 138),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
    "seccomp": (317, 277),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
    "openat2": (437, 437),
    "chroot": (161, 51),
    "shmget": (29, 194),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "mq_open": (240, 180),
    "inotify_init1": (294, 26),
    "sched_setaffinity": (203, 122),
    "setpriority": (141, 140),
    "setsid": (112, 157),
    "setpgid": (109, 154),
}


def call(name: str, *arguments: int | bytes | None) -> int:
    """A system call by its number, past the C library. Raises OSError where the kernel refuses it."""
    ctypes.set_errno(0)
    _LIBC.syscall.restype = ctypes.c_long
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    answer = int(_LIBC.syscall(ctypes.c_long(NUMBERS[name][_IS_ARM]), *passed))
    if answer < 0:
        raise OSError(ctypes.get_errno(), name)
    return answer


def attempt(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Tries every attack of ATTACKS; the answer says for each ``done``, or how it was refused."""
    return {name: _try(attack, settings) for name, attack in ATTACKS.items()}, np.zeros((0, 0), dtype=np.int16)


def _try(attack: Callable[[dict[str, Any]], Any], target: dict[str, Any]) -> str:
    try:
        attack(target)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "refused")
    return "done"


def _read(path: str) -> None:
    with open(path, "rb") as file:
        if not file.read(64):
            raise OSError(0, "nothing in it")


def _read_memory(target: dict[str, Any]) -> None:
    with open(f"/proc/{target['parent']}/mem", "rb", buffering=0) as file:
        file.seek(target["address"])
        if not file.read(8):
            raise OSError(0, "nothing read")


def _peek(target: dict[str, Any]) -> None:
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("<QQ", ctypes.addressof(buffer), 8)
    call("process_vm_readv", target["parent"], local, 1, struct.pack("<QQ", target["address"], 8), 1, 0)


def _trace(target: dict[str, Any]) -> None:
    call("ptrace", 0x4206, target["parent"], 0, 0)  # PTRACE_SEIZE stops nobody


def _write(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"")


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as one:
        one.connect(address)


def _bind(target: dict[str, Any]) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))


def _fork(target: dict[str, Any]) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _clone(name: str, *arguments: int | bytes) -> None:
    """A process, not a thread: flags of a fork."""
    child = call(name, *arguments)
    if child == 0:
        _LIBC._exit(0)
    os.waitpid(child, 0)


def _start_thread(target: dict[str, Any]) -> None:
    work, thread = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None), ctypes.c_ulong()
    if error := _LIBC.pthread_create(ctypes.byref(thread), None, work, None):
        raise OSError(error, "pthread_create")
    _LIBC.pthread_join(thread, None)


def _spawn(target: dict[str, Any]) -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def _execute(target: dict[str, Any]) -> None:
    """A program that does not exist would replace this process: what is refused is refused before it is looked for."""
    os.execv("/bin/true/not-there", ["true"])


def _execute_memory(target: dict[str, Any]) -> None:
    call("execveat", call("memfd_create", b"x", 0), b"", None, None, 0x1000)


def _clear_death_signal(target: dict[str, Any]) -> None:
    if _LIBC.prctl(1, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _make_owner(target: dict[str, Any]) -> None:
    """A signal to another process whenever the descriptor has news."""
    fcntl.fcntl(0, fcntl.F_SETOWN, target["victim"])


def _type_on_terminal(target: dict[str, Any]) -> None:
    fcntl.ioctl(0, 0x5412, b"x")  # TIOCSTI


def _limit_parent(target: dict[str, Any]) -> None:
    resource.prlimit(target["victim"], resource.RLIMIT_CORE, resource.prlimit(target["victim"], resource.RLIMIT_CORE))


def _limit_itself(kind: int) -> None:
    """To what it is: a limit that it may set it could raise."""
    call("prlimit64", 0, kind, struct.pack("<qq", *resource.getrlimit(kind)), None)


_Attack = Callable[[dict[str, Any]], Any]
FILES: dict[str, _Attack] = {
    "read /etc/passwd": lambda t: _read("/etc/passwd"),
    "read a file in the home": lambda t: _read(f"{t['home']}/secret"),
    "list the home": lambda t: os.listdir(t["home"]),
    "list the root": lambda t: os.listdir("/"),
    "read the own environment by /proc": lambda t: _read("/proc/self/status"),
    "write a file": lambda t: _write(f"{t['home']}/new"),
    "overwrite a file": lambda t: _write(f"{t['home']}/secret2"),
    "rename a file": lambda t: os.rename(f"{t['home']}/a", f"{t['home']}/b"),
    "delete a file": lambda t: os.unlink(f"{t['home']}/c"),
    "make a folder": lambda t: os.mkdir(f"{t['home']}/folder"),
    "make a link": lambda t: os.symlink("/etc", f"{t['home']}/link"),
    "make a hard link": lambda t: os.link(f"{t['home']}/secret", f"{t['home']}/hard"),
    "make a FIFO": lambda t: os.mkfifo(f"{t['home']}/fifo"),
    "make a file readable": lambda t: os.chmod(f"{t['home']}/secret", 0o644),
    "cut a file": lambda t: os.truncate(f"{t['home']}/d", 1),
}
PARENT: dict[str, _Attack] = {
    "read the parent's environment": lambda t: _read(f"/proc/{t['parent']}/environ"),
    "read the parent's memory": _read_memory,
    "read the parent's memory map": lambda t: _read(f"/proc/{t['parent']}/maps"),
    "peek into the parent": _peek,
    "trace the parent": _trace,
    "open the parent's process": lambda t: call("pidfd_open", t["parent"], 0),
    "compare with the parent": lambda t: call("kcmp", os.getpid(), t["parent"], 2, 0, 0),
    "signal to the parent": lambda t: os.kill(t["parent"], 0),
    "kill a process": lambda t: os.kill(t["victim"], signal.SIGCONT),
    "kill a thread": lambda t: call("tgkill", t["victim"], t["victim"], 0),
    "queue a signal": lambda t: call("rt_sigqueueinfo", t["victim"], 0, struct.pack("<iii", 0, 0, -1).ljust(128, b"\0")),
    "limit another process": _limit_parent,
    "bind another process to a processor": lambda t: call("sched_setaffinity", t["victim"], 8, b"\x01".ljust(8, b"\0")),
    "own a descriptor for another process": _make_owner,
}
NETWORK: dict[str, _Attack] = {
    "TCP connection": lambda t: _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", t["port"])),
    "TCP server": _bind,
    "UDP": lambda t: _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53)),
    "UNIX socket": lambda t: _connect(socket.AF_UNIX, socket.SOCK_STREAM, f"{t['home']}/socket"),
    "abstract UNIX socket": lambda t: _connect(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{t['abstract']}"),
    "pair of sockets": lambda t: socket.socketpair(),
    "netlink": lambda t: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
}
PROCESSES: dict[str, _Attack] = {
    "fork": _fork,
    "vfork": _spawn,
    "clone without a thread": lambda t: _clone("clone", signal.SIGCHLD, 0, 0, 0, 0),
    "clone into a namespace": lambda t: _clone("clone", signal.SIGCHLD | 0x10000000, 0, 0, 0, 0),
    "clone3": lambda t: _clone("clone3", struct.pack("<11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0), 88),
    "thread": _start_thread,
    "set the own processor time": lambda t: _limit_itself(resource.RLIMIT_CPU),
    "set the own memory": lambda t: _limit_itself(resource.RLIMIT_AS),
    "exec": _execute,
    "exec from memory": _execute_memory,
    "own process group": lambda t: call("setpgid", 0, 0),
    "own session": lambda t: call("setsid"),
    "outlive the parent": _clear_death_signal,
}
KERNEL: dict[str, _Attack] = {
    "io_uring": lambda t: call("io_uring_setup", 1, bytes(120)),
    "mount": lambda t: call("mount", b"none", b"/not-there", b"tmpfs", 0, None),
    "new mount": lambda t: call("fsopen", b"tmpfs", 0),
    "mount tree": lambda t: call("open_tree", -100, b"/", 1),
    "unshare": lambda t: call("unshare", 0x10000000),
    "setns": lambda t: call("setns", 0, 0),
    "chroot": lambda t: call("chroot", b"/"),
    "bpf": lambda t: call("bpf", 9999, bytes(72), 72),
    "keyctl": lambda t: call("keyctl", 0, -3, 1),
    "add_key": lambda t: call("add_key", b"user", b"x", b"y", 1, -3),
    "userfaultfd": lambda t: call("userfaultfd", 1),
    "perf_event_open": lambda t: call("perf_event_open", bytes(128), 0, -1, -1, 0),
    "memfd": lambda t: call("memfd_create", b"x", 0),
    "open by handle": lambda t: call("open_by_handle_at", -100, bytes(16), 0),
    "load a module": lambda t: call("init_module", b"", 0, b""),
    "shared memory": lambda t: call("shmget", 0, 0, 0o1600),
    "message queue": lambda t: call("mq_open", b"not-there", os.O_RDWR, 0, None),
    "watch files": lambda t: call("inotify_init1", 0),
    "openat2": lambda t: call("openat2", -100, b"/etc/passwd", bytes(24), 24),
    "another filter": lambda t: call("seccomp", 1, 0, struct.pack("<HxxxxxxQ", 0, 0)),
    "terminal": _type_on_terminal,
}
ATTACKS = {**FILES, **PARENT, **NETWORK, **PROCESSES, **KERNEL}


_DETAIL = "\x1b]0;title\x07\nred\x1b[31m \u202egpj.exe \ud800 é "


def answer(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Answers as no decoder does, in the way that ``data`` says."""
    from dictalake.errors import CorruptAudio

    nothing = np.zeros((0, 0), dtype=np.int16)
    match data.decode():
        case "detail":
            raise CorruptAudio(recording_id, _DETAIL + "x" * 48_000_000)
        case "detail of its own":
            failure = {"reason": "corrupt_audio", "detail": _DETAIL + "x" * 200_000}
            return _raw(json.dumps({"failure": failure, "shape": [0, 0], "nonce": _find_nonce()}).encode())
        case "long value":
            return {"text": "x" * 100_000_000}, nothing
        case "nested":
            return _raw(b'{"value":' * 50_000 + b"{}" + b"}" * 50_000)  # just short enough to be read
        case "no JSON":
            return _raw(b"\xff{")
        case "no shape":
            return _raw(b'{"value":{}}')
        case "wrong shape":
            return _raw(b'{"value":{},"shape":[-1,0]}')
        case "large shape":
            return _raw(b'{"value":{},"shape":[1000000000,1000000000]}')
        case "no value":
            return _raw(b'{"failure":{"reason":["x"],"detail":{}},"shape":[0,0]}')
        case "list":
            return _raw(b"[1,2,3]")
        case "lies about its length":
            return _raw(b"", 2**62, 2**62)
        case "more than it may":
            return _raw(b"{}", 2, 10**12)
        case "talks on":  # an answer to a question that nobody has asked yet
            _raw(json.dumps({"value": {"who": "before"}, "shape": [0, 0], "nonce": _find_nonce()}).encode())
            return {"who": "after"}, nothing
        case "answers another request":
            return _raw(b'{"value":{},"shape":[0,0],"nonce":"0123456789abcdef"}')
        case "leaves":
            os._exit(0)
    if data.startswith(b"claims "):
        failure = {"reason": data.decode().removeprefix("claims "), "detail": "so it is"}
        return _raw(json.dumps({"failure": failure, "shape": [0, 0], "nonce": _find_nonce()}).encode())
    return {"who": "me"}, nothing


def _find_nonce() -> str:
    """A child that has been taken over knows all that it was told."""
    return str(sys._getframe(2).f_locals["request"]["nonce"])


def _raw(text: bytes, *lengths: int) -> tuple[dict[str, Any], np.ndarray]:
    """Writes a message of its own to the caller."""
    message = struct.pack("<QQ", *(lengths or (len(text), 0))) + text
    os.write(int(sys.argv[1]), message)
    return {}, np.zeros((0, 0), dtype=np.int16)


def run_code(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Calls the kernel by the numbers of another machine, or does harmless work in a thread."""
    nothing = np.zeros((0, 0), dtype=np.int16)
    if data == b"x32":
        _LIBC.syscall(ctypes.c_long(0x40000000 | 39))
    elif data == b"i386":
        import mmap

        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return {"pid": ctypes.CFUNCTYPE(ctypes.c_int)(address)()}, nothing
    return {"pid": os.getpid()}, nothing


def main() -> None:
    target = json.loads(sys.argv[1])
    print(json.dumps(attempt(b"", "r1", target)[0]))


if __name__ == "__main__":
    main()
