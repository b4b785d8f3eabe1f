"""A ZIP of 4 GB with a thousand good files is read within the memory of a small process, in some ten seconds."""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path

import psutil
import pytest

from dictalake.archive.descriptors import find_sha256, map_file
from dictalake.archive.unpack import open_members
from dictalake.config.sections import Archive, Limits
from dictalake.records import Recording

FILES, SIZE = 1_000, 4_100_000


def write_sparse_zip(path: Path) -> None:
    """Stored files of zeros, which take no room on the disk."""
    checksum, directory = zlib.crc32(bytes(SIZE)), b""
    with path.open("wb") as file:
        for number in range(FILES):
            name, at = f"{number:04}.wav".encode(), file.tell()
            file.write(struct.pack("<4s5HIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 33, checksum, SIZE, SIZE, len(name), 0) + name)
            file.seek(SIZE, 1)
            fields = (b"PK\x01\x02", 20, 20, 0, 0, 0, 33, checksum, SIZE, SIZE, len(name), 0, 0, 0, 0, 0, at)
            directory += struct.pack("<4s6H3I5HII", *fields) + name
        file.write(directory + struct.pack("<4s4HIIH", b"PK\x05\x06", 0, 0, FILES, FILES, len(directory), file.tell(), 0))


def measure_mb() -> float:
    """What this process and its children have for themselves."""
    total, me = 0, psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total / 1e6


@pytest.mark.timeout(300)
def test_a_zip_of_four_gigabytes_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write_sparse_zip(path)
    limits = Limits.model_validate({"object_mb": 5_000})
    idle_mb, peaks, done = measure_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            peaks.append(measure_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with path.open("rb") as file:
            data = map_file(file.fileno(), path.stat().st_size)
        assert len(data) > 4.1e9
        find_sha256(data)  # as the load stage does
        with open_members(data, "zip", Recording("1", "gs://a/a.zip", "1", len(data)), Archive(), limits) as contents:  # type: ignore[call-arg]
            assert len(contents.members) == FILES
            read = [len(contents.read(recording, member, limits)) for recording, member in contents.members]
    finally:
        done.set()
        watcher.join()
    assert read == [SIZE] * FILES
    assert max(peaks) - idle_mb < 300
