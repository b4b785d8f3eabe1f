"""Archives of files: every file inside becomes a recording, whatever the archive announces and however it is damaged."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.archive.unpack import Contents, open_members
from dictalake.audio.formats.read_audio import sniff
from dictalake.config.sections import Archive, Config, Limits
from dictalake.errors import LoadError
from dictalake.records import Recording, make_recording_id
from dictalake.workflow import columns
from dictalake.workflow.stages.load import Load
from tests.unit.audio.formats.archive_samples import encode, make_tone

OBJECT = Recording(make_recording_id("gs://a/x.zip", "7"), "gs://a/x.zip", "7", 0, datetime(2025, 5, 17, tzinfo=UTC))
WHEN = datetime(2024, 3, 2, 12, 30, tzinfo=UTC)
FILES = {"ward/a.wav": b"first", "ward/b.wav": b"second" * 400, "c.txt": b"text"}


def make_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, WHEN.timetuple()[:6])
            info.compress_type = method
            packed.writestr(info, data)
    return buffer.getvalue()


def make_tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as packed:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), int(WHEN.timestamp())
            packed.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


KINDS = {
    "zip": lambda files: make_zip(files),
    "zip-stored": lambda files: make_zip(files, zipfile.ZIP_STORED),
    "tar": lambda files: make_tar(files),
    "tar.gz": lambda files: make_tar(files, "w:gz"),
}


def unpack(data: bytes, limits: Mapping[str, Any] | None = None, **archive: Any) -> tuple[Contents, dict[str, bytes | str]]:
    """The contents, and for each member its bytes or the reason why it cannot be read."""
    checked, found = Limits.model_validate(limits or {}), {}
    with open_members(data, sniff(data), OBJECT, Archive.model_validate(archive), checked) as contents:
        for recording, member in contents.members:
            name = recording.uri.partition("#")[2]
            try:
                found[name] = contents.read(recording, member, checked)
            except LoadError as error:
                found[name] = error.reason
    return contents, found


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


@pytest.mark.parametrize("data", [make_zip(FILES)[:-30], gzip.compress(b"x" * 99)[:10], make_tar(FILES)[:300]])
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


def test_bombs_stop_at_the_limits() -> None:
    zeros = {"a": bytes(30_000_000)}
    for data in (make_zip(zeros), make_tar(zeros, "w:gz"), gzip.compress(zeros["a"])):
        assert len(data) < 100_000
        with pytest.raises(LoadError, match=r"expands_too_large.*more than the 20 MB of limits\.expanded_mb"):
            unpack(data, {"expanded_mb": 20})
    many = {f"{n}": b"" for n in range(11)}
    for data in (make_zip(many), make_tar(many)):
        with pytest.raises(LoadError, match=r"too_many_members.*more than the 10 files"):
            unpack(data, {"members": 10})


def test_a_tar_header_that_announces_gigabytes_is_not_read() -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2**33
    with pytest.raises(LoadError, match="corrupt_audio"):
        unpack(info.tobuf(tarfile.PAX_FORMAT) + bytes(10_240))


def raw_header(name: bytes, size_field: bytes, kind: bytes) -> bytes:
    """A tar header with anything as its size, and the right checksum."""
    header = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157], header[148:156] = size_field.ljust(12, b"\0"), kind, b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def pax(kind: bytes, records: dict[str, str]) -> bytes:
    body = b""
    for key, value in records.items():
        text = f" {key}={value}\n".encode()
        length = len(text) + len(str(len(text) + len(str(len(text)))))
        body += f"{length}".encode() + text
    return raw_header(b"pax", f"{len(body):011o}".encode(), kind) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def without_magic(header: bytes) -> bytes:
    """As tars were before POSIX."""
    old = bytearray(header)
    old[257:265], old[148:156] = bytes(8), b" " * 8
    old[148:156] = f"{sum(old):06o}\0 ".encode()
    return bytes(old)


WHOLE_FILE = raw_header(b"a.wav", b"00000000003", b"0") + b"abc".ljust(512, b"\0")
HOSTILE = {
    "negative-size": raw_header(b"b.wav", b"\xff\x80" + bytes(10), b"0"),
    "huge-size": raw_header(b"b.wav", b"\x80" + b"\x7f" * 11, b"0"),
    "negative-pax-size": pax(b"x", {"size": "-5"}) + raw_header(b"b.wav", b"00000000003", b"0") + bytes(512),
    "sparse": raw_header(b"b.wav", b"00000000000", b"S") + bytes(512),
    "old-sparse": without_magic(raw_header(b"b.wav", b"00000000000", b"S")) + bytes(512),
    "old-globals": (without_magic(raw_header(b"g", b"00000060000", b"g")) + bytes(24_576)) * 20,
    "pax-sparse": pax(b"x", {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "2000000000"})
    + raw_header(b"b.wav", b"00000000003", b"0")
    + bytes(512),
    "global-path": pax(b"g", {"path": "p" * 60_000}) + raw_header(b"b.wav", b"00000000000", b"0") * 3000,
    "many-globals": pax(b"g", {"comment": "c" * 100}) * 5000,
    "digits": pax(b"x", {"comment": "7" * 60_000}) + raw_header(b"b.wav", b"00000000003", b"0") + bytes(512),
    "long-name": pax(b"x", {"path": "p/" * 20_000}) + raw_header(b"b.wav", b"00000000003", b"0") + bytes(512),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_headers_that_are_there_to_exhaust_the_reader_end_the_archive(name: str) -> None:
    """The file before them is read; that there was more is said."""
    if name == "huge-size":
        with pytest.raises(LoadError, match="expands_too_large"):
            unpack(WHOLE_FILE + HOSTILE[name] + bytes(1024))
        return
    contents, found = unpack(WHOLE_FILE + HOSTILE[name] + bytes(1024))
    assert found == {"a.wav": b"abc"}
    assert contents.damage is not None


@pytest.mark.timeout(20)
def test_a_name_that_comes_very_often_takes_no_time() -> None:
    header = raw_header(b"a.wav", b"00000000000", b"0")
    assert len(unpack(header * 30_000 + bytes(1024))[1]) == 30_000


def test_entries_of_a_zip_that_share_their_bytes_are_refused() -> None:
    data = make_zip({"a.wav": bytes(5000)}, zipfile.ZIP_STORED)
    at = data.index(b"PK\x01\x02")
    entry = data[at : data.index(b"PK\x05\x06")]
    end = bytearray(data[data.index(b"PK\x05\x06") :])
    end[8:10] = end[10:12] = (50).to_bytes(2, "little")
    end[12:16] = (50 * len(entry)).to_bytes(4, "little")
    with pytest.raises(LoadError, match=r"corrupt_audio.*cannot be opened \(BadZipFile\)"):
        unpack(data[:at] + entry * 50 + bytes(end))


def test_an_office_document_is_no_archive_of_recordings() -> None:
    for files in ({"[Content_Types].xml": b"<x/>", "word/document.xml": b""}, {"mimetype": b"application/epub+zip", "a": b""}):
        with pytest.raises(LoadError, match=r"not_audio.*Office document"):
            unpack(make_zip(files))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    files=st.dictionaries(st.text("ab/é .", min_size=1, max_size=8).filter(lambda n: n.strip("/. ")), st.binary(max_size=50)),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=3),
)
def test_whatever_the_bytes_are_it_is_members_or_one_error(
    kind: str, files: dict[str, bytes], damage: list[tuple[float, int]]
) -> None:
    data = bytearray(KINDS[kind](files))
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    with_kind = kind.removesuffix("-stored").replace("tar.gz", "gzip")
    blamed = []
    try:
        with open_members(bytes(data), with_kind, OBJECT, Archive(), Limits()) as contents:  # type: ignore[call-arg]
            ids = [recording.recording_id for recording, _ in contents.members]
            for recording, member in contents.members:
                try:
                    contents.read(recording, member, Limits())  # type: ignore[call-arg]
                except LoadError as error:
                    blamed.append(error.recording_id)
    except LoadError as error:
        ids, blamed = [OBJECT.recording_id], [error.recording_id]
    assert len(set(ids)) == len(ids)
    assert set(blamed) <= set(ids)


# -- through the load stage ----------------------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    tone = encode(make_tone(0.3), 16_000, "WAV")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/week.zip").write_bytes(make_zip({"mon.wav": tone, "tue.wav": tone, "notes.txt": b"text"}))
    (tmp_path / "archive/plain.wav").write_bytes(tone)
    (tmp_path / "archive/cut.tar").write_bytes(make_tar({"a.wav": tone, "b.wav": tone})[:12_000])
    (tmp_path / "archive/not.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    return tmp_path / "archive"


def load(folder: Path, done: tuple[str, ...] = (), **config: Any) -> list[dict[str, Any]]:
    from dataclasses import replace

    from dictalake.archive.listing import list_recordings

    checked = Config.model_validate({"archive": {"uri": str(folder), **config.pop("archive", {})}, **config})
    recordings = [replace(recording, done_members=done) for recording in list_recordings(checked.archive)]
    return pa.concat_tables(Load(checked)(columns.recordings_to_table(recordings))).to_pylist()


def outcomes(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["uri"].rsplit("/", 1)[1]: row["error"]["reason"] if row["error"] else "ok" for row in rows}


def test_the_load_stage_gives_one_row_for_every_file_inside(packed: Path) -> None:
    rows = load(packed)
    assert outcomes(rows) == {
        "plain.wav": "ok",
        "week.zip#mon.wav": "ok",
        "week.zip#tue.wav": "ok",
        "week.zip#notes.txt": "not_audio",
        "cut.tar#a.wav": "ok",
        "cut.tar#b.wav": "corrupt_audio",
        "cut.tar": "corrupt_audio",
        "not.zip": "corrupt_audio",
    }
    assert len(rows) == 8
    by_archive = {row["archive_id"]: row["archive_rows"] for row in rows}
    assert sorted(by_archive.values(), key=str) == [1, 3, 3, None]
    detail = next(row["error"]["detail"] for row in rows if row["uri"].endswith("cut.tar"))
    assert detail.endswith("2 files were found in it, there may have been more; upload it again")
    assert not any(
        word in row["error"]["detail"] for row in rows if row["error"] for word in ("mon", "week", "cut.tar", "b.wav")
    )


def test_files_that_are_done_are_not_read_again(packed: Path) -> None:
    done = tuple(row["recording_id"] for row in load(packed) if "mon.wav" in row["uri"] or row["uri"].endswith("cut.tar"))
    assert set(outcomes(load(packed, done))) == {
        *("plain.wav", "week.zip#tue.wav", "week.zip#notes.txt", "cut.tar#a.wav", "cut.tar#b.wav", "not.zip")
    }


def test_without_expand_an_archive_is_one_failed_row_that_says_what_to_do(packed: Path) -> None:
    rows = {row["uri"].rsplit("/", 1)[1]: row["error"] for row in load(packed, archive={"expand": False})}
    assert rows["week.zip"]["reason"] == rows["cut.tar"]["reason"] == "unsupported_container"
    assert rows["week.zip"]["detail"] == "this is a ZIP archive, and archive.expand is off; turn it on, or unpack it"


def test_rows_come_in_tables_of_bounded_audio(packed: Path) -> None:
    from dictalake.archive.listing import list_recordings

    config = Config.model_validate({"archive": {"uri": str(packed)}, "ray": {"block_audio_s": 0.7}})
    tables = list(Load(config)(columns.recordings_to_table(list(list_recordings(config.archive)))))
    seconds = [sum(row["duration_s"] or 0 for row in table.to_pylist()) for table in tables]
    assert len(tables) == 2
    assert all(0 < s <= 0.7 for s in seconds)
