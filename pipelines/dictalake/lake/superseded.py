"""Which recordings were replaced by a newer version of their URI: found in the rows, and written down for readers.

To find them, a query must look at the URI of every row of every month. A run does so once, at its end, and writes the few
pairs that it finds into the Delta table ``superseded``, with the version of the table of transcripts that it looked at and a
sum over the names of its files. A reader takes them from there if no row came since; else it looks itself. So the answer is
right in both cases. The sum tells a table that was restored from a backup: its versions count on from an older one.

Compaction and erasure do the same at their ends. Where rows came since and the log says in which files, only the recordings
that share a URI with one of these rows are looked at again.

Beside them it writes down that no key of a row is there twice. Our own commits see to that, but a foreign writer, or an older
version, may have written a key again. Readers for whom that is certain need not look for the copies, which costs them as much
as a second look at every key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from dictalake import logs, stops
from dictalake.config.sections import Lake
from dictalake.errors import RunError, name_place
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import has_table, make_dataset, open_or_create_table, open_table, retry_on_conflict
from dictalake.lake.fingerprints import KnownFingerprints, open_fingerprints, read_records
from dictalake.lake.places import FINGERPRINTS_FOLDER, SUPERSEDED_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.row_search import iter_scan, list_files
from dictalake.lake.schema import SUPERSEDED, TRANSCRIPTS
from dictalake.lake.spills import make_spill_folder
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.table_log import TableLog
from dictalake.lake.views import COMPUTE_SUPERSEDED, VIEWS

_MEMORY = "256MB"
_MOST_VERSIONS = 100  # of the log that a reader looks through for new rows
_MOST_OWN_COMMITS = 25  # that a reader looks through to see whether others wrote rows: each is a request
_MOST_OF_A_NIGHT = 1000  # versions that a run looks through, to see in which files rows came
_MOST_NEW_ROWS = 200_000  # with more, every row is looked at
_AGED = 20  # versions after which what was found is written down again, though it is the same
_CHANGES, _MODULUS = ("add", "remove"), 2**63  # actions; of sums that fit the version of a transaction
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
_Pairs = dict[str, str]  # recording_id → superseded_by


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
    table_id = str(transcripts.metadata().id)
    covered, single = _read_mark(delta, _name_turn(table_id, known)), _read_mark(delta, _name_single(table_id))
    if covered is None and single is None:
        return WrittenDown(None, False)
    log = _Log(rows, transcripts.version(), sum_up_files(list_files(transcripts)))
    holds = covered is not None and log.list_brought(covered, _MOST_VERSIONS) == []
    is_single = single is not None and log.has_own_rows_alone(single, _MOST_OWN_COMMITS)
    return WrittenDown(make_dataset(delta, storage, SUPERSEDED) if holds else None, is_single)


def refresh_superseded(lake: Lake, *, may_read_all: bool = True) -> int:
    """Finds what was replaced, and writes down what is new; returns how many pairs there are.

    It reads no row where none came, and nothing was promoted, since it was called last. It holds no list of
    files, and of a night's rows their URIs. Without ``may_read_all`` it leaves all as it is where every row would have to be
    looked at: among ten million that takes a quarter of a minute and a gigabyte. Raises RunError when the lake cannot be read
    or written.
    """
    rows, storage = open_storage(lake, TRANSCRIPTS_FOLDER), open_storage(lake, SUPERSEDED_FOLDER)
    try:
        if not has_table(storage):
            TableLog(rows, TRANSCRIPTS)  # where there is no lake, nothing is made

        def change(*, anew: bool = False) -> tuple[int, _Log | None]:
            # Before the transcripts: what another process wrote down meanwhile must not be of a newer version than these.
            delta = open_or_create_table(storage, SUPERSEDED, (), "dictalake: recordings that a newer version replaced")
            fingerprints = open_fingerprints(open_storage(lake, FINGERPRINTS_FOLDER))
            transcripts = TableLog(rows, TRANSCRIPTS)
            table_id = transcripts.table_id
            turn, of_single = _name_turn(table_id, read_records(fingerprints)), _name_single(table_id)
            log = _Log(rows, transcripts.version, sum_up_files(transcripts.paths()))
            covered, single = _read_mark(delta, turn), _read_mark(delta, of_single)
            there = _read_pairs(make_dataset(delta, storage, SUPERSEDED))
            brought = None if covered is None or anew else log.list_brought(covered, _MOST_OF_A_NIGHT)
            is_single = single is not None and log.has_own_rows_alone(single, _MOST_OF_A_NIGHT)
            is_young = covered is not None and log.version - covered.version < _AGED
            is_little = may_read_all or anew or (brought is not None and is_single)
            if (brought == [] and single is not None and is_young) or not is_little:
                return len(there), None
            found = _find(rows, transcripts, brought, there, fingerprints)
            marks = _make_mark(turn, log)
            if is_single or not _has_doubled_key(rows, transcripts):
                marks += _make_mark(of_single, log)
            _write_pairs(delta, storage, found, there, CommitProperties(app_transactions=marks))
            return len(found), log

        count, log = retry_on_conflict(None, change)
        if log is not None and log.was_followed_by_erasure(TableLog(rows, TRANSCRIPTS).version):
            # It may have looked for pairs of what is gone before these were written down.
            count, _ = retry_on_conflict(None, lambda: change(anew=True))
        return count
    except (OSError, DeltaError, duckdb.Error) as error:
        raise RunError(
            f"cannot find out what was replaced in the lake at {lake.uri}: {type(error).__name__}; run the same command again"
        ) from error


def keep_superseded(lake: Lake, *, may_read_all: bool = True) -> None:
    """As ``refresh_superseded`` at the end of other work, which has succeeded: a failure is only told."""
    try:
        refresh_superseded(lake, may_read_all=may_read_all)
    except RunError as problem:
        line = f"{name_place(problem)}: readers find it out themselves, which takes them longer, until a run succeeds in it"
        logs.log_event("superseded", line, level=logs.WARNING)


@contextmanager
def small_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that takes little memory, and spills what does not fit."""
    folder, remove = make_spill_folder("dictalake-superseded-")
    try:
        with duckdb.connect() as database:
            stops.interrupted_by_stops(database)
            database.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = 2; SET preserve_insertion_order = false")
            database.execute("SET temp_directory = ?", [str(folder)])
            yield database
    finally:
        remove()


def _find(
    storage: Storage, transcripts: TableLog, brought: list[str] | None, there: _Pairs, fingerprints: ds.Dataset
) -> _Pairs:
    """The pairs of all rows. Where only the files ``brought`` came since those of ``there`` were found, it looks at the URIs
    that these name, and nothing else can have changed."""
    if brought == []:
        return there
    uris = None if brought is None else _list_uris(storage, brought)
    if uris is None:
        return _compute(_Rows(storage, transcripts, _VERSIONS), fingerprints)
    wanted = ds.field("source", "uri").isin(uris)
    touched = pa.Table.from_batches(_Rows(storage, transcripts, _VERSIONS, wanted).read(), _Rows.find_schema(_VERSIONS))
    found, ids = _compute(touched, fingerprints), set(touched["recording_id"].to_pylist())
    return {one: other for one, other in there.items() if one not in ids} | found


def _list_uris(storage: Storage, paths: Sequence[str]) -> pa.Array | None:
    """What rows of these files have as their URI. None if they have too many, or were compacted and removed since."""
    columns, rows, uris = {"uri": ds.field("source", "uri")}, 0, list[pa.Array]()
    try:
        for batch in iter_scan(paths, TRANSCRIPTS, storage, columns):
            rows += batch.num_rows
            if rows > _MOST_NEW_ROWS:
                return None
            uris.append(batch["uri"])
    except FileNotFoundError:
        return None
    return pa.chunked_array(uris, pa.string()).unique().drop_null()


def _compute(versions: pa.Table | _Rows, fingerprints: ds.Dataset) -> _Pairs:
    with small_database() as database:
        database.register("recording_versions", versions)
        database.register("fingerprint_records", fingerprints)
        database.execute(f"CREATE TEMP VIEW promotions AS {VIEWS['promotions']}")
        return dict(database.sql(COMPUTE_SUPERSEDED).fetchall())


def _has_doubled_key(storage: Storage, transcripts: TableLog) -> bool:
    with small_database() as database:
        database.register("keys", _Rows(storage, transcripts, _KEY))
        return bool(database.sql(_A_DOUBLED_KEY).fetchall())


def _read_pairs(pairs: ds.Dataset) -> _Pairs:
    """The newest pair of each recording."""
    there = pairs.to_table().sort_by([("at", "ascending")])
    return dict(zip(there["recording_id"].to_pylist(), there["superseded_by"].to_pylist(), strict=True))


def _write_pairs(delta: DeltaTable, storage: Storage, found: _Pairs, there: _Pairs, properties: CommitProperties) -> None:
    """Adds what is new, or writes all anew where a pair is no longer so."""
    is_gone = bool(there.keys() - found.keys())
    new = found if is_gone else {one: other for one, other in found.items() if there.get(one) != other}
    if not new and not is_gone:
        delta.create_write_transaction([], mode="append", schema=SUPERSEDED, partition_by=[], commit_properties=properties)
        return
    values = (list(new), list(new.values()), [datetime.now(UTC)] * len(new))
    table = pa.table(list(map(pa.array, values, SUPERSEDED.types)), schema=without_docs(SUPERSEDED))
    mode: Literal["overwrite", "append"] = "overwrite" if is_gone else "append"
    write_deltalake(delta, table, mode=mode, commit_properties=properties, storage_options=dict(storage.delta_options))


class _Rows:
    """Columns of all rows of a version of the table of transcripts, read file by file. DuckDB takes it as a table that can be
    read again and again."""

    def __init__(
        self, storage: Storage, log: TableLog, columns: Mapping[str, ds.Expression], wanted: ds.Expression | None = None
    ) -> None:
        self._storage, self._log, self._columns, self._wanted = storage, log, columns, wanted

    def read(self) -> Iterator[pa.RecordBatch]:
        return iter_scan(self._log.paths(), TRANSCRIPTS, self._storage, self._columns, self._wanted)

    @staticmethod
    def find_schema(columns: Mapping[str, ds.Expression]) -> pa.Schema:
        """The names and types that such columns have in a batch."""
        return ds.dataset(TRANSCRIPTS.empty_table()).scanner(columns=dict(columns)).projected_schema

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return pa.RecordBatchReader.from_batches(self.find_schema(self._columns), self.read()).__arrow_c_stream__()


class _Mark(NamedTuple):
    """A version of the table of transcripts that was looked at, and the sum over the names of its files."""

    version: int
    files: int


def _read_mark(delta: DeltaTable, name: str) -> _Mark | None:
    version, files = delta.transaction_version(name), delta.transaction_version(f"{name}.files")
    return None if version is None or files is None else _Mark(version, files)


def _make_mark(name: str, log: _Log) -> list[Transaction]:
    return [Transaction(name, log.version), Transaction(f"{name}.files", log.files)]


def sum_up_files(paths: Iterable[str]) -> int:
    """A sum over names of files that knows no order: adding and removing files changes it as they come and go."""
    sums = (int.from_bytes(blake2b(unquote(path).encode(), digest_size=8).digest()) for path in paths)
    return sum(sums) % _MODULUS


def _name_turn(table_id: str, known: KnownFingerprints) -> str:
    """The application transaction whose version is that of the transcripts which was looked at. What counts is in its name."""
    counted = sorted(name for names in known.promoted for name in names)
    return f"dictalake.covers.{table_id}.{blake2b(','.join(counted).encode(), digest_size=4).hexdigest()}"


def _name_single(table_id: str) -> str:
    """The application transaction whose version is that of the transcripts in which each key was there once."""
    return f"dictalake.single.{table_id}"


class _Log:
    """The commits that led to a version of the table of transcripts, whose files have the sum ``files``. Each is read once."""

    def __init__(self, storage: Storage, version: int, files: int) -> None:
        self._storage, self.version, self.files = storage, version, files
        self._read: dict[int, list[Mapping[str, Any]]] = {}

    def list_brought(self, mark: _Mark, most: int) -> list[str] | None:
        """The files that brought rows after ``mark``; compaction and erasure bring none. None where rows were removed
        otherwise, where the log does not say, and beyond ``most`` versions."""
        commits = self._follow(mark, most)
        if commits is None or any(_removes_rows(actions) for actions in commits):
            return None
        return [unquote(add["path"]) for actions in commits for add in _list_brought(actions)]

    def has_own_rows_alone(self, mark: _Mark, most: int) -> bool:
        """Whether all rows that came after ``mark`` were written as dictalake does, which looks whether they are there. False
        where the log does not say, and beyond ``most`` versions.
        """
        commits = self._follow(mark, most)
        return commits is not None and all(map(_is_own, commits))

    def was_followed_by_erasure(self, newest: int) -> bool:
        """Whether an erasure came until the version ``newest``, or may have come."""
        try:
            return any(_is_erasure(self._actions(version)) for version in range(self.version + 1, newest + 1))
        except FileNotFoundError:
            return True

    def _follow(self, mark: _Mark, most: int) -> list[list[Mapping[str, Any]]] | None:
        """The commits after ``mark``. None where they did not lead from its files to those of this version: the table was
        restored, or the log does not say."""
        if not 0 <= self.version - mark.version <= most:
            return None
        try:
            commits = [self._actions(version) for version in range(mark.version + 1, self.version + 1)]
        except FileNotFoundError:
            return None
        changes = {kind: [action[kind]["path"] for one in commits for action in one if kind in action] for kind in _CHANGES}
        files = self.files - sum_up_files(changes["add"]) + sum_up_files(changes["remove"])
        return commits if (files - mark.files) % _MODULUS == 0 else None

    def _actions(self, version: int) -> list[Mapping[str, Any]]:
        if version not in self._read:
            with self._storage.filesystem.open_input_stream(f"_delta_log/{version:020}.json") as stream:
                # Not splitlines: JSON leaves characters as they are that count as ends of lines there, U+2028 and others.
                self._read[version] = [json.loads(line) for line in stream.read().decode().split("\n") if line]
        return self._read[version]


def _is_erasure(actions: Sequence[Mapping[str, Any]]) -> bool:
    return any(_ERASURE_MARK in action.get("commitInfo", {}) for action in actions)


def _list_brought(actions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The files of a commit that bring rows."""
    if _is_erasure(actions):
        return []
    return [action["add"] for action in actions if "add" in action and action["add"]["dataChange"]]


def _removes_rows(actions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a commit takes rows away that no erasure does: somebody deleted some, or restored an older version. An erasure
    takes all versions of a URI, and its pairs."""
    return not _is_erasure(actions) and any(action["remove"]["dataChange"] for action in actions if "remove" in action)


def _is_own(actions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a commit that brings rows carries the application transactions of their fingerprints (``table.py``)."""
    turns = {action["txn"]["appId"] for action in actions if "txn" in action}
    return all(file["partitionValues"].get("fingerprint") in turns for file in _list_brought(actions))
