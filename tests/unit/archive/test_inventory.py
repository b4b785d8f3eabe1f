"""An inventory names the same recordings as a listing of the bucket, with the same ids."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dictalake.archive.fetch import fetch
from dictalake.archive.listing import list_recordings
from dictalake.archive.manifest import find_recordings, scan_recordings
from dictalake.archive.storage import open_location
from dictalake.config.sections import Archive
from dictalake.errors import BadManifestLine, ChangedDuringRead, ConfigError, NotFound
from dictalake.records import Recording
from tests.emulators import ObjectStore

NAMES = ("day/a.wav", "day/b c+d%é.wav", 'day/deep/take,"1"#2.wav', "day-before/x.wav", "day/folder/", "top.dcm")
S3_CSV = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
S3_PARQUET = ("bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "last_modified_date", "e_tag")
GCS = ("project", "bucket", "name", "location", "size", "timeDeleted", "updated", "crc32c", "generation")


def fill(store: ObjectStore, names: tuple[str, ...] = NAMES) -> tuple[str, list[dict[str, Any]]]:
    """A bucket, and what its storage says about the objects in it."""
    bucket = store.make_bucket()
    writer, path = open_location(bucket, store.fsspec_options, "test")
    for name in names:
        writer.pipe_file(f"{path}/{name}", f"words of {name}".encode())
    return bucket, list(writer.find(path, detail=True).values())


def to_csv(rows: list[list[Any]], header: tuple[str, ...] = ()) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([header, *rows] if header else rows)
    return text.getvalue().encode()


def write(store: ObjectStore, files: Mapping[str, bytes]) -> str:
    """The URI of the destination bucket's folder of reports."""
    bucket = store.make_bucket()
    writer, path = open_location(bucket, store.fsspec_options, "test")
    for name, data in files.items():
        writer.pipe_file(f"{path}/reports/{name}", data)
    return f"{bucket}/reports"


def s3_values(info: Mapping[str, Any], **changed: Any) -> list[Any]:
    bucket, _, key = info["name"].partition("/")
    modified, etag = info["LastModified"], info["ETag"].strip('"')
    row = {"bucket": bucket, "key": key, "version": "v1", "latest": True, "marker": False, **changed}
    return [*row.values(), info["size"], modified, etag]


def s3_manifest(kind: str, schema: str, names: list[str]) -> bytes:
    files = [{"key": f"reports/{name}", "size": 1, "MD5checksum": "0"} for name in names]
    return json.dumps({"sourceBucket": "x", "fileFormat": kind, "fileSchema": schema, "files": files}, indent=1).encode()


def s3_csv_inventory(store: ObjectStore, infos: list[dict[str, Any]]) -> str:
    rows = [s3_values(info) for info in infos]
    rows += [s3_values(infos[0], latest=False), s3_values(infos[0], key="gone.wav", marker=True)]
    texts = [
        [
            *(bucket, quote_plus(key, safe="/"), version, str(latest).lower(), str(marker).lower(), size),
            *(modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"), etag, "STANDARD"),
        ]
        for bucket, key, version, latest, marker, size, modified, etag in rows
    ]
    files = {"one.csv.gz": gzip.compress(to_csv(texts[:2])), "two.csv.gz": gzip.compress(to_csv(texts[2:])), "none.csv.gz": b""}
    return f"{write(store, {**files, 'manifest.json': s3_manifest('CSV', S3_CSV, list(files))})}/manifest.json"


def s3_parquet_inventory(store: ObjectStore, infos: list[dict[str, Any]]) -> str:
    columns = zip(*(s3_values(info) for info in infos), strict=True)
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(zip(S3_PARQUET, map(list, columns), strict=True))), sink)
    manifest = s3_manifest("Parquet", "message s3.inventory { required binary bucket (UTF8); }", ["one.parquet"])
    return f"{write(store, {'one.parquet': sink.getvalue(), 'manifest.json': manifest})}/manifest.json"


def gcs_rows(infos: list[dict[str, Any]]) -> list[list[Any]]:
    def row(info: Mapping[str, Any], deleted: str = "") -> list[Any]:
        bucket, _, name = info["name"].partition("/")
        return [1, bucket, name, "EU", info["size"], deleted, info["updated"], info["crc32c"], info["generation"]]

    return [*map(row, infos), row(infos[0], "2026-01-01T00:00:00Z")]


def gcs_csv_inventory(store: ObjectStore, infos: list[dict[str, Any]], header: bool = True) -> str:
    rows, names = gcs_rows(infos), GCS if header else ()
    config = {"csv_options": {"delimiter": ",", "header_required": header}}
    config |= {"object_metadata_report_options": {"metadata_fields": list(GCS)}}
    files = {"r_0.csv": to_csv(rows[:3], names), "r_1.csv": to_csv(rows[3:], names)}
    manifest = {"report_config": config, "shard_count": 2, "report_shards_file_names": list(files)}
    return f"{write(store, {**files, 'r_manifest.json': json.dumps(manifest).encode()})}/r_manifest.json"


def gcs_headless_inventory(store: ObjectStore, infos: list[dict[str, Any]]) -> str:
    return gcs_csv_inventory(store, infos, header=False)


def gcs_parquet_shard(store: ObjectStore, infos: list[dict[str, Any]]) -> str:
    columns = zip(*([str(value) for value in row] for row in gcs_rows(infos)), strict=True)
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(zip(GCS, map(list, columns), strict=True))), sink)
    return f"{write(store, {'r_0.parquet': sink.getvalue()})}/r_0.parquet"


WRITERS = [s3_csv_inventory, s3_parquet_inventory, gcs_csv_inventory, gcs_headless_inventory, gcs_parquet_shard]


def order(recordings: Any) -> list[Recording]:
    return sorted(recordings, key=lambda recording: recording.uri)


@pytest.mark.parametrize("writer", WRITERS)
def test_inventory_yields_what_a_listing_does(request: pytest.FixtureRequest, writer: Callable[..., str]) -> None:
    store = request.getfixturevalue("s3" if "s3" in writer.__name__ else "gcs")
    bucket, infos = fill(store)
    location = writer(store, infos)
    for keys in (
        {"allowed": (bucket,)},
        {"uri": f"{bucket}/day"},
        {"uri": f"{bucket}/day/", "include": ("*.wav",)},
        {"uri": f"{bucket}/top.dcm"},
        {"uri": bucket, "include": ("**/*.dcm", "day-*/**")},
        {"uri": bucket, "since": datetime.now(UTC) + timedelta(days=1)},
    ):
        archive = Archive(inventory=location, storage_options=store.fsspec_options, **keys)
        listed = list_recordings(Archive(**{"uri": bucket, **keys}, storage_options=store.fsspec_options))
        found = order(scan_recordings(archive))
        assert found == order(listed)
        assert [fetch(recording, archive) for recording in found] == [
            f"words of {recording.uri.removeprefix(f'{bucket}/')}".encode() for recording in found
        ]
    assert len(list(find_recordings(Archive(inventory=location, allowed=(bucket,), storage_options=store.fsspec_options)))) == 5


def test_version_ids_of_an_inventory_are_those_of_a_listing(s3: ObjectStore) -> None:
    bucket = s3.make_bucket()
    options = {**s3.fsspec_options, "version_aware": True}
    writer, path = open_location(bucket, options, "test")
    writer.make_bucket_versioned(path)
    writer.pipe_file(f"{path}/a.wav", b"first")
    writer.pipe_file(f"{path}/a.wav", b"second")
    versions = [{**info, "LastModified": info["LastModified"]} for info in writer.object_version_info(f"{path}/a.wav")]
    sink = io.BytesIO()
    rows = [
        [path, "a.wav", info["VersionId"], info["IsLatest"], False, info["Size"], info["LastModified"], info["ETag"].strip('"')]
        for info in versions
    ]
    pq.write_table(pa.table(dict(zip(S3_PARQUET, map(list, zip(*rows, strict=True)), strict=True))), sink)
    location = f"{write(s3, {'data.parquet': sink.getvalue()})}/data.parquet"
    archive = Archive(inventory=location, allowed=(bucket,), storage_options=options)
    (found,) = find_recordings(archive)
    (listed,) = list_recordings(Archive(uri=bucket, storage_options=options))
    assert found == listed
    assert fetch(found, archive) == b"second"


def test_what_changed_since_the_inventory_says_so_when_it_is_fetched(gcs: ObjectStore) -> None:
    bucket, infos = fill(gcs, ("a.wav", "b.wav"))
    archive = Archive(inventory=gcs_csv_inventory(gcs, infos), uri=bucket, storage_options=gcs.fsspec_options)
    changed, gone = order(find_recordings(archive))
    writer, path = open_location(bucket, gcs.fsspec_options, "test")
    writer.pipe_file(f"{path}/a.wav", b"otherwise")
    writer.rm_file(f"{path}/b.wav")
    with pytest.raises(ChangedDuringRead):
        fetch(changed, archive)
    with pytest.raises(NotFound):
        fetch(gone, archive)


HEADER = "bucket,name,size,updated,timeDeleted,generation\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{CANARY", "begins like JSON but cannot be read"),
        (b'{"CANARY": 1}', "this JSON is no manifest of an inventory"),
        (b'{"fileSchema": "CANARY"}', "lacks what it should say of its files"),
        (b'{"fileSchema": "x", "fileFormat": "ORC", "files": []}', "its files are ORC; configure"),
        (b'{"report_shards_file_names": ["CANARY"], "shard_count": 2}', "names 1 shards and counts others"),
        (b'{"report_shards_file_names": ["CANARY.csv"]}', "there is nothing at this place"),
        (b"PAR1CANARY", "neither CSV nor Parquet that can be read"),
        (b"\x1f\x8bCANARY", "neither CSV nor Parquet that can be read"),
        (b'"bucket","CANARY.wav","x"\n', "have no names that are known here; give the manifest.json"),
        (b"bucket,name,size\nb,CANARY,1\n", "it has no column updated, timeDeleted, generation; add what is missing"),
        (f"{HEADER}b,CANARY.wav\n".encode(), "that can be read"),
    ],
)
def test_broken_inventory_says_what_is_wrong_and_not_what_is_in_it(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "inventory").write_bytes(text)
    with pytest.raises(ConfigError, match=rf"archive\.inventory: .*({message})") as caught:
        list(scan_recordings(Archive(inventory=str(tmp_path / "inventory"), storage_options={"token": "anon"})))
    assert "CANARY" not in str(caught.value)


_TIME = "2026-01-01T00:00:00Z"
_UNREADABLE = "has a size or time that cannot be read, or no version"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (f"b,CANARY.wav,nonsense,{_TIME},,1", _UNREADABLE),
        ("b,CANARY.wav,1,CANARY,,1", _UNREADABLE),
        (f"b,CANARY.wav,1,{_TIME},,", _UNREADABLE),
        (f"b,,1,{_TIME},,1", "names no object"),
        ("b,CANARY.wav,1,0001-01-01T00:00:00+14:00,,1", "cannot be understood (OverflowError"),
        (f"b,CANARY.wav,{2**63},{_TIME},,1", "cannot be understood (ValueError"),
        (f"b,CANARY.wav,-1,{_TIME},,1", "cannot be understood (ValueError"),
        (f"b,{'a' * 70_000},1,{_TIME},,1", "longer than any storage can hold"),
    ],
)
def test_a_row_that_cannot_be_used_costs_itself_alone(tmp_path: Path, row: str, problem: str) -> None:
    good = f"b,a.wav,{2**63 - 1},{_TIME},,1"
    (tmp_path / "inventory").write_text(f"{HEADER}{good}\n{row}\n{good.replace('a.wav', 'b.wav')}\n")
    archive = Archive(inventory=str(tmp_path / "inventory"), uri="gs://b", storage_options={"token": "anon"})
    first, bad, last = scan_recordings(archive)
    assert (first.uri, first.size_bytes, last.uri) == ("gs://b/a.wav", 2**63 - 1, "gs://b/b.wav")
    assert isinstance(bad.error, BadManifestLine)
    assert bad.error.detail.startswith("row 2 of file 1 of the inventory ")
    assert problem in bad.error.detail
    assert "CANARY" not in bad.error.detail + bad.uri
    assert bad == list(scan_recordings(archive))[1] or bad.recording_id == list(scan_recordings(archive))[1].recording_id


def test_what_contradicts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shard.csv").write_text(f"{HEADER}b,a.wav,1,2026-01-01T00:00:00Z,,1\n")
    inventory = str(tmp_path / "shard.csv")
    with pytest.raises(ConfigError, match=r"archive\.manifest and archive\.inventory are both set"):
        scan_recordings(Archive(inventory=inventory, manifest="list.csv"))
    with pytest.raises(ConfigError, match=r"archive\.uri: the inventory is of Google Cloud Storage; give gs://"):
        scan_recordings(Archive(inventory=inventory, uri="s3://b"))
    with pytest.raises(ConfigError, match=rf"archive\.inventory = '{tmp_path}/missing': there is nothing at this place"):
        scan_recordings(Archive(inventory=str(tmp_path / "missing")))


def test_version_ids_are_asked_for_where_they_are_used(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").touch()
    pq.write_table(
        pa.table({"bucket": ["b"], "key": ["k"], "size": [1], "last_modified_date": [datetime.now(UTC)], "e_tag": ["0"]}),
        tmp_path / "x.parquet",
    )
    inventory = str(tmp_path / "x.parquet")
    assert [r.uri for r in scan_recordings(Archive(inventory=inventory, uri="s3://b"))] == ["s3://b/k"]
    with pytest.raises(ConfigError, match="it has no column VersionId"):
        scan_recordings(Archive(inventory=inventory, storage_options={"version_aware": True}))
