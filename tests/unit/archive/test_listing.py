"""Listing finds every object once, in order, with an id that changes when the bytes do."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import known_implementations

from dictalake.archive import listing, objects
from dictalake.archive.fetch import fetch
from dictalake.archive.findings import Findings
from dictalake.archive.listing import list_recordings
from dictalake.archive.storage import open_location
from dictalake.config.sections import Archive
from dictalake.errors import ChangedDuringRead, ConfigError, EntryFailed, NotFound, RunError
from dictalake.records import make_recording_id
from tests.emulators import ObjectStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "a.wav", "ward/c.wav", "ward/deep/d.dcm", "ward/.hidden", "wards-old/e.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    return tmp_path


def names(archive: Archive, folder: Path) -> list[str]:
    return [recording.uri.removeprefix(f"file://{folder}/") for recording in list_recordings(archive)]


def test_local_recordings_have_uri_version_size_time_and_id(folder: Path) -> None:
    first = next(list_recordings(Archive(uri=str(folder))))
    assert first.uri == f"file://{folder}/a.wav"
    assert first.version == "1700000000123456789-5"
    assert first.size_bytes == 5
    assert first.modified_at is not None
    assert abs(first.modified_at - datetime(2023, 11, 14, 22, 13, 20, 123_456, tzinfo=UTC)).total_seconds() < 1e-5
    assert first.recording_id == make_recording_id(first.uri, first.version)


def test_the_folders_of_a_lake_are_left_out(folder: Path) -> None:
    lake = f"file://{folder}/ward"
    findings = Findings(lake_folders=(f"{lake}/deep", f"{lake}/not-there"))
    found = [one.uri.removeprefix(f"file://{folder}/") for one in list_recordings(Archive(uri=str(folder)), findings)]
    assert found == ["a.wav", "b.wav", "ward/.hidden", "ward/c.wav", "wards-old/e.wav"]
    assert (findings.holds_lake, findings.has_entries) == (True, True)


def test_the_folders_of_a_lake_are_left_out_of_a_bucket_too() -> None:
    files = fsspec.filesystem("memory")
    for name in ("a.wav", "lake/runs/1.parquet", "lake/runs-of-dogs.wav"):
        files.pipe_file(f"/bucket/{name}", b"x")
    try:
        findings = Findings(lake_folders=("memory:///bucket/lake/runs",))
        found = [one.uri for one in list_recordings(Archive(uri="memory://bucket"), findings)]
        assert found == ["memory:///bucket/a.wav", "memory:///bucket/lake/runs-of-dogs.wav"]
        assert findings.holds_lake
        empty = Findings(lake_folders=("memory:///bucket/lake/runs",))
        assert list(list_recordings(Archive(uri="memory://bucket/lake/runs"), empty)) == []
        assert not empty.has_entries
    finally:
        files.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("include", "found"),
    [
        (("**",), ["a.wav", "b.wav", "ward/.hidden", "ward/c.wav", "ward/deep/d.dcm", "wards-old/e.wav"]),
        (("*.wav",), ["a.wav", "b.wav"]),
        (("**/*.wav",), ["a.wav", "b.wav", "ward/c.wav", "wards-old/e.wav"]),
        (("ward/**",), ["ward/.hidden", "ward/c.wav", "ward/deep/d.dcm"]),
        (("*.wav", "**/*.dcm"), ["a.wav", "b.wav", "ward/deep/d.dcm"]),
        (("*.mp3",), []),
    ],
)
def test_globs_are_on_the_relative_path(folder: Path, include: tuple[str, ...], found: list[str]) -> None:
    assert names(Archive(uri=str(folder), include=include), folder) == found


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://{}/"])
def test_path_and_file_uri_give_the_same_ids(folder: Path, form: str) -> None:
    archive = Archive(uri=form.format(folder), include=("a.wav",))
    assert [r.uri for r in list_recordings(archive)] == [f"file://{folder}/a.wav"]


def test_a_single_file_is_an_archive_of_one(folder: Path) -> None:
    assert names(Archive(uri=str(folder / "ward/c.wav")), folder) == ["ward/c.wav"]


def test_since_leaves_out_what_is_older(folder: Path) -> None:
    os.utime(folder / "b.wav", ns=(1, 1_800_000_000 * 10**9))
    archive = Archive(uri=str(folder), since=datetime(2026, 1, 1, tzinfo=UTC))
    assert names(archive, folder) == ["b.wav"]


def test_odd_names_are_listed_and_fetched(tmp_path: Path) -> None:
    archive = Archive(uri=str(tmp_path))
    for name in ("a b#1.wav", "zip::x.wav", "50%.wav", "ü?.wav", "[1]*.wav"):
        (tmp_path / name).write_bytes(name.encode())
    assert sorted(fetch(recording, archive).decode() for recording in list_recordings(archive)) == sorted(os.listdir(tmp_path))


def test_name_that_is_no_utf_8_is_shown_with_escapes_and_read(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.wav")).write_bytes(b"x")
    archive = Archive(uri=str(tmp_path))
    (recording,) = list_recordings(archive)
    assert recording.uri == f"file://{tmp_path}/\\udce9.wav"
    assert fetch(recording, archive) == b"x"


def test_rewritten_file_gets_another_id(folder: Path) -> None:
    archive = Archive(uri=str(folder), include=("a.wav",))
    (before,) = list_recordings(archive)
    (folder / "a.wav").write_bytes(b"other bytes")
    (after,) = list_recordings(archive)
    assert before.uri == after.uri
    assert before.recording_id != after.recording_id


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("/no/such/folder", "archive.uri = '/no/such/folder': there is nothing at this place"),
        ("file:///no/such/folder", "archive.uri = 'file:///no/such/folder': there is nothing at this place"),
        ("carrier-pigeon://CANARY", "archive.uri: there is no storage of this kind"),
        (None, "archive.uri is not set"),
    ],
)
def test_place_that_cannot_be_listed_says_so_at_once(uri: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        list_recordings(Archive(uri=uri))
    assert "CANARY" not in str(caught.value)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_implementations, "abfs", {"class": "not_installed.Adl", "err": "no"})
    with pytest.raises(ConfigError, match="abfs:// needs the package adlfs: pip install adlfs"):
        list_recordings(Archive(uri="abfs://container/folder"))


def test_bad_glob_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"archive.include = '\*\*.wav'"):
        list_recordings(Archive(uri=str(folder), include=("**.wav",)))


def test_object_store_is_listed_and_read_at_the_listed_version(object_store: ObjectStore) -> None:
    bucket = object_store.make_bucket()
    writer, _ = open_location(bucket, object_store.fsspec_options, "test")
    for name in ("day/b.wav", "day/a.wav", "day/deep/take#12.wav", "day-before/x.wav"):
        writer.pipe_file(f"{bucket}/{name}", name.encode())
    archive = Archive(uri=f"{bucket}/day", storage_options=object_store.fsspec_options)
    found = list(list_recordings(archive))
    assert [r.uri.removeprefix(bucket) for r in found] == ["/day/a.wav", "/day/b.wav", "/day/deep/take#12.wav"]
    assert [fetch(r, archive) for r in found] == [b"day/a.wav", b"day/b.wav", b"day/deep/take#12.wav"]
    assert [r.size_bytes for r in found] == [9, 9, 20]
    assert all(r.modified_at is not None and r.modified_at.tzinfo is not None for r in found)
    assert list(list_recordings(Archive(uri=f"{bucket}/empty", storage_options=object_store.fsspec_options))) == []

    writer.pipe_file(f"{bucket}/day/a.wav", b"otherwise")
    with pytest.raises(ChangedDuringRead):
        fetch(found[0], archive)
    assert next(list_recordings(archive)).recording_id != found[0].recording_id
    writer.rm_file(f"{bucket}/day/b.wav")
    with pytest.raises(NotFound):
        fetch(found[1], archive)


def test_whole_bucket_is_listed(object_store: ObjectStore) -> None:
    bucket = object_store.make_bucket()
    writer, _ = open_location(bucket, object_store.fsspec_options, "test")
    for name in ("b.wav", "day/a.wav"):
        writer.pipe_file(f"{bucket}/{name}", b"x")
    for form in (bucket, f"{bucket}/"):
        archive = Archive(uri=form, storage_options=object_store.fsspec_options)
        assert [r.uri for r in list_recordings(archive)] == [f"{bucket}/b.wav", f"{bucket}/day/a.wav"]


def test_bucket_that_keeps_versions_is_read_without_asking_for_them(s3: ObjectStore) -> None:
    bucket = s3.make_bucket()
    archive = Archive(uri=bucket, storage_options=s3.fsspec_options)
    writer, path = open_location(bucket, s3.fsspec_options, "test")
    writer.make_bucket_versioned(path)
    writer.pipe_file(f"{path}/a.wav", b"first")
    (recording,) = list_recordings(archive)
    assert fetch(recording, archive) == b"first"
    writer.pipe_file(f"{path}/a.wav", b"second")
    with pytest.raises(ChangedDuringRead):
        fetch(recording, archive)


def test_bucket_that_keeps_versions_still_gives_the_listed_one(s3: ObjectStore) -> None:
    bucket = s3.make_bucket()
    archive = Archive(uri=bucket, storage_options={**s3.fsspec_options, "version_aware": True})
    writer, path = open_location(bucket, archive.storage_options, "test")
    writer.pipe_file(f"{path}/plain.wav", b"before versions")
    writer.make_bucket_versioned(path)
    writer.pipe_file(f"{path}/kept.wav", b"first")
    found = list(list_recordings(archive))
    writer.pipe_file(f"{path}/kept.wav", b"second")
    assert [fetch(recording, archive) for recording in found] == [b"first", b"before versions"]


def test_missing_bucket_is_a_configuration_error(object_store: ObjectStore) -> None:
    with pytest.raises(ConfigError, match=r"archive\.uri = .*: there is nothing at this place"):
        list_recordings(Archive(uri=f"{object_store.scheme}://no-such-bucket/x", storage_options=object_store.fsspec_options))


TREES = {
    "flat": [f"day/{n:03d}.wav" for n in range(60)],
    "months": [f"day/{month:02d}/{n}.wav" for month in range(12) for n in range(5)],
    "a folder for each": [f"day/{n:03d}/dictation.wav" for n in range(60)],
    "mixed": [
        *(f"day/{place}/{n}.wav" for place in ("a", "a-b", "a.b", "a b", "é", "𝄞", "zz/y/x", "zz/y") for n in range(6)),
        *("day/a.wav", "day/a", "day/zz", "day/zzz.wav", "day/0.wav"),
    ],
}


@pytest.mark.parametrize("tree", TREES)
def test_every_object_is_listed_once_however_they_lie(
    object_store: ObjectStore, tree: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE_ENTRIES", 7)
    monkeypatch.setattr(listing, "_ENOUGH_PREFIXES", 4)
    bucket = object_store.make_bucket()
    writer, path = open_location(bucket, object_store.fsspec_options, "test")
    others = ["day-before/x.wav", "day.wav", "d", "daz/x.wav"]
    for name in [*TREES[tree], *others]:
        writer.pipe_file(f"{path}/{name}", name.encode())
    for uri, names in ((f"{bucket}/day", TREES[tree]), (bucket, [*TREES[tree], *others])):
        archive = Archive(uri=uri, storage_options=object_store.fsspec_options)
        found = [(r.uri.removeprefix(f"{bucket}/"), r.size_bytes) for r in list_recordings(archive)]
        assert sorted(found) == sorted((name, len(name.encode())) for name in names)


def test_a_listing_of_many_pages_asks_for_few_ahead(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAGE_ENTRIES", 5)
    bucket = s3.make_bucket()
    writer, path = open_location(bucket, s3.fsspec_options, "test")
    for n in range(60):
        writer.pipe_file(f"{path}/{n % 2}/{n:03d}.wav", b"x")
    asked: list[objects.Cursor] = []
    list_page = objects.list_page

    def count(filesystem: object, cursor: objects.Cursor) -> objects.Page:
        asked.append(cursor)
        return list_page(filesystem, cursor)

    monkeypatch.setattr(objects, "list_page", count)
    recordings = list_recordings(Archive(uri=bucket, storage_options=s3.fsspec_options))
    next(recordings)
    assert len(asked) <= 10  # the first page, 3 to cut, 3 ranges and the next page of those that had one
    assert len(list(recordings)) == 59
    assert len(asked) >= 60 / 5


def test_storage_that_fails_in_the_middle_of_a_listing_is_explained(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE_ENTRIES", 5)
    bucket = object_store.make_bucket()
    writer, path = open_location(bucket, object_store.fsspec_options, "test")
    for n in range(30):
        writer.pipe_file(f"{path}/{n % 3}/CANARY-{n:03d}.wav", b"x")
    list_page = objects.list_page
    failures: list[Exception] = []

    def fail(filesystem: object, cursor: objects.Cursor) -> objects.Page:
        if cursor.token is not None and not cursor.delimiter and failures:
            raise failures.pop()
        return list_page(filesystem, cursor)

    monkeypatch.setattr(objects, "list_page", fail)
    archive = Archive(uri=bucket, storage_options=object_store.fsspec_options, fetch_tries=2)
    failures[:] = [TimeoutError("CANARY")]
    assert len(list(list_recordings(archive))) == 30
    for error, kind, message in (
        (TimeoutError("CANARY"), RunError, r"archive\.uri = '.*': the storage does not answer \(TimeoutError\)"),
        (PermissionError("CANARY"), ConfigError, r"archive\.uri = '.*': access refused"),
    ):
        failures[:] = [error] * 64
        recordings = list_recordings(archive)
        with pytest.raises(kind, match=message):
            list(recordings)


def test_one_object_of_a_bucket_is_an_archive_of_one(object_store: ObjectStore) -> None:
    bucket = object_store.make_bucket()
    writer, path = open_location(bucket, object_store.fsspec_options, "test")
    for name in ("a.wav", "a.wav.old", "a/b.wav"):
        writer.pipe_file(f"{path}/{name}", b"x")
    archive = Archive(uri=f"{bucket}/a.wav", include=("*.wav",), storage_options=object_store.fsspec_options)
    assert [r.uri for r in list_recordings(archive)] == [f"{bucket}/a.wav"]


def test_folders_are_walked_in_the_order_of_the_full_names(tmp_path: Path) -> None:
    for name in ("ward/b.wav", "ward-x/a.wav", "ward.wav", "ward/a/z.wav", "w", "ward0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [r.uri for r in list_recordings(Archive(uri=str(tmp_path)))]
    assert found == sorted(found)
    assert len(found) == 6


@pytest.mark.parametrize("size", [2**63, -1, "many"])
def test_an_object_with_a_size_that_no_table_holds_costs_itself_alone(size: object) -> None:
    entry = {"name": "/b/a.wav", "size": size, "ETag": "1"}
    found = listing._describe_object(fsspec.filesystem("memory"), "/b/a.wav", entry)
    assert (found.version, found.size_bytes) == ("missing", 0)
    assert isinstance(found.error, EntryFailed)
    good = listing._describe_object(fsspec.filesystem("memory"), "/b/a.wav", {**entry, "size": 2**63 - 1})
    assert (good.error, good.size_bytes) == (None, 2**63 - 1)
