"""Folders whose files are on a disk of this machine, or in its memory: to read one there needs no thread that can be left
behind, which takes longer than the reading of a small file.

A folder counts only after one of its files was read in such a thread. Of network file systems, of FUSE and of kinds not named
here every read stays there: their server may be gone, and then no read ever ends.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_MOST_FOLDERS = 100_000
# linux/magic.h
_DISKS = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # xfs
    0x9123683E,  # btrfs
    0xF2F52010,  # f2fs
    0x2FC12FC1,  # zfs
    0xCA451A4E,  # bcachefs
    0x01021994,  # tmpfs
    0x858458F6,  # ramfs
    0x794C7630,  # overlayfs
    0x73717368,  # squashfs
    0xE0F5E1E2,  # erofs
    0x2011BAB0,  # exfat
    0x4D44,  # vfat
    0x9660,  # iso9660
}
_known: dict[str, bool] = {}


def is_on_disk(uri: str) -> bool:
    """Whether the folder of this file is known to be on a disk."""
    return _known.get(uri.rpartition("/")[0], False)


def learn(uri: str, file: int) -> None:
    """Notes where the folder of ``uri`` is; ``file`` is the descriptor of that file, which was opened and read."""
    folder = uri.rpartition("/")[0]
    if folder in _known:
        return
    if len(_known) >= _MOST_FOLDERS:
        _known.clear()
    _known[folder] = find_kind(file) in _DISKS


def find_kind(file: int) -> int | None:
    """The number of the file system that the open ``file`` is on; None where this machine does not say."""
    if not sys.platform.startswith("linux"):
        return None
    state = ctypes.create_string_buffer(256)  # struct statfs begins with f_type
    if _libc().fstatfs(file, state) != 0:
        return None
    return int.from_bytes(state.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
