"""Which recordings were replaced by a newer version of their URI: found in the rows, and written down for readers.

To find them, a query must look at the URI of every row of every month. A run does so once, at its end, and writes the few
pairs that it finds into the Delta table ``superseded``, with the version of the table of transcripts that it looked at. A
reader takes them from there if no row came since; else it looks itself. So the answer is right in both cases.

Beside them it writes down that no key of a row is there twice. Our own commits see to that, but a foreign writer, or an older
version, may have written a key again. Readers for whom that is certain need not look for the copies, which costs them as much
as a second look at every key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from dictalake import stops
from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import has_table, make_dataset, open_or_create_table, open_table, retry_on_conflict
from dictalake.lake.fingerprints import KnownFingerprints, open_fingerprints, read_fingerprints
from dictalake.lake.places import FINGERPRINTS_FOLDER, SUPERSEDED_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.schema import SUPERSEDED, TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.views import COMPUTE_SUPERSEDED, VIEWS

_MEMORY = "256MB"
_MOST_VERSIONS = 100  # of the log that a reader looks through for new rows
_MOST_OWN_COMMITS = 25  # that a reader looks through to see whether others wrote rows: each is a request
_AGED = 20  # versions after which what was found is written down again, though it is the same
_ERASURE_MARK = "dictalake.erasure"  # as table.ERASURE_MARK
_KEY = {name: ds.field(name) for name in ("recording_id", "recorded_month", "fingerprint", "attempt", "status")}
_A_DOUBLED_KEY = """
    SELECT 1 FROM keys WHERE status = 'ok'
    GROUP BY recording_id, recorded_month, fingerprint, attempt HAVING count(*) > 1 LIMIT 1
"""
_VERSIONS = {
    "recording_id": ds.field("recording_id"),
    "fingerprint": ds.field("fingerprint"),
    "uri": ds.field("source", "uri"),
    "modified_at": ds.field("source", "modified_at"),
    "seen_at": ds.field("provenance", "transcribed_at"),
    "reason": ds.field("error", "reason"),
}


class RecordingVersions:
    """The columns of all rows that tell which recordings were replaced: no words, and of the structs a field each.

    DuckDB takes it as a table that can be read again and again. Nothing is read before it asks.
    """

    def __init__(self, rows: ds.Dataset, columns: Mapping[str, ds.Expression] = _VERSIONS) -> None:
        self._rows, self._columns = rows, dict(columns)

    def __arrow_c_schema__(self) -> object:
        """DuckDB asks at each mention in a view, and would else begin to read the files."""
        return self._rows.scanner(columns=self._columns).projected_schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        reader = self._rows.scanner(columns=self._columns, cache_metadata=False).to_reader()
        return reader.__arrow_c_stream__(requested_schema)


class WrittenDown(NamedTuple):
    """What a run found out and what still holds. ``pairs`` is None where rows came since, others count, or nobody wrote any.
    ``has_single_keys``: no key of a row is there twice.
    """

    pairs: ds.Dataset | None
    has_single_keys: bool


def open_superseded(storage: Storage, transcripts: DeltaTable, rows: Storage, known: KnownFingerprints) -> WrittenDown:
    """What was written down about this version of ``transcripts``, whose files are in ``rows``."""
    if not has_table(storage):
        return WrittenDown(None, False)
    delta = open_table(storage, SUPERSEDED, to_read=True)
    version, log = transcripts.version(), _Log(rows)
    covered, single = (
        delta.transaction_version(_name_turn(transcripts, known)),
        delta.transaction_version(_name_single(transcripts)),
    )
    holds = covered is not None and covered <= version and not log.has_new_rows(covered, version)
    is_single = single is not None and single <= version and log.has_own_rows_alone(single, version, _MOST_OWN_COMMITS)
    return WrittenDown(make_dataset(delta, storage, SUPERSEDED) if holds else None, is_single)


def refresh_superseded(lake: Lake) -> int:
    """Finds what was replaced, and writes down what is new; returns how many pairs there are.

    It reads no row where none came, and nothing was promoted, since it was called last. Raises RunError when the lake cannot
    be read or written.
    """
    rows, storage = open_storage(lake, TRANSCRIPTS_FOLDER), open_storage(lake, SUPERSEDED_FOLDER)
    try:
        transcripts = open_table(rows, TRANSCRIPTS, to_read=True)
        delta = open_or_create_table(storage, SUPERSEDED, (), "dictalake: recordings that a newer version replaced")
        known = read_fingerprints(lake)
        turn = _name_turn(transcripts, known)

        def change() -> int:
            delta.update_incremental()
            covered, version = delta.transaction_version(turn), transcripts.version()
            there, log = make_dataset(delta, storage, SUPERSEDED).to_table(), _Log(rows)
            has_new = covered is None or (covered < version and log.has_new_rows(covered, version))
            single = delta.transaction_version(_name_single(transcripts))
            if covered is not None and single is not None and not has_new and version - covered < _AGED:
                return there.num_rows
            files, marks = make_dataset(transcripts, rows, TRANSCRIPTS), [Transaction(turn, version)]
            found = _find(files, open_fingerprints(open_storage(lake, FINGERPRINTS_FOLDER))) if has_new else there
            is_single = single is not None and log.has_own_rows_alone(single, version, _MOST_VERSIONS)
            if is_single or not _has_doubled_key(files):
                marks.append(Transaction(_name_single(transcripts), version))
            properties = CommitProperties(app_transactions=marks)
            new, is_gone = _compare(found, there)
            options = dict(storage.delta_options)
            if new.num_rows == 0 and not is_gone:
                delta.create_write_transaction(
                    [], mode="append", schema=SUPERSEDED, partition_by=[], commit_properties=properties
                )
            elif is_gone:
                write_deltalake(delta, found, mode="overwrite", commit_properties=properties, storage_options=options)
            else:
                write_deltalake(delta, new, mode="append", commit_properties=properties, storage_options=options)
            return found.num_rows

        return retry_on_conflict(delta, change)
    except (OSError, DeltaError, duckdb.Error) as error:
        raise RunError(
            f"cannot find out what was replaced in the lake at {lake.uri}: {type(error).__name__}; run the same command again"
        ) from error


@contextmanager
def small_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that takes little memory, and spills what does not fit."""
    with TemporaryDirectory(prefix="dictalake-superseded-") as folder, duckdb.connect() as database:
        stops.interrupted_by_stops(database)
        database.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = 2; SET preserve_insertion_order = false")
        database.execute("SET temp_directory = ?", [folder])
        yield database


def _find(rows: ds.Dataset, fingerprints: ds.Dataset) -> pa.Table:
    with small_database() as database:
        database.register("recording_versions", RecordingVersions(rows))
        database.register("fingerprint_records", fingerprints)
        database.execute(f"CREATE TEMP VIEW promotions AS {VIEWS['promotions']}")
        found = database.sql(COMPUTE_SUPERSEDED).to_arrow_table()
    at = pa.array([datetime.now(UTC)] * found.num_rows, pa.timestamp("us", tz="UTC"))
    return found.append_column("at", at).cast(without_docs(SUPERSEDED))


def _has_doubled_key(rows: ds.Dataset) -> bool:
    with small_database() as database:
        database.register("keys", RecordingVersions(rows, _KEY))
        return bool(database.sql(_A_DOUBLED_KEY).fetchall())


def _compare(found: pa.Table, there: pa.Table) -> tuple[pa.Table, bool]:
    """What of ``found`` is not there yet, and whether something there is no longer so."""
    there = there.sort_by([("at", "ascending")])
    known = dict(zip(there["recording_id"].to_pylist(), there["superseded_by"].to_pylist(), strict=True))
    now = dict(zip(found["recording_id"].to_pylist(), found["superseded_by"].to_pylist(), strict=True))
    is_new = pa.array([known.get(one) != other for one, other in now.items()], pa.bool_())
    return found.filter(is_new), bool(known.keys() - now.keys())


def _name_turn(transcripts: DeltaTable, known: KnownFingerprints) -> str:
    """The application transaction whose version is that of the transcripts which was looked at. What counts is in its name."""
    counted = sorted(name for names in known.promoted for name in names)
    return f"dictalake.covers.{transcripts.metadata().id}.{blake2b(','.join(counted).encode(), digest_size=4).hexdigest()}"


def _name_single(transcripts: DeltaTable) -> str:
    """The application transaction whose version is that of the transcripts in which each key was there once."""
    return f"dictalake.single.{transcripts.metadata().id}"


class _Log:
    """The commits of the table of transcripts, each read once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._read: dict[int, list[Mapping[str, Any]]] = {}

    def has_new_rows(self, after: int, until: int) -> bool:
        """Whether a version after ``after`` brought rows; compaction and erasure bring none. True where the log does not
        say."""
        if until - after > _MOST_VERSIONS:
            return True
        try:
            return any(_list_brought(self._actions(version)) for version in range(after + 1, until + 1))
        except FileNotFoundError:
            return True

    def has_own_rows_alone(self, after: int, until: int, most: int) -> bool:
        """Whether all rows that came after ``after`` were written as dictalake does, which looks whether they are there. False
        where the log does not say, and beyond ``most`` versions.
        """
        if until - after > most:
            return False
        try:
            return all(_is_own(self._actions(version)) for version in range(after + 1, until + 1))
        except FileNotFoundError:
            return False

    def _actions(self, version: int) -> list[Mapping[str, Any]]:
        if version not in self._read:
            with self._storage.filesystem.open_input_stream(f"_delta_log/{version:020}.json") as stream:
                # Not splitlines: JSON leaves characters as they are that count as ends of lines there, U+2028 and others.
                self._read[version] = [json.loads(line) for line in stream.read().decode().split("\n") if line]
        return self._read[version]


def _list_brought(actions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The files of a commit that bring rows."""
    if any(_ERASURE_MARK in action.get("commitInfo", {}) for action in actions):
        return []
    return [action["add"] for action in actions if "add" in action and action["add"]["dataChange"]]


def _is_own(actions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a commit that brings rows carries the application transactions of their fingerprints (``table.py``)."""
    turns = {action["txn"]["appId"] for action in actions if "txn" in action}
    return all(file["partitionValues"].get("fingerprint") in turns for file in _list_brought(actions))
