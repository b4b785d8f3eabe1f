"""What people did to recordings: the Delta tables ``corrections`` and ``accesses``.

A record is never changed. The last record ``corrected`` or ``undone`` of a recording is what counts. A writer names the
record that it saw (``replaces``); if another one counts by then, it is refused and told which (``Conflict``). So two people,
also on two servers, never overwrite each other.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import (
    append_rows,
    has_table,
    make_dataset,
    open_dataset,
    open_or_create_table,
    open_table,
    retry_on_conflict,
)
from dictalake.lake.places import ACCESSES_FOLDER, CORRECTIONS_FOLDER
from dictalake.lake.schema import ACCESSES, CORRECTIONS
from dictalake.lake.storage import Storage, open_storage

FLAGS = ("unintelligible", "not_dictation", "wrong_patient", "sound_cut")
Sampling = Literal["random", "worst", "own"]
Access = Literal["page", "sound", "export", "list"]
_TURN = "dictalake.correction"  # application transaction: of two writers at once the second looks again
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class CorrectionRecord:
    """A row of the table. ``schema.CORRECTIONS`` documents the fields."""

    recording_id: str
    event: Literal["corrected", "undone", "claimed", "passed"]
    who: str
    correction_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    fingerprint: str | None = None
    attempt: int | None = None
    replaces: str | None = None
    old_sha256: str | None = None
    text: str | None = None
    flags: tuple[str, ...] = ()
    minutes: float | None = None
    confidence: float | None = None
    words: int | None = None
    word_errors: int | None = None
    sampling: Sampling | None = None


class Conflict(Exception):
    """Somebody else came first. ``record`` is what counts now; None: the machine's text."""

    def __init__(self, record: CorrectionRecord | None) -> None:
        super().__init__("another person changed this recording meanwhile")
        self.record = record


class Corrections:
    """All records of a lake, in memory. ``refresh`` reads what came since, other writers' too. The methods raise RunError.

    Threads may share one: a reader sees all records of some version of the table, never a part of them.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake, self._storage = lake, open_storage(lake, CORRECTIONS_FOLDER)
        self._lock = threading.RLock()  # a slow refresh must not bring back older records while another thread looks at them
        self._delta: DeltaTable | None = None
        self._version: int | None = None
        self.records: tuple[CorrectionRecord, ...] = ()
        self._of: dict[str, list[CorrectionRecord]] = {}

    @property
    def version(self) -> int | None:
        """That of the table; None where there is none yet."""
        return self._version

    def refresh(self) -> None:
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        if self._delta is None:
            if not has_table(self._storage):
                return
            self._delta = open_table(self._storage, CORRECTIONS, to_read=True)
        delta = self._delta
        try:
            delta.update_incremental()
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot read the table at {self._storage.uri}: {type(error).__name__}") from error
        if delta.version() == self._version:
            return
        try:
            rows = make_dataset(delta, self._storage, CORRECTIONS).to_table().sort_by([("at", "ascending")]).to_pylist()
        except OSError as error:
            raise RunError(f"cannot read the table at {self._storage.uri}: {type(error).__name__}") from error
        records = tuple(CorrectionRecord(**{**row, "flags": tuple(row["flags"] or ())}) for row in rows)
        of: dict[str, list[CorrectionRecord]] = {}
        for record in records:
            of.setdefault(record.recording_id, []).append(record)
        self.records, self._of, self._version = records, of, delta.version()

    def list_of(self, recording_id: str) -> Sequence[CorrectionRecord]:
        """What was done to a recording, oldest first."""
        return self._of.get(recording_id, ())

    def find_last(self, recording_id: str) -> CorrectionRecord | None:
        """The last record that was saved or undone; its text may be None."""
        return next((one for one in reversed(self.list_of(recording_id)) if one.event in ("corrected", "undone")), None)

    def find_current(self, recording_id: str) -> CorrectionRecord | None:
        """The correction that counts."""
        last = self.find_last(recording_id)
        return last if last is not None and last.text is not None else None

    def list_current(self) -> list[CorrectionRecord]:
        """The corrections that count, of all recordings, oldest first."""
        found = [self.find_current(recording_id) for recording_id in self._of]
        return sorted((one for one in found if one is not None), key=lambda one: one.at)

    def save(self, record: CorrectionRecord) -> CorrectionRecord:
        """Commits a correction. Raises Conflict where ``record.replaces`` is not what counts any more."""
        return self._commit(record, self._require_unchanged)

    def undo(self, recording_id: str, seen: str, who: str) -> CorrectionRecord:
        """Has what counted before the record ``seen`` count again; of an undone one, what was undone.

        Raises Conflict where something else counts by now.
        """
        self.refresh()
        by_id = {one.correction_id: one for one in self.list_of(recording_id)}
        undone = by_id.get(seen)
        if undone is None:
            raise Conflict(self.find_last(recording_id))
        before = by_id.get(undone.replaces or "")
        return self.save(
            CorrectionRecord(
                recording_id=recording_id,
                event="undone",
                who=who,
                replaces=seen,
                fingerprint=None if before is None else before.fingerprint,
                attempt=None if before is None else before.attempt,
                old_sha256=hash_text(undone.text),
                text=None if before is None else before.text,
                flags=() if before is None else before.flags,
                confidence=None if before is None else before.confidence,
                words=None if before is None else before.words,
                word_errors=None if before is None else before.word_errors,
                sampling=undone.sampling if before is None else before.sampling,
            )
        )

    def claim(self, recording_id: str, who: str, sampling: Sampling, since: datetime) -> bool:
        """Begins to check a recording; False where another person has since ``since``, or a correction is there."""

        def require_free(record: CorrectionRecord) -> None:
            if self.find_current(recording_id) is not None or self.find_claim(recording_id, since) not in (None, who):
                raise Conflict(self.find_last(recording_id))

        try:
            self._commit(CorrectionRecord(recording_id=recording_id, event="claimed", who=who, sampling=sampling), require_free)
        except Conflict:
            return False
        return True

    def leave(self, recording_id: str, who: str) -> None:
        """Gives a claimed recording back to the queue of others."""
        self._commit(CorrectionRecord(recording_id=recording_id, event="passed", who=who), lambda record: None)

    def find_claim(self, recording_id: str, since: datetime) -> str | None:
        """Who is at a recording: the last claim that its owner did not give back and that was not made before ``since``."""
        passed_by = set()
        for one in reversed(self.list_of(recording_id)):
            if one.event == "claimed":
                return one.who if one.at >= since and one.who not in passed_by else None
            if one.event != "passed":
                return None
            passed_by.add(one.who)
        return None

    def _require_unchanged(self, record: CorrectionRecord) -> None:
        last = self.find_last(record.recording_id)
        if (None if last is None else last.correction_id) != record.replaces:
            raise Conflict(last)

    def _commit(self, record: CorrectionRecord, check: Callable[[CorrectionRecord], None]) -> CorrectionRecord:
        try:
            delta = open_or_create_table(self._storage, CORRECTIONS, (), "dictalake: what people corrected")

            def change() -> CorrectionRecord:
                delta.update_incremental()
                with self._lock:
                    self.refresh()  # no older than ``delta``: what comes after that refuses the commit below
                    check(record)
                    times = [
                        one.at + _TICK for one in self.list_of(record.recording_id)
                    ]  # of two clocks the later commit counts
                timed = replace(record, at=max([record.at, *times]))
                last = delta.transaction_version(_TURN)
                turn = Transaction(_TURN, 0 if last is None else last + 1)
                rows = pa.Table.from_pylist([{**asdict(timed), "flags": list(timed.flags)}], schema=without_docs(CORRECTIONS))
                write_deltalake(
                    delta,
                    rows,
                    mode="append",
                    commit_properties=CommitProperties(app_transactions=[turn]),
                    storage_options=dict(self._storage.delta_options),
                )
                return timed

            done = retry_on_conflict(delta, change)
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot write to the table at {self._storage.uri}: {type(error).__name__}; try again") from error
        self.refresh()
        return done


def hash_text(text: str | None) -> str:
    return sha256((text or "").encode()).hexdigest()


def open_corrections(storage: Storage) -> ds.Dataset:
    """All records. A lake in which nobody corrected anything has none."""
    return open_dataset(storage, CORRECTIONS) if has_table(storage) else ds.dataset(CORRECTIONS.empty_table())


def open_accesses(storage: Storage) -> ds.Dataset:
    """All records of who opened what. A lake that nobody looked into has none."""
    return open_dataset(storage, ACCESSES) if has_table(storage) else ds.dataset(ACCESSES.empty_table())


def find_version(storage: Storage) -> int | None:
    """The version of the table of corrections; None where there is none."""
    return open_table(storage, CORRECTIONS, to_read=True).version() if has_table(storage) else None


class AccessLog:
    """Who opened which recording, and when. What cannot be written down is not shown: ``add`` raises RunError."""

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, ACCESSES_FOLDER)
        self._is_made = False

    def add(self, who: str, recording_ids: Sequence[str], what: Access) -> None:
        now = datetime.now(UTC)
        rows = [{"at": now, "who": who, "recording_id": one, "what": what} for one in recording_ids]
        try:
            # Again where a backup without it was put in the lake's place: an append would make one without its properties.
            if not self._is_made or not has_table(self._storage):
                open_or_create_table(self._storage, ACCESSES, (), "dictalake: who opened which recording")
                self._is_made = True
            append_rows(self._storage, pa.Table.from_pylist(rows, schema=without_docs(ACCESSES)))
        except (OSError, DeltaError) as error:
            raise RunError(
                f"cannot write down who opened a recording ({type(error).__name__}), so nothing is shown: check that "
                f"{self._storage.uri} can be written"
            ) from error
