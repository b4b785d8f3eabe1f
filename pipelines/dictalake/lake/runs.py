"""The run records: the Delta table ``runs`` gets one row when a run starts and one when it ends.

A run ends as ``finished``, ``stopped`` (by a person or the system) or ``failed``. A run that was killed has no end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from dictalake.config.locations import EMBEDDED
from dictalake.config.sections import Archive, Config, Lake
from dictalake.config.uris import canonical_uri, find_path, make_file_uri
from dictalake.errors import RunError
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import append_rows, open_or_create_table, open_table, read_parquet
from dictalake.lake.places import RUNS_FOLDER
from dictalake.lake.schema import RUNS
from dictalake.lake.storage import open_storage

MASK = "***"


def describe_config(config: Config) -> tuple[str, str]:
    """``config`` as JSON, and its hash (16 hex digits). Values of storage options are masked: they may be credentials. The
    places of the archive are as ``name_places`` names them."""
    document = config.model_copy(update={"archive": name_places(config.archive)}).model_dump(mode="json")
    for section in ("archive", "lake"):
        document[section]["storage_options"] = dict.fromkeys(document[section]["storage_options"], MASK)
    text = json.dumps(document, sort_keys=True)
    return text, blake2b(text.encode(), digest_size=8).hexdigest()


def name_places(archive: Archive) -> Archive:
    """``archive`` with names for its places that any folder and any later day understand. A relative path, or one through a
    link, says by itself neither where the recordings were nor, once they are erased, that it named one of them."""

    def name(place: str, canonical: Callable[[str], str] = canonical_uri) -> str:
        path = None if place.startswith(EMBEDDED) else find_path(place)
        return place if path is None or canonical(path) == make_file_uri(path) else canonical(path)

    def name_list(place: str) -> str:  # a link to a list is in the folder that the list's paths are relative to
        return name(place, lambda path: make_file_uri(os.path.abspath(path)))

    given = {"uri": archive.uri, "manifest": archive.manifest, "inventory": archive.inventory}
    named: dict[str, object] = {
        key: name(place) if key == "uri" else name_list(place) for key, place in given.items() if place is not None
    }
    return archive.model_copy(
        update={**named, "allowed": None if archive.allowed is None else tuple(map(name, archive.allowed))}
    )


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A row of the table ``runs``. ``schema.RUNS`` documents the fields; what is not known yet is None."""

    run_id: str
    event: Literal["started", "finished", "stopped", "failed"]
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
    """The run records of a lake, created if they are missing. With ``must_exist`` they are only read, and may be older.

    Raises ConfigError and RunError as TranscriptTable does.
    """

    def __init__(self, lake: Lake, *, must_exist: bool = False) -> None:
        self._storage = open_storage(lake, RUNS_FOLDER)
        self.has_started = False  # whether a start was recorded here
        description = "dictalake: a row when a run starts and one when it ends"
        if must_exist:
            self._delta = open_table(self._storage, RUNS, to_read=True)
        else:
            self._delta = open_or_create_table(self._storage, RUNS, (), description)

    def append(self, *records: RunRecord) -> None:
        """Commits records. Many runs may do so at the same time. Raises RunError when the lake cannot be written."""
        rows: list[dict[str, Any]] = [asdict(record) for record in records]
        for row in rows:
            for name in ("versions", "failures"):  # Arrow takes maps as lists of pairs
                row[name] = None if row[name] is None else list(row[name].items())
        # Without docs: delta-rs refuses rows whose docs are worded differently from the table's.
        table = pa.Table.from_pylist(rows, schema=without_docs(RUNS))
        try:
            append_rows(self._storage, table)
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot write the run record to {self._storage.uri}: {error}") from error
        self.has_started |= any(record.event == "started" for record in records)

    def follow(self) -> int:
        """The newest version of the table. Raises RunError when the lake cannot be read."""
        try:
            self._delta.update_incremental()
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot read the run records at {self._storage.uri}: {type(error).__name__}") from error
        return int(self._delta.version())

    def read(self) -> pa.Table:
        """All records, oldest first, schema RUNS. A record that was written twice, because an answer was lost, counts once.

        Raises RunError when the lake cannot be read.
        """
        try:
            self._delta.update_incremental()
            paths = pa.table(self._delta.get_add_actions(flatten=True))["path"].to_pylist()
            files = read_parquet(paths, RUNS, self._storage)
            rows = files.to_table()
            # Of a start and an end at the same time the start is first.
            is_end = pc.cast(pc.not_equal(rows["event"], "started"), pa.int8())
            rows = (
                rows.append_column("is_end", is_end)
                .sort_by([("at", "ascending"), ("is_end", "ascending")])
                .drop_columns("is_end")
            )
            first: dict[tuple[str, str, datetime], int] = {}
            for index, row in enumerate(rows.select(["run_id", "event", "at"]).to_pylist()):
                first.setdefault((row["run_id"], row["event"], row["at"]), index)
            return rows.take(pa.array(first.values(), pa.int64()))
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot read the run records at {self._storage.uri}: {error}") from error
