"""Remembers what was erased, so that it does not come back: tombstones in the Delta table ``erasures``, and receipts.

A tombstone is the hash of a URI, of a study's UID, or of a keyed patient hash. It outlives the rows, so that no later run,
model or version of the object brings them back. The hash covers the kind and the value, without a key: a person who knows a
URI can find out that it was erased, but nobody can read the URI from the hash. Neither tombstones nor receipts hold content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError

from dictalake.config.sections import PATIENT_HASHES, Lake
from dictalake.errors import RunError
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import has_table, open_dataset, open_or_create_table, read_parquet
from dictalake.lake.places import ERASURES_FOLDER
from dictalake.lake.schema import ERASURES
from dictalake.lake.storage import open_storage
from dictalake.records import list_subject_uris


def hash_subject(kind: str, value: str) -> str:
    """blake2b-128 of ``kind`` (uri, study, patient) and ``value``, 32 hex digits."""
    return blake2b(f"{kind}\n{value}".encode(), digest_size=16).hexdigest()


def hash_version(uri: str, version: str) -> str:
    """Of what a URI led to at one version: that of a path through a link, which may lead to other files later."""
    return hash_subject("version", f"{uri}\n{version}")


@dataclass(frozen=True)
class ErasedSubjects:
    """The hashes of what was erased and must not be transcribed again."""

    hashes: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def covers_uri(self, uri: str) -> bool:
        """Whether what has this very URI was erased."""
        return bool(self.hashes) and hash_subject("uri", uri) in self.hashes

    def covers_place(self, uri: str) -> bool:
        """Whether this URI was the name of something erased, which may be a path through a link."""
        return self.covers_uri(uri) or (bool(self.hashes) and hash_subject("place", uri) in self.hashes)

    def covers_name(self, uri: str) -> bool:
        """Whether this URI was named for an erasure: also that of a manifest with bad lines, of which others may come."""
        return self.covers_uri(uri) or (bool(self.hashes) and hash_subject("list", uri) in self.hashes)

    def covers_recording(self, uri: str, version: str | None = None, archive_id: str | None = None) -> bool:
        """Whether a recording was erased, or the archive object or manifest that it is in (``list_subject_uris``)."""
        return bool(self.hashes) and any(
            self.covers_uri(one) or hash_version(one, version or "") in self.hashes
            for one in list_subject_uris(uri, version, archive_id)
        )

    def covers_dicom(self, dicom: Mapping[str, Any] | None) -> bool:
        """Whether the study, or the patient by hash, was erased."""
        if not self.hashes or not dicom:
            return False
        study = dicom.get("study_instance_uid")
        patients = [dicom.get(name) for name in PATIENT_HASHES.values()]
        subjects = [hash_subject("study", study)] if study else []
        subjects += [hash_subject("patient", value) for value in patients if value]
        return not self.hashes.isdisjoint(subjects)


@dataclass(frozen=True)
class Tombstone:
    """One hash that is kept out."""

    kind: str
    subject: str


class Erasures:
    """The tombstones of a lake. The methods raise RunError when they cannot be read or written."""

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, ERASURES_FOLDER)
        self._delta = open_or_create_table(self._storage, ERASURES, (), "dictalake: hashes of what was erased and stays out")

    def add(self, receipt_id: str, tombstones: Iterable[Tombstone]) -> None:
        """Commits tombstones. From now on every run that reads them leaves these recordings out."""
        now = datetime.now(UTC)
        rows = [{"receipt_id": receipt_id, "at": now, **vars(tombstone)} for tombstone in tombstones]
        try:
            write_deltalake(
                self._storage.uri,
                pa.Table.from_pylist(rows, schema=without_docs(ERASURES)),
                mode="append",
                storage_options=dict(self._storage.delta_options),
            )
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot write tombstones to {self._storage.uri}: {type(error).__name__}") from error

    def read(self) -> ErasedSubjects:
        """Everything that was erased so far."""
        try:
            self._delta.update_incremental()
            paths = pa.table(self._delta.get_add_actions(flatten=True))["path"].to_pylist()
            files = read_parquet(paths, ERASURES, self._storage)
            return ErasedSubjects(frozenset(files.to_table(columns=["subject"])["subject"].to_pylist()))
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot read the tombstones at {self._storage.uri}: {type(error).__name__}") from error

    def write_receipt(self, receipt_id: str, receipt: Mapping[str, Any]) -> str:
        """Writes what an erasure did, in numbers, beside the tombstones; returns the path below the lake."""
        path = f"receipts/{receipt_id}.json"
        try:
            self._storage.write_bytes(path, json.dumps(receipt, indent=1).encode())
        except OSError as error:
            raise RunError(f"cannot write the receipt to {self._storage.uri}: {type(error).__name__}") from error
        return f"{ERASURES_FOLDER}/{path}"


def read_erased(lake: Lake) -> ErasedSubjects:
    """Everything that was erased so far. A lake without tombstones gets no table of them. Raises RunError, OSError."""
    storage = open_storage(lake, ERASURES_FOLDER)
    if not has_table(storage):
        return ErasedSubjects()
    return ErasedSubjects(frozenset(open_dataset(storage, ERASURES).to_table(columns=["subject"])["subject"].to_pylist()))
