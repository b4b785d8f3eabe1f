"""Follows the log of a Delta table from one version on, and appends to it, without the list of the table's files.

delta-rs holds the list of all files of the table: it builds it anew at each commit, in 20 ms for each 1,000 files. A run needs
only what was committed since its last look. It reads these versions of the log one after the other, and writes the next one:
``_delta_log/<version>.json``, if nobody else has written it. That is the protocol's own rule, so it is safe beside delta-rs and
any other writer. The version is refused where another came first; the caller looks at what came and tries again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from dictalake.lake.delta import clean_up_log
from dictalake.lake.schema import PARTITIONS
from dictalake.lake.storage import Storage

_LAST_CHECKPOINT = "_delta_log/_last_checkpoint"
_PLAIN_WRITER, _PLAIN_READER = 2, 1  # protocol versions that ask nothing of an append that this module does not do
# Each reader of the table reads the log since the last checkpoint, and each checkpoint names every file: the more files there
# are, the rarer it is. So its share of a commit stays the same.
_CHECKPOINT_COMMITS, _FILES_PER_COMMIT = 25, 200


@dataclass(frozen=True)
class Commit:
    """What a version of the log says: the files that it adds (Delta's ``add`` actions), the paths of those that it removes, the
    application transactions with their versions, the commit info, and the table itself where it changes: its schema and
    properties (``metaData``) and what it asks of readers and writers (``protocol``)."""

    version: int
    adds: tuple[Mapping[str, Any], ...]
    removes: tuple[str, ...]
    transactions: Mapping[str, int]
    info: Mapping[str, Any]
    metadata: Mapping[str, Any] | None
    protocol: Mapping[str, Any] | None

    @property
    def is_of_table(self) -> bool:
        return self.metadata is not None or self.protocol is not None


@dataclass(frozen=True)
class Checkpoint:
    """The state of the table at a version, in one Parquet file, or in ``parts``."""

    version: int
    files: int
    parts: int = 1


class LogTail:
    """The log of the table at ``storage`` from the version of ``delta`` on. The methods raise OSError."""

    def __init__(self, storage: Storage, delta: DeltaTable) -> None:
        self._storage = storage
        self.version = 0
        self.can_append = False  # whether the table asks nothing of a writer that this module does not do
        self._checkpoint = Checkpoint(0, 0)
        self.restart(delta)

    def restart(self, delta: DeltaTable) -> None:
        """Continues from the version of ``delta``."""
        self._checkpoint = self._read_checkpoint()
        self.check(delta)
        self.version = int(delta.version())

    def check(self, delta: DeltaTable) -> None:
        """Takes note of what the table asks of a writer."""
        protocol = delta.protocol()
        self.can_append = is_plain(protocol.min_reader_version, protocol.min_writer_version)

    def read_new(self) -> list[Commit] | None:
        """What was committed after ``version``; None if the log no longer has all of it, because it is kept for a day.

        Call ``advance`` once it is taken in. Until then it counts as new: what fails halfway is read again.
        """
        commits: list[Commit] = []
        while True:
            commit = self._read(self.version + 1 + len(commits))
            if commit is not None:
                commits.append(commit)
                continue
            self._checkpoint = self._read_checkpoint()
            newest = self.version + len(commits)
            if self._checkpoint.version <= newest:
                break
            if self._read(newest + 1) is None:  # no new commit: the log was cleaned up
                return None
        return commits

    def advance(self, versions: int) -> None:
        """Continues after so many more versions, whose commits are known."""
        self.version += versions

    def append(self, adds: Sequence[Mapping[str, Any]], transactions: Mapping[str, int]) -> bool:
        """Writes the next version with these actions; returns False if there is one already. Does not advance.

        Raises OSError; the version may be there all the same.
        """
        info = {
            "timestamp": time.time_ns() // 1_000_000,
            "operation": "WRITE",
            "operationParameters": {"mode": "Append", "partitionBy": json.dumps(list(PARTITIONS))},
            "engineInfo": "dictalake",
        }
        actions: list[Mapping[str, Any]] = [{"commitInfo": info}]
        actions += [{"txn": {"appId": name, "version": version}} for name, version in transactions.items()]
        actions += [{"add": add} for add in adds]
        return write_commit(self._storage, self.version + 1, actions)

    def is_overtaken(self) -> bool:
        """Whether a checkpoint has reached the next version. Then others may have written that version and cleaned it up while
        this process slept, and what it has just written there is in the past, where no reader looks."""
        self._checkpoint = self._read_checkpoint()
        return self._checkpoint.version > self.version

    @property
    def is_due(self) -> bool:
        """Whether this version is one of which a checkpoint should be written."""
        since = self.version - self._checkpoint.version
        return since > 0 and since % (_CHECKPOINT_COMMITS + self._checkpoint.files // _FILES_PER_COMMIT) == 0

    def write_checkpoint(self) -> None:
        """Writes one if it is due, and removes what the log need not keep.

        A commit is done without it: what fails here is made up for by the next one.
        """
        if self.is_due and self.can_append:
            with suppress(OSError, DeltaError):
                delta = DeltaTable(self._storage.uri, storage_options=dict(self._storage.delta_options))
                delta.create_checkpoint()
                clean_up_log(delta)

    def _read(self, version: int) -> Commit | None:
        return read_commit(self._storage, version)

    def _read_checkpoint(self) -> Checkpoint:
        """The newest checkpoint. A table without one begins with its first version."""
        return read_checkpoint(self._storage) or Checkpoint(0, 0)


def is_plain(reader_version: int, writer_version: int) -> bool:
    """Whether a protocol asks nothing that this module does not do."""
    return reader_version <= _PLAIN_READER and writer_version <= _PLAIN_WRITER


def read_commit(storage: Storage, version: int) -> Commit | None:
    """None if there is no such version, or no longer. Raises OSError."""
    try:
        with storage.filesystem.open_input_stream(_name(version)) as stream:
            actions = [json.loads(line) for line in stream.read().decode().split("\n") if line]
    except FileNotFoundError:
        return None
    except ValueError as error:  # a writer on a disk may still be writing it
        raise OSError(f"version {version} of the log is no JSON") from error
    found = {name: [action[name] for action in actions if name in action] for name in ("add", "remove", "metaData", "protocol")}
    return Commit(
        version=version,
        adds=tuple(found["add"]),
        removes=tuple(remove["path"] for remove in found["remove"]),
        transactions={action["txn"]["appId"]: action["txn"]["version"] for action in actions if "txn" in action},
        info={name: value for action in actions for name, value in action.get("commitInfo", {}).items()},
        metadata=next(reversed(found["metaData"]), None),
        protocol=next(reversed(found["protocol"]), None),
    )


def write_commit(storage: Storage, version: int, actions: Sequence[Mapping[str, Any]]) -> bool:
    """Writes a version of the log; returns False if there is one already. Raises OSError; it may be there all the same."""
    content = "\n".join(json.dumps(action, separators=(",", ":")) for action in actions).encode()
    return storage.create_bytes(_name(version), content)


def read_checkpoint(storage: Storage) -> Checkpoint | None:
    """The newest checkpoint; None if there is none. Raises OSError."""
    try:
        with storage.filesystem.open_input_stream(_LAST_CHECKPOINT) as stream:
            found = json.loads(stream.read())
        files = int(found.get("numOfAddFiles") or found.get("size") or 0)
        return Checkpoint(int(found["version"]), files, int(found.get("parts") or 1))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        raise OSError(f"{_LAST_CHECKPOINT} does not name a version") from error


def _name(version: int) -> str:
    return f"_delta_log/{version:020}.json"
