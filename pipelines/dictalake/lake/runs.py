"""What ran: one row when a run starts and one when it ends, in the Delta table ``runs``. A run that was killed has a start and
no end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Config, Lake
from dictalake.errors import RunError
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import open_or_create_table, open_table
from dictalake.lake.schema import RUNS
from dictalake.lake.storage import open_storage
from dictalake.retries import call_with_retries

MASK = "***"
_TRIES = 4


def describe_config(config: Config) -> tuple[str, str]:
    """``config`` as JSON with the values of storage options masked (they may be credentials), and its hash, 16 hex digits."""
    document = config.model_dump(mode="json")
    for section in ("archive", "lake"):
        document[section]["storage_options"] = dict.fromkeys(document[section]["storage_options"], MASK)
    text = json.dumps(document, sort_keys=True)
    return text, blake2b(text.encode(), digest_size=8).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A row of the table ``runs``; the fields are documented in ``schema.RUNS``. What is not known yet is None."""

    run_id: str
    event: Literal["started", "finished", "failed", "stopped"]
    job: str | None = None
    at: datetime = field(default_factory=_now)
    fingerprint: str | None = None
    acoustic_hash: str | None = None
    decoding_hash: str | None = None
    formatting_hash: str | None = None
    config: str | None = None
    config_hash: str | None = None
    pipeline_version: str | None = None
    git_commit: str | None = None
    versions: Mapping[str, str] | None = None
    host: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    archive_uri: str | None = None
    recordings: int | None = None
    skipped: int | None = None
    claimed: int | None = None
    erased: int | None = None
    retried: int | None = None
    ok: int | None = None
    failed: int | None = None
    audio_hours: float | None = None
    wall_s: float | None = None
    speed: float | None = None
    storage_retries: int | None = None
    failures: Mapping[str, int] | None = None


class RunLog:
    """The run records of a lake, made if they are not there; ``must_exist``: only to read, also those of an older dictalake.

    Raises ConfigError and RunError as TranscriptTable does.
    """

    def __init__(self, lake: Lake, *, must_exist: bool = False) -> None:
        self._storage = open_storage(lake, "runs")
        self.has_started = False  # whether it was told here that a run did
        description = "dictalake: a row when a run starts and one when it ends"
        if must_exist:
            self._delta = open_table(self._storage, RUNS, to_read=True)
        else:
            self._delta = open_or_create_table(self._storage, RUNS, (), description)

    def append(self, *records: RunRecord) -> None:
        """Commits records at once; any number of runs may do so at once. Raises RunError when the lake cannot be written."""
        rows: list[dict[str, Any]] = [asdict(record) for record in records]
        for row in rows:
            for name in ("versions", "failures"):  # Arrow takes maps as lists of pairs
                row[name] = None if row[name] is None else list(row[name].items())
        table = pa.Table.from_pylist(rows, schema=without_docs(RUNS))  # delta-rs refuses a doc that was worded anew
        options = dict(self._storage.delta_options)
        try:
            call_with_retries(
                lambda: write_deltalake(self._storage.uri, table, mode="append", storage_options=options),
                _TRIES,
                # Or the table got its properties, or an old checkpoint of it went (delta_log.py): each try opens it anew.
                lambda error: isinstance(error, OSError | DeltaError),
            )
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot write the run record to {self._storage.uri}: {error}") from error
        self.has_started |= any(record.event == "started" for record in records)

    def read(self) -> pa.Table:
        """All records, oldest first, schema RUNS. Raises RunError when the lake cannot be read.

        One whose writing was tried again, because the answer was lost, counts once.
        """
        try:
            self._delta.update_incremental()
            paths = pa.table(self._delta.get_add_actions(flatten=True))["path"].to_pylist()
            files = ds.dataset(paths, schema=RUNS, format="parquet", filesystem=self._storage.filesystem)
            rows = files.to_table().sort_by([("at", "ascending"), ("event", "descending")])
            first: dict[tuple[str, str, datetime], int] = {}
            for index, row in enumerate(rows.select(["run_id", "event", "at"]).to_pylist()):
                first.setdefault((row["run_id"], row["event"], row["at"]), index)
            return rows.take(pa.array(first.values(), pa.int64()))
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot read the run records at {self._storage.uri}: {error}") from error
