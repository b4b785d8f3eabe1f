"""The Delta table ``rechecks``: what ``dictalake recheck`` found when it read recordings again and looked at their rows.

A record names a row by recording, fingerprint and attempt, and the loader that read the recording again. It holds measures
and no content. Of several records of a row the newest counts. ``backfill --retry lost`` transcribes what they call lost: the
next attempt is another row, of which no record speaks, so it does so once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import append_rows, has_table, open_dataset, open_or_create_table
from dictalake.lake.places import RECHECKS_FOLDER
from dictalake.lake.schema import RECHECKS
from dictalake.lake.storage import Storage, open_storage

LOST: pa.Schema = pa.schema([RECHECKS.field(name) for name in ("recording_id", "attempt")])
Verdict = Literal["lost", "complete", "unknown", "changed", "unread"]


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """A row of the table. ``schema.RECHECKS`` documents the fields."""

    recording_id: str
    fingerprint: str
    attempt: int
    loader: int
    at: datetime
    verdict: Verdict
    reason: str | None = None
    missing_s: float | None = None
    row_duration_s: float | None = None
    duration_s: float | None = None
    lost_s: float | None = None
    repairs: tuple[str, ...] | None = None
    is_same: bool | None = None


class RecheckLog:
    """The records of a lake; the table is created if it is missing. Raises ConfigError and RunError as TranscriptTable does."""

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, RECHECKS_FOLDER)
        open_or_create_table(self._storage, RECHECKS, (), "dictalake: rows that were compared with what can be read today")

    def append(self, records: Sequence[Recheck]) -> None:
        """Commits records; several writers may do so at once. Raises RunError when the lake cannot be written."""
        table = pa.Table.from_pylist([asdict(record) for record in records], schema=without_docs(RECHECKS))
        try:
            append_rows(self._storage, table)
        except (OSError, DeltaError) as error:
            raise RunError(
                f"cannot write to the table at {self._storage.uri}: {error}; run the same command again to resume"
            ) from error


def open_rechecks(storage: Storage) -> ds.Dataset:
    """All records. A lake in which nobody rechecked anything has none."""
    return open_dataset(storage, RECHECKS) if has_table(storage) else ds.dataset(RECHECKS.empty_table())


def find_lost(lake: Lake, fingerprint: str) -> pa.Table:
    """The rows of a fingerprint that lost sound by their newest record (schema LOST). Raises RunError."""
    storage = open_storage(lake, RECHECKS_FOLDER)
    columns = ["recording_id", "attempt", "loader", "at", "verdict"]
    try:
        records = open_rechecks(storage).to_table(columns=columns, filter=ds.field("fingerprint") == fingerprint)
    except (OSError, DeltaError) as error:
        raise RunError(f"cannot read the table at {storage.uri}: {error}") from error
    newest = (
        records.sort_by([("loader", "ascending"), ("at", "ascending")])
        .group_by(["recording_id", "attempt"], use_threads=False)
        .aggregate([("verdict", "last")])
    )
    return newest.filter(pc.equal(newest["verdict_last"], "lost")).select(LOST.names).cast(LOST)
