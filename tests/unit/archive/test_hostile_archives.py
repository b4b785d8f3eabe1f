"""Archives that are made to exhaust or deceive their reader: bombs, forged headers, arbitrary bytes."""

from __future__ import annotations

import gzip
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.archive.unpack import open_members
from dictalake.config.sections import Archive, Limits
from dictalake.errors import LoadError
from tests.archives_of_files import HOSTILE, KINDS, OBJECT, WHOLE_FILE, make_tar, make_zip, raw_header, unpack


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


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_headers_that_are_there_to_exhaust_the_reader_end_the_archive(name: str) -> None:
    """The file before them is read, and the archive is reported as damaged."""
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
    assert len(unpack(header * 30_000 + bytes(1024), {"members": 30_000})[1]) == 30_000


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
