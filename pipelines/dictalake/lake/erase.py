"""Erases recordings from every fingerprint of the lake and from all that speaks of them, and keeps them out.

``look`` finds what an erasure would take, ``carry_out`` takes it. Its order keeps a live run from bringing back what is being
removed:

1. the tombstones;
2. a mark in the table's log, which refuses every commit that is under way, so that its writer reads the tombstones;
3. the rows, and at once, not after the retention, the files that held them;
4. the other places of ``lake/places.py``, in the ways of ``lake/erasers.py``;
5. values of rows in the Delta log, which older versions wrote there.

A receipt says in numbers what was done.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.claims import LeaseStore
from dictalake.lake.delta import has_table
from dictalake.lake.delta_log import clean_log_of
from dictalake.lake.erasers import (
    PASSES,
    list_steps,
    remove_unfinished,
)
from dictalake.lake.erasure_plan import Plan as Plan
from dictalake.lake.erasure_plan import Planner
from dictalake.lake.erasure_plan import Subjects as Subjects
from dictalake.lake.places import PLACES, REPORTS_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.row_removal import remove_rows, write_mark
from dictalake.lake.row_search import RowSearch
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.superseded import keep_superseded
from dictalake.lake.table_log import TableLog
from dictalake.lake.tombstones import ErasedSubjects, Erasures

_TRANSCRIPTS = next(place for place in PLACES if place.folder == TRANSCRIPTS_FOLDER)


@dataclass
class Receipt:
    """What an erasure did, without content.

    ``rows`` counts by fingerprint. ``unknown`` counts what was named and matches nothing in the lake: no tombstone keeps it out
    unless that was asked for. ``log_files`` of the Delta log held values of rows and were cleaned. ``log_files_left`` still
    hold some, and ``unfinished_left`` files look as if somebody were still writing them: run the same command again later.
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
    lineage_events: int = 0
    report_lines: int = 0
    rechecks: int = 0
    superseded: int = 0
    corrections: int = 0
    accesses: int = 0
    other_rows: int = 0
    log_files: int = 0
    log_files_left: int = 0
    unfinished_left: int = 0
    unknown: int = 0
    path: str = ""

    def add(self, counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)


class Erasure:
    """One erasure. It is safe beside runs; after an interruption make it again.

    Raises ConfigError when nothing is named. The methods raise RunError when the lake cannot be reached or other writers keep
    coming first.
    """

    def __init__(self, lake: Lake, subjects: Subjects) -> None:
        if not subjects:
            raise ConfigError("forget: name what to erase with --recording, --uri, --study or --patient")
        self._lake, self._subjects = lake, subjects
        self._storage = open_storage(lake, TRANSCRIPTS_FOLDER)
        with _erase_errors(self._storage.uri):
            self.table_id = TableLog(self._storage, TRANSCRIPTS).table_id
        self._planner = Planner(lake, subjects, self._storage)
        self._plan: Plan | None = None

    def look(self) -> Plan:
        """Finds what the erasure would take, and changes nothing."""
        with _erase_errors(self._storage.uri):
            self._plan = self._planner.look()
        return self._plan

    def require_hashes(self, *, leave_unhashed: bool = False) -> None:
        """Raises ConfigError where rows without a hash of a patient may be of one that is named, unless they are to be left."""
        plan = self._plan or self.look()
        if plan.unhashed and not leave_unhashed:
            raise ConfigError(
                f"--patient: {plan.unhashed} rows of DICOM objects were made without this hash (archive.patient_fields), so "
                "nobody can tell whose they are. Find them by `dictalake query LAKE 'SELECT source.uri, dicom.* FROM history "
                "WHERE dicom.patient_id_hash IS NULL'` (or the hash of your field), erase those of the patient by --study or "
                "--uri, then give --leave-unhashed"
            )

    def carry_out(self, *, force: bool = False, leave_unhashed: bool = False) -> Receipt:
        """Erases. ``force`` keeps out what matches nothing, too. Raises ConfigError as ``require_hashes``."""
        self.require_hashes(leave_unhashed=leave_unhashed)
        plan, lake = self._plan or self.look(), self._lake
        receipt = self.make_receipt()
        with _erase_errors(self._storage.uri):
            erasures = Erasures(lake)
            tombstones = list(self._planner.list_tombstones(plan.unknown if not force else Subjects()))
            receipt.tombstones = len(tombstones)
            if tombstones:
                erasures.add(receipt.receipt_id, tombstones)
            if tombstones or plan.rows:
                write_mark(lake, _TRANSCRIPTS, receipt.receipt_id)
                _delete_rows(self._storage, self._planner.search, receipt)
            sweep(lake, receipt)
            if tombstones or plan.rows:
                # What a commit that was under way brought meanwhile, and what was written about it.
                _delete_rows(self._storage, self._planner.search, receipt)
                for place, step in list_steps():
                    if place.names or place.folder == REPORTS_FOLDER:
                        receipt.add(step(lake, ErasedSubjects()))
            _clean_logs(lake, receipt)
            if tombstones or plan.rows:
                receipt.path = erasures.write_receipt(receipt.receipt_id, vars(receipt))
                # Readers look through few versions of the log, and each erasure writes some.
                keep_superseded(lake, may_read_all=False)
        return receipt

    def make_receipt(self) -> Receipt:
        """The numbers of ``look``."""
        plan = self._plan or self.look()
        now = datetime.now(UTC)
        return Receipt(
            f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
            now.isoformat(timespec="seconds"),
            {name: len(values) for name, values in vars(self._subjects).items()},
            rows=dict(Counter(row["fingerprint"] for row in plan.rows)),
            recordings=plan.recordings,
            unknown=sum(map(len, vars(plan.unknown).values())),
        )


def forget(
    lake: Lake, subjects: Subjects, *, dry_run: bool = False, force: bool = False, leave_unhashed: bool = False
) -> Receipt:
    """Erases ``subjects`` as ``Erasure``; with ``dry_run`` it only counts."""
    erasure = Erasure(lake, subjects)
    erasure.look()
    return erasure.make_receipt() if dry_run else erasure.carry_out(force=force, leave_unhashed=leave_unhashed)


def sweep(lake: Lake, receipt: Receipt | None = None) -> Receipt:
    """Removes what any tombstone covers from all places of ``places.PLACES``, except the rows that readers see.

    It is part of each erasure. Called alone, it removes the leftovers of runs that worked during an erasure.
    """
    receipt = receipt or Receipt("", "", {})
    forbidden = Erasures(lake).read()
    if not forbidden:
        return receipt
    with _erase_errors(lake.uri or ""):
        # A run that does not know of it yet must not commit erased rows.
        write_mark(lake, _TRANSCRIPTS, receipt.receipt_id or "sweep")
        for _, step in list_steps():
            receipt.add(step(lake, forbidden))
        is_idle = not any(seen.is_alive for seen in LeaseStore(lake).read())
        for place in PLACES:
            receipt.add(remove_unfinished(lake, place.folder, is_idle=is_idle))
    return receipt


@contextmanager
def _erase_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, DeltaError) as error:  # their messages may quote a path
        raise RunError(f"cannot erase from {uri}: {type(error).__name__}; run the same command again") from error


def _clean_logs(lake: Lake, receipt: Receipt) -> None:
    """Cleans the Delta logs, in which older versions wrote texts and URIs of rows and the archive of a run."""
    for place in PLACES:
        if place.schema is None or place.personal in ("none", "ids"):
            continue
        storage = open_storage(lake, place.folder)
        if not has_table(storage):
            continue
        done = clean_log_of(storage, place.schema)
        receipt.log_files += done.cleaned
        receipt.log_files_left += done.left


def _delete_rows(storage: Storage, search: RowSearch, receipt: Receipt) -> None:
    """Deletes the rows that are found, until there are none."""
    for _ in range(PASSES):
        rows = search.find()
        if not rows:
            return
        ids = {row["recording_id"] for row in rows}
        receipt.files_deleted += remove_rows(storage, _TRANSCRIPTS, "recording_id", ids, search.files, receipt.receipt_id)
    raise RunError("erased rows came back again and again; stop the runs that write them, then run the same command again")
