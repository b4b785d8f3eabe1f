"""Erases recordings from every fingerprint of the lake, its manifests, run records, rechecks and reports, and keeps them out.

The order keeps a live run from bringing back what is being removed:

1. the tombstones;
2. a mark in the table's log, which refuses every commit that is under way, so that its writer reads the tombstones;
3. the rows, and at once, not after the retention, the files that held them;
4. the manifests, the run records, the rechecks and the reports;
5. values of rows in the Delta log, which older versions wrote there.

A receipt says in numbers what was done. ``lake/places.py`` lists what can hold content.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.config.uris import today_uri
from dictalake.errors import ConfigError, RunError
from dictalake.lake.claims import LeaseStore
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import has_table, open_table, retry_on_conflict
from dictalake.lake.delta_log import clean_log
from dictalake.lake.maintenance import WRITER
from dictalake.lake.manifests import Manifests
from dictalake.lake.places import PLACES, RECHECKS_FOLDER, RUNS_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.reports import Reports
from dictalake.lake.row_search import Match, RowSearch, is_not_erased, list_files, scan
from dictalake.lake.schema import PARTITIONS, RECHECKS, RUNS, TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.superseded import drop_gone
from dictalake.lake.table import ERASURE_MARK
from dictalake.lake.tombstones import ErasedSubjects, Erasures, Tombstone, hash_subject
from dictalake.lake.unreferenced_files import covers_location, delete_forbidden_files

_PASSES = 10  # a commit that was under way may bring a row back, which the next pass removes
_IDS_AT_ONCE = 500
_THREADS = 16
_BLANK = {"uri": "", "version": "", "size_bytes": 0, "modified_at": None, "metadata": [], "error": None}


@dataclass(frozen=True)
class Subjects:
    """What to erase: recordings by id, URI (of an archive object with all its files), Study Instance UID or patient hash."""

    recordings: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.recordings or self.uris or self.studies or self.patients)


@dataclass
class Receipt:
    """What an erasure did, without content.

    ``rows`` counts by fingerprint. ``unknown`` recordings were nowhere in the lake; without their URI they cannot be kept out.
    ``log_files`` of the Delta log held values of rows and were cleaned. ``log_files_left`` still hold some, because a run was
    at work: run the same command again later.
    """

    receipt_id: str
    at: str
    asked: dict[str, int]
    rows: dict[str, int] = field(default_factory=dict)
    recordings: int = 0
    tombstones: int = 0
    files_deleted: int = 0
    manifest_rows: int = 0
    run_records: int = 0
    report_lines: int = 0
    rechecks: int = 0
    log_files: int = 0
    log_files_left: int = 0
    unknown: int = 0
    path: str = ""


def forget(lake: Lake, subjects: Subjects, *, dry_run: bool = False) -> Receipt:
    """Erases ``subjects``; with ``dry_run`` it only counts. It is safe beside runs; after an interruption call it again.

    Raises ConfigError when nothing is named, RunError when the lake cannot be reached or other writers keep coming first.
    """
    if not subjects:
        raise ConfigError("forget: name what to erase with --recording, --uri, --study or --patient")
    now = datetime.now(UTC)
    asked = {name: len(values) for name, values in vars(subjects).items()}
    receipt = Receipt(f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}", now.isoformat(timespec="seconds"), asked)
    storage = open_storage(lake, TRANSCRIPTS_FOLDER)
    match = Match(subjects.recordings, subjects.uris, subjects.studies, subjects.patients)
    try:
        delta = open_table(storage, TRANSCRIPTS)
        search = RowSearch(delta, storage, match)
        manifests = Manifests(lake)
        _find_uris(manifests, match)
        rows = search.find()
        match.add_uris(row["uri"] for row in rows if row["uri"])
        rows = search.find()  # other versions of the same objects
        receipt.recordings = len({row["recording_id"] for row in rows})
        receipt.rows = dict(Counter(row["fingerprint"] for row in rows))
        known = {row["recording_id"] for row in rows} | {row["archive_id"] for row in rows}
        receipt.unknown = len(set(subjects.recordings) - known) if not match.uris else 0
        if not dry_run:
            erasures = Erasures(lake)
            tombstones = list(_make_tombstones(subjects, match))
            erasures.add(receipt.receipt_id, tombstones)
            receipt.tombstones = len(tombstones)
            _mark(delta, lake, receipt.receipt_id)
            _delete_rows(delta, storage, search, receipt)
            sweep(lake, receipt)
            _delete_rows(delta, storage, search, receipt)  # what a commit that was under way brought meanwhile
            receipt.report_lines += clear_reports(lake)
            receipt.rechecks += clear_rechecks(lake)
            drop_gone(lake)
            _clean_logs(lake, receipt)
            receipt.path = erasures.write_receipt(receipt.receipt_id, vars(receipt))
    except (OSError, DeltaError) as error:
        raise RunError(f"cannot erase from the table at {storage.uri}: {error}; run the same command again") from error
    return receipt


def sweep(lake: Lake, receipt: Receipt | None = None) -> Receipt:
    """Removes what any tombstone covers from unreferenced files, manifests, run records, rechecks and reports.

    It is part of each erasure. Called alone, it removes the leftovers of runs that worked during an erasure. It does not
    touch the rows that readers see: ``forget`` removes those.
    """
    receipt = receipt or Receipt("", "", {})
    forbidden = Erasures(lake).read()
    if not forbidden:
        return receipt
    storage = open_storage(lake, TRANSCRIPTS_FOLDER)
    try:
        delta = open_table(storage, TRANSCRIPTS)
        _mark(delta, lake, receipt.receipt_id or "sweep")  # a run that does not know of it yet must not commit erased rows
        receipt.files_deleted += delete_forbidden_files(delta, storage, ["source", "dicom"], forbidden)
        receipt.manifest_rows += blank_manifests(Manifests(lake), forbidden)
        receipt.run_records += _blank_run_records(lake, forbidden, receipt)
        receipt.report_lines += clear_reports(lake)
        receipt.rechecks += clear_rechecks(lake)
        drop_gone(lake)
    except (OSError, DeltaError) as error:
        raise RunError(
            f"cannot erase from the lake at {lake.uri}: {type(error).__name__}; run the same command again"
        ) from error
    return receipt


def _clean_logs(lake: Lake, receipt: Receipt) -> None:
    """Cleans the Delta logs, in which older versions wrote texts and URIs of rows and the archive of a run."""
    for place in PLACES:
        if place.schema is None or place.personal == "none":
            continue
        storage = open_storage(lake, place.folder)
        if not has_table(storage):
            continue
        done = clean_log(open_table(storage, place.schema), storage, place.schema)
        receipt.log_files += done.cleaned
        receipt.log_files_left += done.left


def _find_uris(manifests: Manifests, match: Match) -> None:
    """Finds in the manifests the URIs of recordings that were named by id and have no row yet."""
    if not match.ids:
        return
    wanted = pa.array(sorted(match.ids), pa.string())
    for path in manifests.paths():
        for block in manifests.read_part(path):
            found = block.filter(pc.is_in(block["recording_id"], value_set=wanted))
            match.add_uris(uri for uri in found["uri"].to_pylist() if uri)


def _make_tombstones(subjects: Subjects, match: Match) -> Iterator[Tombstone]:
    uris = sorted({*match.uris, *map(today_uri, match.uris)})  # a row may have the URI that an older version wrote
    for kind, values in (("uri", uris), ("study", subjects.studies), ("patient", subjects.patients)):
        for value in values:
            yield Tombstone(kind, hash_subject(kind, value))


def _mark(delta: DeltaTable, lake: Lake, receipt_id: str) -> None:
    """Writes a version of the log that refuses every commit under way, so that its writer reads the tombstones."""

    def mark() -> None:
        delta.update_incremental()
        there = pa.table(delta.get_add_actions(flatten=True))["partition.fingerprint"].unique().to_pylist()
        # A run of a new model has no row yet.
        fingerprints = {*there, *(seen.lease.fingerprint for seen in LeaseStore(lake).read())}
        marks = []
        for fingerprint in sorted(fingerprints):
            last = delta.transaction_version(fingerprint)
            marks.append(Transaction(fingerprint, 0 if last is None else last + 1))
        properties = CommitProperties(custom_metadata={ERASURE_MARK: receipt_id}, app_transactions=marks)
        delta.create_write_transaction(
            [], mode="append", schema=TRANSCRIPTS, partition_by=list(PARTITIONS), commit_properties=properties
        )

    retry_on_conflict(delta, mark)


def _delete_rows(delta: DeltaTable, storage: Storage, search: RowSearch, receipt: Receipt) -> None:
    """Deletes the rows partition by partition, so that a run that commits to another month does not interfere."""
    nothing = without_docs(TRANSCRIPTS).empty_table()
    properties = CommitProperties(custom_metadata={ERASURE_MARK: receipt.receipt_id})
    for _ in range(_PASSES):
        rows = search.find()
        if not rows:
            return
        before = set(delta.file_uris())
        by_partition: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            by_partition.setdefault((row["fingerprint"], row["recorded_month"]), set()).add(row["recording_id"])
        for (fingerprint, month), found in sorted(by_partition.items()):
            ids = sorted(found)
            for start in range(0, len(ids), _IDS_AT_ONCE):
                quoted = _quote(ids[start : start + _IDS_AT_ONCE])
                predicate = f"fingerprint = '{fingerprint}' AND recorded_month = '{month}' AND recording_id IN ({quoted})"
                retry_on_conflict(delta, lambda: _replace(delta, storage, nothing, predicate, properties))  # noqa: B023
        delta.update_incremental()
        receipt.files_deleted += _delete_named(storage, before - set(delta.file_uris()))
    raise RunError("erased rows came back again and again; stop the runs that write them, then run the same command again")


def _quote(ids: Sequence[str]) -> str:
    return ", ".join("'" + one.replace("'", "''") + "'" for one in ids)


def _delete_named(storage: Storage, uris: set[str]) -> int:
    """Deletes files that were just rewritten. Their partition folders and file name identify them."""
    for uri in uris:
        with suppress(FileNotFoundError):
            storage.filesystem.delete_file("/".join(unquote(uri).rsplit("/", 3)[-3:]))
    return len(uris)


def _replace(
    delta: DeltaTable, storage: Storage, rows: pa.Table, predicate: str, properties: CommitProperties | None = None
) -> None:
    """Replaces the rows of ``predicate`` by ``rows``, whose schema has no docs: delta-rs refuses docs in other words.

    ``DeltaTable.delete`` would write strings in a type that pyarrow cannot filter (delta-rs issue 4579).
    """
    write_deltalake(
        delta,
        rows,
        mode="overwrite",
        predicate=predicate,
        commit_properties=properties,
        writer_properties=WRITER,
        storage_options=dict(storage.delta_options),
    )


def blank_manifests(manifests: Manifests, forbidden: ErasedSubjects, run_id: str | None = None) -> int:
    """Blanks what is forbidden in the manifests of all runs, or of one; returns how many rows.

    An erased recording keeps its place and its id there, so that a live run finds its blocks unchanged.
    """
    blanked = 0
    for path in manifests.paths(run_id):
        parts = manifests.read_part(path)
        changed = []
        for block in parts:
            covered = [bool(uri) and forbidden.covers_uri(uri) for uri in block["uri"].to_pylist()]
            blanked += sum(covered)
            rows = block.to_pylist() if any(covered) else []
            for row, is_covered in zip(rows, covered, strict=False):
                row.update(_BLANK if is_covered else {})
            changed.append(pa.Table.from_pylist(rows, schema=block.schema) if rows else block)
        if any(new is not old for new, old in zip(changed, parts, strict=True)):
            manifests.rewrite_part(path, changed)
    return blanked


def _blank_run_records(lake: Lake, forbidden: ErasedSubjects, receipt: Receipt) -> int:
    """Blanks the archive of runs over a single erased object. Rows are replaced by run, as predicates stay in the log."""
    storage = open_storage(lake, RUNS_FOLDER)
    delta = open_table(storage, RUNS)
    changed = 0

    def blank(run_id: str) -> int:
        of_run = scan(list_files(delta), RUNS, storage, RUNS.names, ds.field("run_id") == run_id).to_pylist()
        covered = [row for row in of_run if covers_location(row["archive_uri"], forbidden)]
        for row in covered:
            row.update(archive_uri="erased", config="erased")
        _replace(delta, storage, pa.Table.from_pylist(of_run, schema=without_docs(RUNS)), f"run_id = '{run_id}'")
        return len(covered)

    rows = scan(list_files(delta), RUNS, storage, ["run_id", "archive_uri"]).to_pylist()
    for run_id in sorted({row["run_id"] for row in rows if covers_location(row["archive_uri"], forbidden)}):
        changed += retry_on_conflict(delta, lambda: blank(run_id))  # noqa: B023
    receipt.files_deleted += delete_forbidden_files(delta, storage, ["archive_uri"], forbidden)
    return changed


def clear_rechecks(lake: Lake) -> int:
    """Removes the records of recordings that no longer have a row; returns how many. A recheck that was at work during an
    erasure may have written some."""
    storage = open_storage(lake, RECHECKS_FOLDER)
    if not has_table(storage):
        return 0
    delta, transcripts = open_table(storage, RECHECKS), open_storage(lake, TRANSCRIPTS_FOLDER)
    named = scan(list_files(delta), RECHECKS, storage, ["recording_id"])["recording_id"]
    there = _find_recordings(transcripts, named.unique())
    gone = named.filter(pc.invert(pc.is_in(named, value_set=there)))
    ids, nothing = sorted(set(gone.to_pylist())), without_docs(RECHECKS).empty_table()
    for start in range(0, len(ids), _IDS_AT_ONCE):
        predicate = f"recording_id IN ({_quote(ids[start : start + _IDS_AT_ONCE])})"
        retry_on_conflict(delta, lambda: _replace(delta, storage, nothing, predicate))  # noqa: B023
    return len(gone)


def _find_recordings(transcripts: Storage, recording_ids: pa.Array) -> pa.Array:
    """Those that have a row which says more than that it was erased."""
    wanted = ds.field("recording_id").isin(recording_ids) & is_not_erased()
    files = list_files(open_table(transcripts, TRANSCRIPTS))
    return scan(files, TRANSCRIPTS, transcripts, ["recording_id"], wanted)["recording_id"].unique()


def clear_reports(lake: Lake, run_id: str | None = None) -> int:
    """Removes recordings that no longer have a row from the reports of all runs, or of one; returns how many lines.

    It checks again after each change, since another erasure may have written an older state. Raises RunError if that persists.
    """
    reports, storage = Reports(lake), open_storage(lake, TRANSCRIPTS_FOLDER)
    run_ids, taken = reports.find(run_id), 0
    for _ in range(_PASSES):
        with ThreadPoolExecutor(_THREADS) as pool:
            named = dict(zip(run_ids, pool.map(reports.list_recordings, run_ids), strict=True))
        if not any(named.values()):
            return taken
        wanted = pa.array(sorted(set().union(*named.values())), pa.string())
        there = set(_find_recordings(storage, wanted).to_pylist())
        run_ids = [one for one, ids in named.items() if not ids <= there]
        if not run_ids:
            return taken
        taken += sum(reports.take_out(one, named[one] - there) for one in run_ids)
    raise RunError("erased recordings came back into reports again and again; run the same command again")
