"""Maintains the lake while people read it and runs write to it: joins small files, and removes those no longer in use.

Compaction changes no row. Readers see the table before or after it, and runs keep committing meanwhile. A file that no current
version names, such as one that a killed run left behind, is removed once it is older than ``lake.retention_h``. A reader that
opened the table earlier, and a run that has not committed its file yet, still need theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.claims import LeaseStore
from dictalake.lake.contract import TABLES
from dictalake.lake.delta import clean_up_log, has_table, open_table, retry_on_conflict
from dictalake.lake.delta_log import clean_log
from dictalake.lake.encodings import make_writer_properties
from dictalake.lake.manifests import Manifests
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import open_storage
from dictalake.lake.superseded import keep_superseded

WRITER = make_writer_properties(TRANSCRIPTS)


@dataclass(frozen=True)
class Compaction:
    """What compaction did to one table: files before and after, megabytes after, and how many files it removed.

    ``log_files_left`` files of the Delta log still hold values of columns that must not be there (``delta_log.py``).
    """

    table: str
    files_before: int
    files_after: int
    megabytes: float
    largest_mb: float
    removed: int
    log_files_left: int = 0


def compact(lake: Lake) -> list[Compaction]:
    """Joins the files of each partition to ``lake.file_mb``, removes what is out of use, writes a checkpoint of each log.

    A missing table is skipped: an older lake has no table of erasures until a run writes to it. Raises ConfigError, and
    RunError when there is no table of transcripts or the lake cannot be reached.
    """
    done = []
    for folder, table in TABLES.items():
        storage = open_storage(lake, folder)
        if folder != TRANSCRIPTS_FOLDER and not has_table(storage):
            continue
        delta = open_table(storage, table.schema)
        before = len(delta.file_uris())
        try:
            # First: rewritten files would put texts into the log of a table without the properties.
            left = clean_log(delta, storage, table.schema).left
            retry_on_conflict(
                delta,
                lambda delta=delta: delta.optimize.compact(  # type: ignore[misc]
                    target_size=int(lake.file_mb * 1e6), max_concurrent_tasks=1, writer_properties=WRITER
                ),
            )
            delta.create_checkpoint()
            clean_up_log(delta)
            removed = delta.vacuum(lake.retention_h, dry_run=False, enforce_retention_duration=False, full=True)
            delta.update_incremental()
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot compact the table at {storage.uri}: {error}; run the same command again") from error
        sizes = pa.table(delta.get_add_actions(flatten=True))["size_bytes"].to_pylist()
        largest = max(sizes, default=0) / 1e6
        done.append(Compaction(folder, before, len(sizes), sum(sizes) / 1e6, largest, len(removed), left))
    _remove_old_manifests(lake)
    keep_superseded(lake)  # the log no longer says what came since a run did
    return done


def _remove_old_manifests(lake: Lake) -> None:
    """Each start of a long backfill writes the remaining work as a new manifest. Only live runs need theirs."""
    manifests = Manifests(lake)
    at_work = {seen.lease.run_id for seen in LeaseStore(lake).read()}
    for path in manifests.paths(older_than_s=lake.retention_h * 3600):
        if path.split("/", 1)[0] not in at_work:
            manifests.remove_part(path)
