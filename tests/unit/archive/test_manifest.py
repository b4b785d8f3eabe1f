"""A manifest names recordings one by one; what it names is never lost, and never counted twice."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dictalake.archive.fetch import fetch
from dictalake.archive.manifest import find_recordings, read_manifest, scan_recordings
from dictalake.archive.storage import open_location
from dictalake.config.sections import Archive
from dictalake.errors import ConfigError, NotFound
from dictalake.records import Recording, make_recording_id
from tests.emulators import ObjectStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "ward/b.wav", "ward/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def read(folder: Path, text: str | bytes, **keys: Any) -> list[Recording]:
    (folder / "list.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_manifest(Archive(manifest=str(folder / "list.csv"), **keys)))


def test_csv_gives_recordings_in_order_with_metadata(folder: Path) -> None:
    found = read(folder, 'uri,reference,speaker\nward/b.wav,"no fracture, none",7\na.wav,,\n')
    assert [(r.uri, dict(r.metadata), r.size_bytes) for r in found] == [
        (f"file://{folder}/ward/b.wav", {"reference": "no fracture, none", "speaker": "7"}, 10),
        (f"file://{folder}/a.wav", {}, 5),
    ]
    assert found[0].recording_id == make_recording_id(found[0].uri, found[0].version)


def test_manifest_and_listing_agree_on_ids(folder: Path) -> None:
    listed = {r.recording_id for r in find_recordings(Archive(uri=str(folder), include=("**/*.wav",)))}
    named = read(folder, f"uri\na.wav\n{folder}/ward/b.wav\nfile://{folder}/ward/c.wav\n")
    assert {r.recording_id for r in named} == listed


def test_parquet_values_become_text_and_nulls_are_absent(folder: Path) -> None:
    table = pa.table({"site": [3, None], "uri": ["a.wav", "ward/b.wav"], "day": [date(2026, 2, 3), None], "ok": [True, False]})
    pq.write_table(table, folder / "list.parquet")
    found = list(read_manifest(Archive(manifest=str(folder / "list.parquet"))))
    assert [dict(r.metadata) for r in found] == [{"site": "3", "day": "2026-02-03", "ok": "True"}, {"ok": "False"}]


def test_relative_uris_are_below_the_archive_when_it_is_given(folder: Path) -> None:
    (found,) = read(folder, "uri\nb.wav\n", uri=str(folder / "ward"))
    assert found.uri == f"file://{folder}/ward/b.wav"


def test_the_demos_own_archive_is_not_where_another_manifest_points(folder: Path) -> None:
    (found,) = read(folder, "uri\nward/b.wav\n", uri="embedded:demo-archive/recordings")
    assert found.uri == f"file://{folder}/ward/b.wav"
    demo = Archive(manifest="embedded:demo-archive/references.csv", uri="embedded:demo-archive")
    assert all(recording.version != "missing" for recording in read_manifest(demo))


def test_each_recording_counts_once(folder: Path) -> None:
    found = read(folder, f"uri,n\na.wav,1\n./a.wav,2\n{folder}/a.wav,3\nfile://{folder}/a.wav,4\nward/b.wav,5\n")
    assert [r.uri for r in find_recordings(Archive(manifest=str(folder / "list.csv")))] == list(
        dict.fromkeys(r.uri for r in found)
    )
    assert [dict(r.metadata) for r in find_recordings(Archive(manifest=str(folder / "list.csv")))] == [{"n": "1"}, {"n": "5"}]


def test_what_is_not_there_stays_a_recording(folder: Path) -> None:
    found = read(folder, "uri\ngone.wav\nward\n")
    assert [(r.version, r.size_bytes, r.modified_at) for r in found] == [("missing", 0, None)] * 2
    archive = Archive(manifest=str(folder / "list.csv"))
    for recording in found:
        with pytest.raises(NotFound):
            fetch(recording, archive)


def test_since_applies_to_what_has_a_time(folder: Path) -> None:
    found = read(folder, "uri\na.wav\ngone.wav\n", since=datetime(2100, 1, 1, tzinfo=UTC))
    assert [r.uri for r in found] == [f"file://{folder}/gone.wav"]


def test_thousands_of_rows_keep_their_order(folder: Path) -> None:
    found = read(folder, "uri\n" + "".join(f"x{n}.wav\n" for n in range(3000)))
    assert [r.uri for r in found] == [f"file://{folder}/x{n}.wav" for n in range(3000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "url,speaker\na.wav,1\n",
            "archive.manifest: none of its 2 columns is called `uri`; rename the column `url` to `uri`",
        ),
        ("", "none of its 0 columns is called `uri`"),
        ('0001.wav,"CANARY, Jane",1961-02-03\n', "none of its 3 columns is called `uri`; the first line must name the columns"),
        ("wards/CANARY.wav,Mary\nb.wav,Joe\n", "the first line must name the columns"),
        ('"uri,CANARY\na.wav,1\n', "the first line is not CSV"),
        ("uri;n; URI \na.wav;1;CANARY\n", "columns 1 and 3 are all called `uri`"),
        ('{"file_name": "CANARY"}\n', "none of its 1 columns is called `uri`; rename the column `file_name` to `uri`"),
        ('{"uri": "a.wav", "URI": "CANARY"}\n', "columns 1 and 2 are all called `uri`"),
        ('{\n "uri": "CANARY"\n}\n', "none of its first lines is an object; write one object a line"),
        ('[{"uri": "CANARY"}]\n', "begins like a JSON array"),
        (b"PAR1CANARY", "begins like Parquet but cannot be read"),
        (b"PK\x03\x04CANARY", "an Excel workbook or a ZIP file; save it as CSV in UTF-8"),
        (b"\xd0\xcf\x11\xe0CANARY", "an Excel workbook; save it as CSV in UTF-8"),
        (b"\x1f\x8bCANARY", "a gzip file; unpack it"),
    ],
)
def test_a_manifest_that_cannot_be_used_as_a_whole_is_refused_without_what_is_in_it(
    folder: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(folder, text)
    assert "CANARY" not in str(caught.value)


def test_byte_order_mark_and_windows_line_ends_are_read(folder: Path) -> None:
    assert [r.uri for r in read(folder, "\ufeffuri,n\r\na.wav,1\r\n\r\n")] == [f"file://{folder}/a.wav"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way_and_be_quoted(folder: Path, end: str) -> None:
    found = read(folder, end.join(("uri,n", 'a.wav,"first', 'second"', "ward/b.wav,ü", "")))
    assert [dict(r.metadata) for r in found] == [{"n": f"first{end}second"}, {"n": "ü"}]


def test_scan_gives_every_row_and_find_each_recording_once(folder: Path) -> None:
    read(folder, "uri\na.wav\nward/b.wav\n./a.wav\n")
    archive = Archive(manifest=str(folder / "list.csv"))
    assert [r.uri.rsplit("/", 1)[1] for r in scan_recordings(archive)] == ["a.wav", "b.wav", "a.wav"]
    assert [r.uri.rsplit("/", 1)[1] for r in find_recordings(archive)] == ["a.wav", "b.wav"]


def test_manifest_is_read_as_it_is_needed(folder: Path) -> None:
    """And not whole, which would take a multiple of its 30 MB."""
    (folder / "list.csv").write_text("uri,n\n" + "".join(f"a.wav,{n:0140d}\n" for n in range(200_000)) + 'a.wav,"1\n')
    rows = read_manifest(Archive(manifest=str(folder / "list.csv")))
    tracemalloc.start()
    assert [int(next(rows).metadata["n"]) for _ in range(3)] == [0, 1, 2]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 15_000_000


def test_missing_manifest_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"archive\.manifest = '{tmp_path}/missing.csv': there is nothing at this place"):
        read_manifest(Archive(manifest=str(tmp_path / "missing.csv")))


def test_neither_archive_nor_manifest_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"archive\.uri or archive\.manifest must be set"):
        find_recordings(Archive())


def test_manifest_in_a_bucket_names_objects_beside_it(object_store: ObjectStore) -> None:
    bucket = object_store.make_bucket()
    writer, _ = open_location(bucket, object_store.fsspec_options, "test")
    writer.pipe_file(f"{bucket}/day/a.wav", b"day/a")
    writer.pipe_file(f"{bucket}/day/list.csv", b"uri,n\na.wav,1\ngone.wav,2\n")
    archive = Archive(manifest=f"{bucket}/day/list.csv", storage_options=object_store.fsspec_options)
    there, gone = find_recordings(archive)
    assert (there.uri, there.size_bytes, gone.version) == (f"{bucket}/day/a.wav", 5, "missing")
    assert fetch(there, archive) == b"day/a"
    (listed,) = find_recordings(Archive(uri=f"{bucket}/day", include=("*.wav",), storage_options=object_store.fsspec_options))
    assert listed.recording_id == there.recording_id
