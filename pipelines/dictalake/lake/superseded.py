"""Which recordings were replaced by a newer version of their URI: found in the rows, and written down for readers.

To find them, a query must look at the URI of every row of every month. A run does so once, at its end, and writes the few
pairs that it finds into the Delta table ``superseded``, with the version of the table of transcripts that it looked at. A
reader takes them from there if no row came since; else it looks itself. So the answer is right in both cases.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import blake2b
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

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
_ERASURE_MARK = "dictalake.erasure"  # as table.ERASURE_MARK
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

    def __init__(self, rows: ds.Dataset) -> None:
        self._rows = rows

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        reader = self._rows.scanner(columns=_VERSIONS, cache_metadata=False).to_reader()
        return reader.__arrow_c_stream__(requested_schema)


def open_superseded(storage: Storage, transcripts: DeltaTable, rows: Storage, known: KnownFingerprints) -> ds.Dataset | None:
    """The pairs that were written down; None where rows of ``transcripts`` came since, others count, or nobody wrote any."""
    if not has_table(storage):
        return None
    delta = open_table(storage, SUPERSEDED, to_read=True)
    covered = delta.transaction_version(_name_turn(transcripts, known))
    version = transcripts.version()
    if covered is None or covered > version or _has_new_rows(rows, covered, version):
        return None
    return make_dataset(delta, storage, SUPERSEDED)


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
            there = make_dataset(delta, storage, SUPERSEDED).to_table()
            if covered is not None and (covered >= version or not _has_new_rows(rows, covered, version)):
                return there.num_rows
            found = _find(
                make_dataset(transcripts, rows, TRANSCRIPTS), open_fingerprints(open_storage(lake, FINGERPRINTS_FOLDER))
            )
            properties = CommitProperties(app_transactions=[Transaction(turn, version)])
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


def _find(rows: ds.Dataset, fingerprints: ds.Dataset) -> pa.Table:
    with TemporaryDirectory(prefix="dictalake-superseded-") as folder, duckdb.connect() as database:
        database.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = 2; SET preserve_insertion_order = false")
        database.execute("SET temp_directory = ?", [folder])
        database.register("recording_versions", RecordingVersions(rows))
        database.register("fingerprint_records", fingerprints)
        database.execute(f"CREATE TEMP VIEW promotions AS {VIEWS['promotions']}")
        found = database.sql(COMPUTE_SUPERSEDED).to_arrow_table()
    at = pa.array([datetime.now(UTC)] * found.num_rows, pa.timestamp("us", tz="UTC"))
    return found.append_column("at", at).cast(without_docs(SUPERSEDED))


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


def _has_new_rows(storage: Storage, after: int, until: int) -> bool:
    """Whether a version after ``after`` brought rows; compaction and erasure bring none. True where the log does not say."""
    if until - after > _MOST_VERSIONS:
        return True
    for version in range(after + 1, until + 1):
        try:
            with storage.filesystem.open_input_stream(f"_delta_log/{version:020}.json") as stream:
                actions = [json.loads(line) for line in stream.read().decode().splitlines() if line]
        except FileNotFoundError:
            return True
        if any(_ERASURE_MARK in action.get("commitInfo", {}) for action in actions):
            continue
        if any(action["add"]["dataChange"] for action in actions if "add" in action):
            return True
    return False
