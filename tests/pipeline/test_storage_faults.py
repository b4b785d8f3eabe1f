"""A whole run whose archive and lake fail at every turn: it completes, each recording is there once, retries are counted.
Real HTTP errors, resets, lost answers, truncation and corruption, made by a proxy in front of real servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import fsspec

from dictalake.lake.runs import RunLog
from dictalake.workflow.plan import Resources
from dictalake.workflow.run import transcribe
from tests.fault_proxy import KINDS, run_faulty
from tests.recordings import make_config, make_sound, read_rows, write_wav

if TYPE_CHECKING:
    from tests.emulators import ObjectStore

RECORDINGS = 24


def test_a_run_over_faulty_storage_completes_and_counts_its_retries(
    object_store: ObjectStore, stub_stages: None, two_cpus: Resources, random_lasr: Path, tmp_path: Path
) -> None:
    bucket = object_store.make_bucket()
    filesystem = fsspec.filesystem(object_store.scheme, **object_store.fsspec_options)
    for number in range(RECORDINGS):
        path = write_wav(tmp_path / f"{number:02}.wav", make_sound(0.3, seed=number))
        filesystem.pipe_file(f"{bucket}/dictations/{path.name}", path.read_bytes())
    lake = object_store.make_lake()
    with (
        run_faulty(object_store, 0.3, seed=3, kinds=KINDS) as (archive_store, count_archive),
        run_faulty(object_store, 0.1, seed=4, kinds=("503", "lost"), path="transcripts", methods=("GET", "PUT", "POST")) as (
            lake_store,
            count_lake,
        ),
    ):
        config = make_config(
            random_lasr,
            archive={"uri": f"{bucket}/dictations", "storage_options": archive_store.fsspec_options, "fetch_tries": 10},
            lake={"uri": lake.uri, "storage_options": lake_store.storage_options, "commit_every_s": 0},
            ray={"block_rows": 4},
        )
        summary = transcribe(config)
        injected, in_lake = count_archive(), count_lake()
    assert (summary.found, summary.ok, summary.failed) == (RECORDINGS, RECORDINGS, 0)
    rows = read_rows(str(lake.uri), lake.storage_options)
    assert len(rows) == RECORDINGS == len({row["recording_id"] for row in rows})
    faults = sum(injected[kind] for kind in KINDS)
    assert faults > RECORDINGS / 10
    assert sum(in_lake[kind] for kind in ("503", "lost")) > 0
    (finished,) = (row for row in RunLog(lake).read().to_pylist() if row["event"] == "finished")
    # aiohttp, below s3fs, asks again by itself after a reset; the clients of the lake do so a few times before we do.
    assert faults - injected["reset"] <= finished["storage_retries"] == summary.retries
