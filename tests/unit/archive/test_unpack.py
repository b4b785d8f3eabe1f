"""Archives of files: every file inside becomes a recording, whatever the archive announces and however it is damaged."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from dictalake.archive.unpack import open_members
from dictalake.audio.formats.read_audio import sniff
from dictalake.config.sections import Archive, Limits
from dictalake.errors import LoadError
from dictalake.records import Recording, make_recording_id
from tests.archives_of_files import FILES, KINDS, OBJECT, WHEN, make_tar, make_zip, raw_header, unpack


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_a_recording_with_its_own_id_and_time(kind: str) -> None:
    contents, found = unpack(KINDS[kind](FILES))
    assert found == FILES
    assert contents.damage is None
    for recording, member in contents.members:
        assert recording.recording_id == make_recording_id(f"gs://a/x.zip#{member.name}", "7")
        assert (recording.archive_id, recording.archive_rows) == (OBJECT.recording_id, 3)
        assert (recording.size_bytes, recording.modified_at) == (len(FILES[member.name]), WHEN)


def test_a_single_gzipped_file_is_one_recording() -> None:
    for uri, name in (("gs://a/dictation.wav.gz", "dictation.wav"), ("gs://a/packed", "packed")):
        data = gzip.compress(b"sound")
        with open_members(data, "gzip", Recording("1", uri, "7", 0), Archive(), Limits()) as contents:  # type: ignore[call-arg]
            assert [(r.uri, contents.read(r, m, Limits())) for r, m in contents.members] == [  # type: ignore[call-arg]
                (f"{uri}#{name}", b"sound")
            ]


def test_zip_times_are_of_the_configured_zone() -> None:
    contents, _ = unpack(make_zip(FILES), time_zone="America/New_York")
    assert contents.members[0][0].modified_at == datetime(2024, 3, 2, 17, 30, tzinfo=UTC)


def test_globs_choose_among_the_files_inside() -> None:
    assert set(unpack(make_zip(FILES), member_include=["**/*.wav"])[1]) == {"ward/a.wav", "ward/b.wav"}
    with pytest.raises(LoadError, match=r"no_audio.*member_include admits"):
        unpack(make_zip(FILES), member_include=["*.mp3"])


def test_a_name_that_comes_twice_loses_nothing() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for data in (b"old", b"new", b"newest"):
            info = tarfile.TarInfo("a.wav")
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    assert unpack(buffer.getvalue())[1] == {"a.wav": b"old", "a.wav~2": b"new", "a.wav~3": b"newest"}


def test_links_and_folders_are_no_recordings() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, kind in (("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("p", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            packed.addfile(info)
        packed.addfile(tarfile.TarInfo("../../a.wav"), io.BytesIO())
    assert unpack(buffer.getvalue())[1] == {"../../a.wav": b""}


@pytest.mark.parametrize("cut", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_of_an_archive_cut_short_the_files_before_the_cut_are_read(kind: str, cut: float) -> None:
    files = {f"{n}.wav": np.random.default_rng(n).bytes(3000) for n in range(20)}
    data = KINDS[kind](files)
    contents, found = unpack(data[: int(len(data) * cut)])
    assert contents.damage is not None
    assert contents.rows == len(found) + 1
    whole = {name: content for name, content in found.items() if isinstance(content, bytes)}
    assert 0 < len(whole) < 20
    assert whole == {name: files[name] for name in whole}
    assert set(list(found.values())[len(whole) :]) <= {"corrupt_audio"}


def test_a_damaged_header_in_the_middle_of_a_tar_does_not_pass_for_its_end() -> None:
    data = bytearray(make_tar(FILES))
    data[1024:1030] = b"\xff" * 6  # the second header
    contents, found = unpack(bytes(data))
    assert list(found) == ["ward/a.wav"]
    assert contents.damage == "it is cut short, damaged in the middle, or has headers that no recording needs"


def test_a_header_that_is_wiped_out_does_not_pass_for_the_end_either() -> None:
    data = bytearray(make_tar(FILES))
    data[1024:1536] = bytes(512)
    contents, found = unpack(bytes(data))
    assert list(found) == ["ward/a.wav"]
    assert contents.damage is not None


def test_archives_that_were_joined_lose_nothing_silently() -> None:
    more = {"d.wav": b"fourth"}
    for kind in ("tar", "tar.gz"):
        contents, found = unpack(KINDS[kind](FILES) + KINDS[kind](more))
        assert (found, contents.damage) == (FILES | more, None)
    contents, found = unpack(make_zip(FILES) + make_zip(more))
    assert found == more
    assert contents.damage == "there are files before the first one that its directory names, as where two were joined"


def test_a_zip_directory_that_names_fewer_files_than_it_announces_is_not_whole() -> None:
    data = bytearray(make_zip(FILES))
    end = data.index(b"PK\x05\x06")
    start = data.index(b"PK\x01\x02")
    first = data.index(b"PK\x01\x02", start + 4) - start
    del data[start : start + first]  # the first entry
    end -= first
    data[end + 12 : end + 16] = (end - start).to_bytes(4, "little")
    contents, found = unpack(bytes(data))
    assert "ward/a.wav" not in found
    assert contents.damage is not None


def test_a_tar_member_of_an_unknown_kind_is_a_file() -> None:
    data = raw_header(b"a.wav", b"00000000003", b"V") + b"abc".ljust(512, b"\0") + bytes(1024)
    assert unpack(data)[1] == {"a.wav": b"abc"}


def test_globs_see_names_without_their_leading_dot() -> None:
    assert unpack(make_tar({"./a.wav": b"x", "./b.txt": b"y"}), member_include=["*.wav"])[1] == {"./a.wav": b"x"}


def test_a_tar_is_known_whatever_its_first_file_is_called() -> None:
    assert sniff(make_tar({"caffrey/a.wav": b"x"})) == sniff(make_tar({"OggS.wav": b"x"})) == "tar"


def test_a_full_disk_is_no_fault_of_the_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    with pytest.raises(LoadError, match=r"fetch_failed.*temporary folder cannot hold .*set TMPDIR"):
        unpack(make_tar(FILES, "w:gz"))


@pytest.mark.parametrize(
    "data", [make_zip(FILES)[:-30], gzip.compress(b"x" * 99)[:10], make_tar(FILES)[:300]], ids=["zip", "gzip", "tar"]
)
def test_an_archive_that_cannot_be_opened_is_one_error(data: bytes) -> None:
    with pytest.raises(LoadError, match=r"corrupt_audio in load: this (zip|gzip|tar) archive cannot be opened"):
        list(open_members(data, "tar" if len(data) == 300 else sniff(data), OBJECT, Archive(), Limits()).__enter__().members)  # type: ignore[call-arg]


def test_files_that_cannot_be_read_cost_one_row_each() -> None:
    data = bytearray(make_zip(FILES, zipfile.ZIP_STORED))
    data[data.find(b"second")] ^= 1  # the checksum tells
    assert unpack(bytes(data))[1] == FILES | {"ward/b.wav": "corrupt_audio"}
    assert set(unpack(make_zip(FILES, zipfile.ZIP_LZMA))[1].values()) == {"unsupported_container"}
    encrypted = bytearray(make_zip(FILES))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.find(signature) + flags] |= 1
    assert unpack(bytes(encrypted))[1] == FILES | {"ward/a.wav": "unsupported_container"}
    assert unpack(make_zip({"in.zip": make_zip(FILES), "a": b"x"}))[1] == {"in.zip": "unsupported_container", "a": b"x"}
    assert unpack(make_zip(FILES), {"object_mb": 0.002})[1] == FILES | {"ward/b.wav": "object_too_large"}
