"""Whole runs from object storage to object storage: real clients, real servers on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import fsspec

from dictalake.workflow.plan import Resources
from dictalake.workflow.run import transcribe
from tests.recordings import MIXED_ARCHIVE, make_config, name_of, read_rows, write_mixed_archive

if TYPE_CHECKING:
    from tests.emulators import ObjectStore


def test_archive_and_lake_on_object_storage(
    object_store: ObjectStore, two_cpus: Resources, random_lasr: Path, tmp_path: Path
) -> None:
    write_mixed_archive(tmp_path)
    bucket = object_store.make_bucket()
    filesystem = fsspec.filesystem(object_store.scheme, **object_store.fsspec_options)
    for name in MIXED_ARCHIVE:
        filesystem.pipe_file(f"{bucket}/dictations/{name}", (tmp_path / name).read_bytes())
    lake = object_store.make_lake()
    config = make_config(
        random_lasr,
        archive={"uri": f"{bucket}/dictations", "storage_options": object_store.fsspec_options},
        lake={"uri": lake.uri, "storage_options": lake.storage_options, "commit_every_s": 0},
        ray={"block_rows": 4},
    )

    first = transcribe(config)
    assert (first.found, first.ok, first.failed) == (11, 7, 4)
    rows = read_rows(str(lake.uri), lake.storage_options)
    assert {name_of(row): row["error"] and row["error"]["reason"] for row in rows} == MIXED_ARCHIVE
    assert len(rows) == 11
    assert all(row["source"]["uri"].startswith(f"{bucket}/dictations/") for row in rows)
    # The version is the store's own: a generation of Cloud Storage, an ETag of S3.
    assert all(len(row["source"]["version"]) in (16, 32) for row in rows)

    second = transcribe(config)
    assert (second.found, second.skipped, second.ok, second.failed) == (11, 11, 0, 0)
    assert len(read_rows(str(lake.uri), lake.storage_options)) == 11
