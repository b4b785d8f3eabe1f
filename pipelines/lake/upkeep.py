"""Keeping the lake in shape while people read and runs write: small files put together, those no longer in use removed.

Compaction changes no row: readers see the table before or after, runs go on committing beside it. Files that no version in use
names, among them what killed runs left behind, are removed once they are older than ``lake.retention_h``: a reader that opened
the table before, and a run that wrote a file and has not committed it yet, must still find theirs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError

from pipelines.config import Lake
from pipelines.errors import RunError
from pipelines.lake import erasure
from pipelines.lake.claims import ClaimBoard
from pipelines.lake.delta import open_table
from pipelines.lake.manifests import Manifests
from pipelines.lake.schema import ERASURES, RUNS, TRANSCRIPTS
from pipelines.lake.staging import TRANSCRIPTS_FOLDER
from pipelines.lake.storage import open_storage

_TABLES = {TRANSCRIPTS_FOLDER: TRANSCRIPTS, "runs": RUNS, erasure.FOLDER: ERASURES}
_PATIENCE_S = 600.0  # other writers may stand in the way that long
WRITER = WriterProperties(compression="ZSTD")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Compaction:
    """What became of one table: files before and after, megabytes after, and files that were removed for good."""

    table: str
    files_before: int
    files_after: int
    megabytes: float
    largest_mb: float
    removed: int


def compact(lake: Lake) -> list[Compaction]:
    """Joins the files of each partition to ``lake.file_mb``, removes what is out of use, writes a checkpoint of each log.

    Raises ConfigError, and RunError when there is no lake or it is out of reach.
    """
    done = []
    for folder, schema in _TABLES.items():
        storage = open_storage(lake, folder)
        delta = open_table(storage, schema)
        before = len(delta.file_uris())
        try:
            retry_on_conflict(
                delta,
                lambda delta=delta: delta.optimize.compact(  # type: ignore[misc]
                    target_size=int(lake.file_mb * 1e6), max_concurrent_tasks=1, writer_properties=WRITER
                ),
            )
            delta.create_checkpoint()
            removed = delta.vacuum(lake.retention_h, dry_run=False, enforce_retention_duration=False, full=True)
            delta.update_incremental()
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot compact the table at {storage.uri}: {error}; run the same command again") from error
        sizes = pa.table(delta.get_add_actions(flatten=True))["size_bytes"].to_pylist()
        largest = max(sizes, default=0) / 1e6
        done.append(Compaction(folder, before, len(sizes), sum(sizes) / 1e6, largest, len(removed)))
    _remove_old_manifests(lake)
    return done


def _remove_old_manifests(lake: Lake) -> None:
    """Each start of a long backfill writes what is left as a new manifest; what is not needed for a run is in its rows."""
    manifests = Manifests(lake)
    at_work = {seen.claim.run_id for seen in ClaimBoard(lake).read()}
    for path in manifests.paths(older_than_s=lake.retention_h * 3600):
        if path.split("/", 1)[0] not in at_work:
            manifests.remove_part(path)


def retry_on_conflict(delta: DeltaTable, change: Callable[[], Result]) -> Result:
    """``change()`` of ``delta``, again on the newest version while another writer's commit stood in its way."""
    give_up = time.monotonic() + _PATIENCE_S
    attempt = 0
    while True:
        try:
            return change()
        except CommitFailedError:
            if time.monotonic() > give_up:
                raise
            attempt += 1
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2 ** min(attempt, 10))))
            delta.update_incremental()
