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
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable

from dictalake.lake.schema import PARTITIONS
from dictalake.lake.storage import Storage

_LAST_CHECKPOINT = "_delta_log/_last_checkpoint"
_PLAIN_WRITER, _PLAIN_READER = 2, 1  # protocol versions that ask nothing of an append that this module does not do
# Each reader of the table reads the log since the last checkpoint, and each checkpoint names every file: the more files there
# are, the rarer it is. So its share of a commit stays the same.
_CHECKPOINT_COMMITS, _FILES_PER_COMMIT = 25, 200


@dataclass(frozen=True)
class Commit:
    """What a version of the log says: the files that it adds (Delta's ``add`` actions), the application transactions with
    their versions, the commit info, and whether the table itself changes, its schema or its properties."""

    version: int
    adds: tuple[Mapping[str, Any], ...]
    transactions: Mapping[str, int]
    info: Mapping[str, Any]
    is_of_table: bool


@dataclass(frozen=True)
class _Checkpoint:
    version: int
    files: int


class LogTail:
    """The log of the table at ``storage`` from the version of ``delta`` on. The methods raise OSError."""

    def __init__(self, storage: Storage, delta: DeltaTable) -> None:
        self._storage = storage
        self.version = 0
        self.can_append = False  # whether the table asks nothing of a writer that this module does not do
        self._checkpoint = _Checkpoint(0, 0)
        self.restart(delta)

    def restart(self, delta: DeltaTable) -> None:
        """Continues from the version of ``delta``."""
        self.version = int(delta.version())
        self._checkpoint = self._read_checkpoint()
        self.check(delta)

    def check(self, delta: DeltaTable) -> None:
        """Takes note of what the table asks of a writer."""
        protocol = delta.protocol()
        self.can_append = protocol.min_writer_version <= _PLAIN_WRITER and protocol.min_reader_version <= _PLAIN_READER

    def read_new(self) -> list[Commit] | None:
        """What was committed since the last look; None if the log no longer has all of it, because it is kept for a day."""
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
        self.version += len(commits)
        return commits

    def append(self, adds: Sequence[Mapping[str, Any]], transactions: Mapping[str, int]) -> bool:
        """Writes the next version with these actions; returns False if there is one already.

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
        content = "\n".join(json.dumps(action, separators=(",", ":")) for action in actions).encode()
        if not self._storage.create_bytes(_name(self.version + 1), content):
            return False
        self.version += 1
        return True

    @property
    def is_due(self) -> bool:
        """Whether this version is one of which a checkpoint should be written."""
        since = self.version - self._checkpoint.version
        return since > 0 and since % (_CHECKPOINT_COMMITS + self._checkpoint.files // _FILES_PER_COMMIT) == 0

    def _read(self, version: int) -> Commit | None:
        try:
            with self._storage.filesystem.open_input_stream(_name(version)) as stream:
                actions = [json.loads(line) for line in stream.read().decode().splitlines() if line]
        except FileNotFoundError:
            return None
        return Commit(
            version=version,
            adds=tuple(action["add"] for action in actions if "add" in action),
            transactions={action["txn"]["appId"]: action["txn"]["version"] for action in actions if "txn" in action},
            info={name: value for action in actions for name, value in action.get("commitInfo", {}).items()},
            is_of_table=any("metaData" in action or "protocol" in action for action in actions),
        )

    def _read_checkpoint(self) -> _Checkpoint:
        """The newest checkpoint. A table without one begins with its first version."""
        try:
            with self._storage.filesystem.open_input_stream(_LAST_CHECKPOINT) as stream:
                found = json.loads(stream.read())
        except FileNotFoundError:
            return _Checkpoint(0, 0)
        return _Checkpoint(int(found["version"]), int(found.get("numOfAddFiles") or found.get("size") or 0))


def _name(version: int) -> str:
    return f"_delta_log/{version:020}.json"
