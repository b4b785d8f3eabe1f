"""Finds and removes rows that speak of recordings which have no row of their own any more.

Tables of any size are compared in DuckDB with little memory, which spills to the disk what does not fit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.delta import has_table
from dictalake.lake.places import FINDINGS_FOLDER, TRANSCRIPTS_FOLDER, Place
from dictalake.lake.row_removal import remove_rows, write_mark
from dictalake.lake.row_search import FILE, is_not_erased, iter_scan, list_folders, scan
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.superseded import small_database
from dictalake.lake.table_log import TableLog
from dictalake.lake.unreferenced_files import delete_unused

IDLE_S = 300.0  # after which a file that nobody committed counts as abandoned while no run is at work
_COUNTED = ("rechecks", "superseded", "corrections", "accesses")  # folders that the receipt counts apart
_SWEPT = "sweep"
_PASSES = 10
_NAMED = """
    CREATE TEMP TABLE named AS
    SELECT recording_id, count(*) AS row_count FROM named_rows WHERE recording_id IS NOT NULL GROUP BY ALL
"""
_GONE = """
    SELECT n.recording_id, n.row_count FROM named AS n ANTI JOIN there AS t ON t.recording_id = n.recording_id ORDER BY ALL
"""


class RowStream:
    """A column of all rows of a table, as ``recording_id``. DuckDB takes it as a table that can be read again and again."""

    def __init__(self, storage: Storage, schema: pa.Schema, column: str, wanted: ds.Expression | None = None) -> None:
        self._storage, self._schema, self._column, self._wanted = storage, schema, column, wanted

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        columns = {"recording_id": ds.field(self._column)}
        paths = TableLog(self._storage, self._schema).paths()
        batches = iter_scan(paths, self._schema, self._storage, columns, self._wanted)
        schema = pa.schema([pa.field("recording_id", pa.string())])
        return pa.RecordBatchReader.from_batches(schema, batches).__arrow_c_stream__()


def find_recordings(transcripts: Storage, recording_ids: pa.Array, months: Collection[str] | None = None) -> pa.Array:
    """Those that have a row which says more than that it was erased. Only files of ``months`` are opened."""
    wanted = ds.field("recording_id").isin(recording_ids) & is_not_erased()
    found = scan(list_paths(transcripts, months), TRANSCRIPTS, transcripts, ["recording_id"], wanted)
    return found["recording_id"].unique()


def list_paths(transcripts: Storage, months: Collection[str] | None = None) -> Iterable[str]:
    """The files of the table of transcripts, or those of these months."""
    for path in TableLog(transcripts, TRANSCRIPTS).paths():
        if months is None or list_folders(path).get("recorded_month") in months:
            yield path


def drop_rows_of_gone(lake: Lake, place: Place, older_than_s: float = IDLE_S) -> dict[str, int]:
    """Removes from a table the rows that name a recording which has no row any more (``Place.names``).

    A writer that was at work during an erasure may have written some. Where the table holds content, the files that held such
    rows are deleted at once, and others that nobody committed if they are older than ``older_than_s``.
    """
    storage, transcripts = open_storage(lake, place.folder), open_storage(lake, TRANSCRIPTS_FOLDER)
    if not has_table(storage):
        return {}
    assert place.schema is not None
    dropped = deleted = 0
    is_empty = next(TableLog(storage, place.schema).paths(), None) is None
    for column in place.names if not is_empty else ():
        with small_database() as database:
            database.register("named_rows", RowStream(storage, place.schema, column))
            # First: a recording that is transcribed meanwhile, and then named, would seem to be gone. In one query DuckDB
            # reads the table that it joins with before the other.
            database.execute(_NAMED)
            database.register("there", RowStream(transcripts, TRANSCRIPTS, "recording_id", is_not_erased()))
            gone = dict(database.execute(_GONE).fetchall())
        if gone:
            deleted += _remove(storage, place, column, gone)
        dropped += sum(gone.values())
    counts = {place.folder if place.folder in _COUNTED else "other_rows": dropped}
    if place.personal == "content":
        deleted += delete_unused(
            storage,
            place.schema,
            lambda paths: _find_files_of_gone(paths, place, storage, transcripts),
            older_than_s,
            # A writer at work may have looked before the rows were gone, and be about to commit such a file.
            (lambda: write_mark(lake, place, _SWEPT)) if place.folder == FINDINGS_FOLDER else lambda: None,
        )
        counts["files_deleted"] = deleted
    return counts


def _remove(storage: Storage, place: Place, column: str, ids: Collection[str]) -> int:
    """Removes these rows until no file holds any: one that was compacted meanwhile is left, and so are its rows. Returns how
    many files it deleted. Raises RunError if that persists."""
    assert place.schema is not None
    deleted, holds = 0, ds.field(column).isin(pa.array(list(ids), pa.string()))
    for _ in range(_PASSES):
        batches = iter_scan(TableLog(storage, place.schema).paths(), place.schema, storage, [FILE], holds)
        held = {path for batch in batches for path in batch[FILE].to_pylist()}
        if not held:
            return deleted
        deleted += remove_rows(storage, place, column, ids, held, _SWEPT)
    raise RunError(f"rows of {place.folder}/ were moved again and again; run the same command again")


def _find_files_of_gone(paths: list[str], place: Place, storage: Storage, transcripts: Storage) -> list[str]:
    """Those of some files of a folder, which no version names, that hold rows of recordings which are gone.

    The table of transcripts is read only where they name others than the rows that readers see, which were looked at: what
    compaction left behind names none.
    """
    assert place.schema is not None
    folders = list_folders(paths[0])
    named = {path: _read_names(path, place, storage) for path in paths}
    ids = pa.array(sorted(set().union(*named.values())), pa.string())
    own = [path for path in TableLog(storage, place.schema).paths() if list_folders(path) == folders]
    for column in place.names:
        seen = scan(own, place.schema, storage, [column], ds.field(column).isin(ids))[column].unique()
        ids = ids.filter(pc.invert(pc.is_in(ids, value_set=seen)))
    if not len(ids):
        return []
    months = None if "recorded_month" not in folders else {folders["recorded_month"]}
    there = find_recordings(transcripts, ids, months)
    gone = set(ids.filter(pc.invert(pc.is_in(ids, value_set=there))).to_pylist())
    return [path for path in paths if not gone.isdisjoint(named[path])]


def _read_names(path: str, place: Place, storage: Storage) -> set[str]:
    """The recordings that the rows of a file name. None if it was vacuumed since."""
    columns: Mapping[str, Any] | list[str] = list(place.names)
    try:
        batches = list(iter_scan([path], place.schema, storage, columns))
    except FileNotFoundError:
        return set()
    return {one for batch in batches for name in place.names for one in batch[name].to_pylist() if one is not None}
