"""Regular files below a folder, and nothing else: no pipe or device is waited for, and no link leads out of the folder.

Whoever writes into an archive may replace a file by a link or a pipe at any moment, also between a look and an opening. So a
path is never looked at first: the kernel itself resolves it below the folder (openat2, Linux 5.6), and what was opened is
asked what it is. Where the kernel has no openat2, each part of the path is opened by itself, and none of them may be a link.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import stat
from functools import cache

from dictalake.config.uris import resolve_links

_OPENAT2 = 437  # the number of the system call on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_TRIES = 16  # EAGAIN: something was renamed while the kernel resolved a path with ``..`` in a link
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a pipe without a writer is opened at once, and found to be one.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotRegularError(OSError):
    """The path leads to a pipe, a device or a socket."""


class OutsideError(OSError):
    """The path leads out of the folder, by a link or by ``..``."""


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_regular(root: str, relative: str) -> io.FileIO:
    """Opens the regular file at ``relative`` below the folder ``root``, which itself may be reached by links.

    Links inside are followed as long as they stay inside. Raises OutsideError, NotRegularError, IsADirectoryError, and the
    other OSErrors of opening a file, ELOOP and ENAMETOOLONG among them. It never waits for a file.
    """
    opened = _open_below(root, relative, _FILE)
    try:
        mode = os.fstat(opened).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "a folder")
        if not stat.S_ISREG(mode):
            raise NotRegularError(errno.EINVAL, "no regular file")
        return io.FileIO(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def open_folder(root: str, relative: str) -> int:
    """A descriptor of the folder at ``relative`` below ``root``; of ``root`` itself for an empty path. Raises as above."""
    return _open_below(root, relative, _FOLDER) if relative else os.open(root, _FOLDER)


def _open_below(root: str, relative: str, flags: int) -> int:
    folder = os.open(root or "/", _FOLDER)
    try:
        if has_openat2():
            try:
                return _openat2(folder, relative, flags)
            except OutsideError:  # an absolute link may lead back inside
                return _openat2(folder, _resolve(root, relative), flags)
        return _open_by_parts(folder, _resolve(root, relative), flags)
    finally:
        os.close(folder)


@cache
def has_openat2() -> bool:
    """Whether this kernel, and what filters its system calls, knows openat2."""
    try:
        folder = os.open("/", _FOLDER)
        try:
            os.close(_openat2(folder, ".", _FOLDER))
        finally:
            os.close(folder)
    except OSError:
        return False
    return True


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _openat2(folder: int, relative: str, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    path = os.fsencode(relative)
    for _ in range(_TRIES):
        opened = _libc().syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if opened >= 0:
            return int(opened)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    if code == errno.EXDEV:
        raise OutsideError(errno.EXDEV, "it leads out of the archive")
    if code == errno.ENXIO:  # a socket, or a device without its driver
        raise NotRegularError(errno.EINVAL, "no regular file")
    raise OSError(code, os.strerror(code))  # as the subclass of the code: FileNotFoundError …


def _resolve(root: str, relative: str) -> str:
    """``relative`` without links. Raises OutsideError. What is swapped later is a link where there may be none."""
    base = resolve_links(root or "/")
    path = resolve_links(os.path.join(base, relative))
    if path == base:
        return "."
    if not path.startswith(f"{base.rstrip('/')}/"):
        raise OutsideError(errno.EXDEV, "it leads out of the archive")
    return path[len(base.rstrip("/")) + 1 :]


def _open_by_parts(folder: int, relative: str, flags: int) -> int:
    parts = relative.split("/")
    at = os.dup(folder)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=at)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotRegularError(errno.EINVAL, "no regular file") from None
        raise
    finally:
        os.close(at)
