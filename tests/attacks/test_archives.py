"""Archives of files that are made to exhaust, deceive or take over who reads them: each costs its row, and nothing else."""

from __future__ import annotations

import errno
import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pytest

from dictalake.archive import unpack as unpacking
from dictalake.archive.descriptors import MOST_IN_MEMORY, map_file, open_bytes, open_empty
from dictalake.archive.members import Bounds
from dictalake.archive.unpack import open_members
from dictalake.archive.zip_files import list_zip
from dictalake.config.sections import Archive, Limits
from dictalake.errors import LoadError
from dictalake.records import Recording
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import Sandbox, Session
from tests.archives_of_files import OBJECT, WHOLE_FILE, make_tar, make_zip, pax, raw_header, unpack
from tests.attacks.lying_unpacker import LIES, lie

pytestmark = pytest.mark.timeout(60)


def quoted_zip(files: int, kernel: bytes) -> bytes:
    """Files whose compressed bytes begin with the headers of the next ones, quoted, and end in the same kernel (D. Fifield)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(kernel) + packer.flush()
    names = [f"{n:04}".encode() for n in range(files)]
    checksum, size, rest = zlib.crc32(kernel), len(kernel), body
    blocks: list[tuple[bytes, bytes, int, int, int]] = []
    for name in reversed(names):
        header = struct.pack("<4s5HIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 33, checksum, len(rest), size, len(name), 0) + name
        blocks.append((name, header, checksum, len(rest), size))
        quote = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF) + header
        checksum, size, rest = zlib.crc32(header + kernel), size + len(header), quote + rest
    data = rest[5:]
    at, directory, places = 0, b"", []
    for name, header, check, packed, unpacked in reversed(blocks):
        places.append((name, at, check, packed, unpacked))
        at += len(header) + 5
    for name, place, check, packed, unpacked in places:
        fields = (b"PK\x01\x02", 20, 20, 0, 8, 0, 33, check, packed, unpacked, len(name), 0, 0, 0, 0, 0, place)
        directory += struct.pack("<4s6H3I5HII", *fields) + name
    end = struct.pack("<4s4HIIH", b"PK\x05\x06", 0, 0, files, files, len(directory), len(data), 0)
    return data + directory + end


def test_a_zip_whose_files_quote_each_other_is_refused() -> None:
    data = quoted_zip(200, bytes(2_000_000))
    assert len(data) < 40_000
    assert sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(data)).infolist()) > 400_000_000
    with pytest.raises(LoadError, match=r"corrupt_audio.*cannot be opened \(BadZipFile\)"):
        unpack(data)


def test_a_zip_of_very_many_empty_files_is_one_row() -> None:
    entry = struct.pack("<4s6H3I5HII", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4s4HIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 600_000 * len(entry), 0, 0)
    with pytest.raises(LoadError, match=r"too_many_members.*more than the 10000 files of limits\.members"):
        unpack(b"PK\x03\x04" + entry * 600_000 + end)  # an object for each would take more memory than the child has


def test_a_gzip_bomb_stops_at_its_limit_and_leaves_no_file_behind() -> None:
    before = list_nameless_files()
    with pytest.raises(LoadError, match=r"expands_too_large.*more than the 50 MB of limits\.expanded_mb"):
        unpack(gzip.compress(bytes(200_000_000), 1), {"expanded_mb": 50})
    assert list_nameless_files() == before


def list_nameless_files() -> list[str]:
    """Those that this process and its children have open."""
    me = psutil.Process()
    folders = [Path(f"/proc/{process.pid}/fd") for process in [me, *me.children(recursive=True)]]
    links = [os.readlink(link) for folder in folders if folder.is_dir() for link in folder.iterdir() if link.is_symlink()]
    return sorted(link for link in links if "(deleted)" in link)


def test_a_tar_with_headers_without_end_is_damaged_after_its_first_file() -> None:
    for headers in (pax(b"x", {"comment": "c" * 50_000}) * 2_000, pax(b"x", {"comment": "c" * 3_000_000})):
        contents, found = unpack(WHOLE_FILE + headers + raw_header(b"b.wav", b"00000000000", b"0") + bytes(1024))
        assert found == {"a.wav": b"abc"}
        assert contents.damage is not None


def test_a_zip_that_names_a_file_without_end_gives_the_others_and_one_row() -> None:
    contents, found = unpack(make_zip({"a.wav": b"abc", "n" * 5000: b"x"}))
    assert found == {"a.wav": b"abc"}
    assert contents.damage == "it names a file with more than 4096 characters"


def test_the_objects_bytes_can_only_be_read_by_who_gets_them() -> None:
    for data in (b"small" * 10, bytes(33_000_000)):
        with open_bytes(data) as descriptor:
            assert os.pread(descriptor, len(data) + 1, 0) == data
            for attempt in (lambda: os.write(descriptor, b"x"), lambda: os.ftruncate(descriptor, 1)):
                with pytest.raises(OSError, match=r"."):
                    attempt()
    with open_empty() as (writable, readable):
        os.write(writable, b"inflated")
        assert os.read(readable, 100) == b"inflated"
        with pytest.raises(OSError, match=r"."):
            os.write(readable, b"x")


def test_a_file_that_needs_more_memory_than_a_child_has_is_unpacked_all_the_same() -> None:
    """Neither the child nor this process ever holds it whole."""
    size = int(unpacking.UNPACK_MB * 1e6) + 40_000_000
    for data in (make_zip({"a.wav": bytes(size)}), gzip.compress(bytes(size), 1)):
        with open_members(data, "zip" if data[:2] == b"PK" else "gzip", OBJECT, Archive(), Limits()) as contents:  # type: ignore[call-arg]
            ((recording, member),) = contents.members
            read = contents.read(recording, member, Limits())  # type: ignore[call-arg]
            assert len(read) == member.size_bytes == size
            assert not isinstance(read, bytes), "it would be in memory"


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    sandbox = Sandbox(lie, CallLimits(20.0, 200.0, 10**8), raises=unpacking.RAISED)
    monkeypatch.setattr(unpacking, "_open_sandbox", lambda *_: sandbox)
    yield
    sandbox.close()


def list_as(name: str, **limits: Any) -> list[str]:
    checked = Limits.model_validate(limits)
    with open_members(gzip.compress(b"x"), "gzip", Recording("7", f"gs://a/{name}", "1", 0), Archive(), checked) as contents:  # type: ignore[call-arg]
        return [recording.uri for recording, _ in contents.members]


@pytest.mark.parametrize("name", LIES)
@pytest.mark.usefixtures("hostile")
def test_a_list_that_no_honest_child_makes_is_one_failed_row(name: str) -> None:
    with pytest.raises(
        LoadError, match=r"^recording 7: decoder_crashed in load: the process that lists this archive"
    ) as caught:
        list_as(name)
    assert caught.value.detail.isprintable()


@pytest.mark.usefixtures("hostile")
def test_a_child_that_lists_more_than_the_limits_gets_no_further() -> None:
    with pytest.raises(LoadError, match="too_many_members"):
        list_as("too-many", members=11)
    with pytest.raises(LoadError, match="expands_too_large"):
        list_as("too-large")


@pytest.mark.usefixtures("hostile")
def test_a_child_that_dies_hangs_or_lies_costs_the_file_that_it_read() -> None:
    sizes = {"dies": 3, "hangs": 5, "overflows": 7, "lies": 9, "hoards": 11, "claims": 13}
    files = {name: bytes([48 + size]) * size for name, size in sizes.items()}
    order = [name for bad in files for name in (bad, f"good{bad}")]
    packed = {name: files.get(name, b"good") for name in order}
    _, found = unpack(make_tar(packed))
    assert list(found) == order
    assert {found[f"good{bad}"] for bad in files} == {b"good"}
    assert {name: found[name] for name in files} == {
        "dies": "decoder_crashed",
        "hangs": "decoder_timeout",
        "overflows": b"x" * 7,  # no more than the list announced
        "lies": "corrupt_audio",
        "hoards": "too_large",
        "claims": "decoder_crashed",  # that there is no room, where it has nothing to write
    }


def test_names_with_control_characters_are_names_of_rows_and_of_nothing_else() -> None:
    data = raw_header(b"a\x1b[2J.wav", b"00000000003", b"0") + b"abc".ljust(512, b"\0") + bytes(1024)
    contents, found = unpack(data[:-600])
    assert found == {"a\x1b[2J.wav": b"abc"}
    with pytest.raises(LoadError) as caught:
        contents.check_whole()
    assert "\x1b" not in str(caught.value)


def test_children_are_kept_from_one_small_archive_to_the_next() -> None:
    me = psutil.Process()
    before, seen = {child.pid for child in me.children(recursive=True)}, set()
    for n in range(20):
        unpack(gzip.compress(bytes([n + 1]) * 100), {"decode_s": 299})
        seen |= {child.pid for child in me.children(recursive=True)}
    assert len(seen - before) <= unpacking.UNPACKERS


@pytest.mark.usefixtures("hostile")
def test_a_child_fills_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may write limits.expanded_mb into the file that it was given; the kernel refuses the rest."""
    sizes = []

    @contextmanager
    def watched() -> Iterator[tuple[int, int]]:
        with open_empty() as (into, written):
            try:
                yield into, written
            finally:
                sizes.append(os.fstat(written).st_size)

    monkeypatch.setattr(unpacking, "open_empty", watched)
    with pytest.raises(LoadError, match="no_audio"):
        list_as("writes-on")
    assert sizes == [10**8]


@pytest.mark.usefixtures("hostile")
def test_a_large_file_is_mapped_only_when_nobody_can_make_it_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unpacker keeps a descriptor: what it cuts off while the decoder reads would end this process with SIGBUS."""
    openers: list[int] = []

    def watched(file: int, size: int) -> Any:
        me = os.fstat(file)
        for child in psutil.Process().children(recursive=True):
            opened = [one.stat() for one in Path(f"/proc/{child.pid}/fd").iterdir()]
            openers.extend(child.pid for one in opened if (one.st_dev, one.st_ino) == (me.st_dev, me.st_ino))
        return map_file(file, size)

    monkeypatch.setattr(unpacking, "map_file", watched)
    size = MOST_IN_MEMORY + 1
    assert len(unpack(make_tar({"a.wav": bytes(size)}))[1]["a.wav"]) == size
    assert openers == []


@pytest.mark.usefixtures("hostile")
def test_a_child_that_claims_a_full_disk_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that gives nothing ends a run."""
    with pytest.raises(LoadError, match=r"decoder_crashed.*where there is some"):
        list_as("claims-no-room")

    for code, expected in (
        (errno.ENOSPC, "fetch_failed"),
        (errno.EDQUOT, "fetch_failed"),
        (errno.EOPNOTSUPP, "decoder_crashed"),
    ):

        def refuse(*_: int, code: int = code) -> None:
            raise OSError(code, "no")

        monkeypatch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(LoadError, match=expected):
            list_as("claims-no-room")


def test_a_process_that_cannot_be_started_says_nothing_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(Session, "call", refuse)
    with pytest.raises(BlockingIOError):
        unpack(make_tar({"a.wav": bytes(MOST_IN_MEMORY + 1)}))


def test_the_entries_of_a_zip_inside_a_zip_are_not_counted() -> None:
    inner = make_zip({f"{n}.wav": b"x" for n in range(50)})
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("inner.zip", inner)
        packed.writestr("good.wav", b"good")
    _, found = unpack(outer.getvalue(), {"members": 10})
    assert found == {"inner.zip": "unsupported_container", "good.wav": b"good"}
    with pytest.raises(LoadError, match="too_many_members"):
        unpack(inner, {"members": 10})


def test_what_a_zip_announces_is_bounded_before_any_of_it_is_described() -> None:
    bounds = Bounds("r1", Limits.model_validate({"expanded_mb": 0.0001}))
    with pytest.raises(LoadError, match="expands_too_large"):
        list_zip(io.BytesIO(make_zip({"a.wav": bytes(101)})), bounds, ZoneInfo("UTC"))
