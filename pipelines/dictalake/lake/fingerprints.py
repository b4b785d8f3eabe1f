"""The Delta table ``fingerprints``: which fingerprint is production, what each one stands for, and under which name it runs.

A record is never changed. The *production* fingerprint is the one that was promoted last; those that were promoted before it
come after it, the newest first. The first run of a lake promotes its own. A lake that was written before this table existed
gets one record for each fingerprint in it, all with the same time: they count together, as they did.
"""

from __future__ import annotations

import getpass
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
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
from dictalake.lake.places import FINGERPRINTS_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.schema import FINGERPRINTS, TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage

_TICK = timedelta(microseconds=1)  # what the lake's times can tell apart
_TURN = "dictalake.promotion"  # application transaction: of two promotions at once the second looks again


@dataclass(frozen=True, kw_only=True)
class FingerprintRecord:
    """A row of the table. ``schema.FINGERPRINTS`` documents the fields."""

    event: Literal["described", "promoted", "alias"]
    fingerprint: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    other: str | None = None
    run_id: str | None = None
    promoted_by: str | None = None
    parts: str | None = None


@dataclass(frozen=True)
class KnownFingerprints:
    """What the records say, oldest first."""

    records: tuple[FingerprintRecord, ...] = ()

    @property
    def promoted(self) -> tuple[tuple[str, ...], ...]:
        """The promoted fingerprints, the newest promotion first; those that were promoted together stand together."""
        newest = {one.fingerprint: one.at for one in self.records if one.event == "promoted"}
        times = sorted(set(newest.values()), reverse=True)
        return tuple(tuple(sorted(name for name, at in newest.items() if at == time)) for time in times)

    @property
    def production(self) -> str | None:
        """None where nothing was promoted, or several of an older lake count together."""
        first = self.promoted[:1]
        return first[0][0] if first and len(first[0]) == 1 else None

    @property
    def aliases(self) -> dict[str, str]:
        """Fingerprint → the name that the lake keeps for it."""
        return {one.fingerprint: one.other for one in self.records if one.event == "alias" and one.other is not None}

    def read_parts(self, fingerprint: str) -> dict[str, Any] | None:
        """What a fingerprint stands for; None where no run of 0.2 or later began with it."""
        found = [one.parts for one in self.records if one.event == "described" and one.fingerprint == fingerprint]
        return json.loads(found[-1]) if found and found[-1] else None

    def count_promotions(self, fingerprint: str) -> int:
        return sum(one.event == "promoted" and one.fingerprint == fingerprint for one in self.records)


class FingerprintLog:
    """The records of a lake; the table is created if it is missing. Raises ConfigError and RunError as TranscriptTable does."""

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, FINGERPRINTS_FOLDER)
        self._delta = open_or_create_table(
            self._storage, FINGERPRINTS, (), "dictalake: which fingerprint is production, and what each stands for"
        )

    def read(self) -> KnownFingerprints:
        return read_records(open_fingerprints(self._storage))

    def describe(self, fingerprint: str, parts: Mapping[str, Any], run_id: str) -> None:
        """Records once what a fingerprint stands for. Raises RunError."""
        if self.read().read_parts(fingerprint) is None:
            text = json.dumps(parts, sort_keys=True, default=str)
            self._append(FingerprintRecord(event="described", fingerprint=fingerprint, run_id=run_id, parts=text))

    def add_alias(self, fingerprint: str, name: str, run_id: str) -> None:
        """Records once that runs of ``fingerprint`` continue under ``name``. Raises RunError."""
        if self.read().aliases.get(fingerprint) != name:
            self._append(FingerprintRecord(event="alias", fingerprint=fingerprint, other=name, run_id=run_id))

    def keep_what_counts(self, there: Sequence[str]) -> None:
        """Has the fingerprints ``there``, of a lake in which nothing was promoted yet, count together as they do. Raises
        RunError."""
        at = datetime.now(UTC)
        records = [FingerprintRecord(event="promoted", fingerprint=name, at=at) for name in sorted(there)]
        if records:
            self._promote(lambda known: [] if known.promoted else records)

    def promote_first(self, fingerprint: str, run_id: str) -> None:
        """Makes the first run's fingerprint production, if nothing was promoted yet. Raises RunError."""
        first = FingerprintRecord(event="promoted", fingerprint=fingerprint, run_id=run_id)
        self._promote(lambda known: [] if known.promoted else [first])

    def promote(self, fingerprint: str, *, run_id: str | None = None, promoted_by: str | None = None) -> bool:
        """Makes ``fingerprint`` production; returns False where it is already. Raises RunError."""

        def record(known: KnownFingerprints) -> list[FingerprintRecord]:
            if known.production == fingerprint:
                return []
            # Of two machines with other clocks, the one that commits later counts.
            now = max([datetime.now(UTC), *(one.at + _TICK for one in known.records if one.event == "promoted")])
            before = known.production
            return [
                FingerprintRecord(
                    event="promoted", fingerprint=fingerprint, at=now, other=before, run_id=run_id, promoted_by=promoted_by
                )
            ]

        return self._promote(record)

    def _promote(self, make: Any) -> bool:
        """Commits what ``make`` says of the newest records, as long as no other promotion comes first."""

        def change() -> bool:
            self._delta.update_incremental()
            records = make(read_records(make_dataset(self._delta, self._storage, FINGERPRINTS)))
            if not records:
                return False
            last = self._delta.transaction_version(_TURN)
            turn = Transaction(_TURN, 0 if last is None else last + 1)
            properties = CommitProperties(app_transactions=[turn])
            options = dict(self._storage.delta_options)
            write_deltalake(
                self._delta, _to_table(records), mode="append", commit_properties=properties, storage_options=options
            )
            return True

        try:
            return retry_on_conflict(self._delta, change)
        except (OSError, DeltaError) as error:
            raise self._unwritable(error) from error

    def _append(self, record: FingerprintRecord) -> None:
        try:
            append_rows(self._storage, _to_table([record]))
        except (OSError, DeltaError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> RunError:
        return RunError(f"cannot write to the table at {self._storage.uri}: {type(error).__name__}; run the same command again")


def _to_table(records: Sequence[FingerprintRecord]) -> pa.Table:
    return pa.Table.from_pylist([asdict(record) for record in records], schema=without_docs(FINGERPRINTS))


def open_fingerprints(storage: Storage) -> ds.Dataset:
    """All records. A lake that no dictalake from 0.2 on wrote to has none."""
    return open_dataset(storage, FINGERPRINTS) if has_table(storage) else ds.dataset(FINGERPRINTS.empty_table())


def read_fingerprints(lake: Lake) -> KnownFingerprints:
    """The records of a lake, which is not changed. Raises RunError."""
    return read_records(open_fingerprints(open_storage(lake, FINGERPRINTS_FOLDER)))


def read_records(records: ds.Dataset) -> KnownFingerprints:
    """What ``open_fingerprints`` gave. Raises RunError."""
    try:
        rows = records.to_table().to_pylist()
    except OSError as error:
        raise RunError(
            f"cannot read the fingerprints of the lake: {type(error).__name__}; run the same command again"
        ) from error
    return KnownFingerprints(tuple(FingerprintRecord(**row) for row in sorted(rows, key=lambda row: row["at"])))


def list_fingerprints(lake: Lake) -> list[str]:
    """The fingerprints that have rows, from the log of the table alone. Raises RunError where there is no lake."""
    delta = open_table(open_storage(lake, TRANSCRIPTS_FOLDER), TRANSCRIPTS, to_read=True)
    return sorted({partition["fingerprint"] for partition in delta.partitions()})


def keep_what_counts(lake: Lake) -> None:
    """Before the first promotion in a lake that has rows: its fingerprints count together, as they did. Raises RunError."""
    if not read_fingerprints(lake).promoted and (there := list_fingerprints(lake)):
        FingerprintLog(lake).keep_what_counts(there)


def promote(lake: Lake, fingerprint: str) -> bool:
    """What ``dictalake promote`` does; returns False where ``fingerprint`` is production already.

    Raises ConfigError for a fingerprint that has no rows, RunError when the lake cannot be reached.
    """
    there = list_fingerprints(lake)
    known = read_fingerprints(lake)
    fingerprint = known.aliases.get(fingerprint, fingerprint) if fingerprint not in there else fingerprint
    if fingerprint not in there:
        raise ConfigError(f"{fingerprint}: the lake has no rows of this fingerprint; it has {', '.join(there) or 'none'}")
    keep_what_counts(lake)
    return FingerprintLog(lake).promote(fingerprint, promoted_by=name_operator())


def name_operator() -> str | None:
    """Who is at the keyboard: ``login@machine``."""
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (OSError, KeyError, ImportError):  # a container without a name for its user
        return None
