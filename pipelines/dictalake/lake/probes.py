"""Tries what a run does to a lake, in a new folder that is always removed afterwards."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from threading import Barrier

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction
from pyarrow import fs

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.storage import Storage, open_storage

_SCHEMA = pa.schema([pa.field("probe", pa.string())])
_WRITERS, _ROUNDS = 3, 3


@dataclass(frozen=True)
class Race:
    """``commits`` counts the confirmed commits of several writers at once; ``lost`` counts those missing in the table."""

    commits: int
    lost: int


def is_new(lake: Lake) -> bool:
    """Whether the lake is a local folder that does not exist yet. Raises ConfigError."""
    storage = open_storage(lake, "")
    return storage.is_local and not Path(storage.uri).exists()


def probe_objects(lake: Lake) -> float:
    """Writes, lists, reads and removes an object as a run does with data files.

    Returns how many seconds the storage's clock is ahead of this machine's. Raises ConfigError, OSError, and RunError if it
    does not read what it wrote, or overwrites what it must not.
    """
    content = uuid.uuid4().hex.encode()
    with _probe_folder(lake) as storage:
        now = time.time()
        storage.write_bytes("probe", content)
        (info,) = storage.filesystem.get_file_info(["probe"])
        listed = [found.base_name for found in storage.filesystem.get_file_info(fs.FileSelector("", recursive=True))]
        with storage.filesystem.open_input_stream("probe") as stream:
            read = stream.read()
        if read != content or listed != ["probe"]:
            raise RunError("the lake does not return what was just written to it: its storage is not consistent")
        if [storage.create_bytes("once", content) for _ in range(2)] != [True, False]:
            raise RunError("the lake writes an object that is there already, when it is asked not to: commits would be lost")
        return 0.0 if info.mtime is None else info.mtime.timestamp() - now


def probe_commits(lake: Lake) -> Race:
    """Has several writers commit to a Delta table at the same moment, a few times; each commit must be in it at the end.

    Commits one after the other would prove nothing, even from an old version, since delta-rs looks for a newer one before it
    writes. If writers look at the same time, only the storage can refuse all but one. The others try again on top of it, so
    none fails. Raises ConfigError, OSError, and RunError if the table cannot be made or a commit fails.
    """
    with _probe_folder(lake) as storage:
        options = dict(storage.delta_options)
        paths = [[f"round-{number}-writer-{writer}" for writer in range(_WRITERS)] for number in range(_ROUNDS)]
        try:
            DeltaTable.create(storage.uri, _SCHEMA, storage_options=options)
            tables = [DeltaTable(storage.uri, storage_options=options) for _ in range(_WRITERS)]
            with ThreadPoolExecutor(_WRITERS) as writers:
                for of_round in paths:
                    list(writers.map(_commit, tables, of_round, repeat(Barrier(_WRITERS))))
            found = {uri.rpartition("/")[2] for uri in DeltaTable(storage.uri, storage_options=options).file_uris()}
        except DeltaError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise RunError(f"cannot create a Delta table in the lake and write to it: {reason}") from None
    commits = {path for of_round in paths for path in of_round}
    return Race(len(commits), len(commits - found))


def _commit(table: DeltaTable, path: str, start: Barrier) -> None:
    """Commits like a run, but names a file that does not exist and that nobody will read."""
    action = AddAction(path, 1, {}, int(time.time() * 1000), True, "{}")
    start.wait()
    table.create_write_transaction([action], "append", _SCHEMA)


@contextmanager
def _probe_folder(lake: Lake) -> Iterator[Storage]:
    """A new folder below ``lake.uri``. Afterwards it is removed, with the folders above it that did not exist before."""
    storage = open_storage(lake, f"doctor-{uuid.uuid4().hex}")
    made = [folder for folder in Path(storage.uri).parents if not folder.exists()] if storage.is_local else []
    try:
        yield storage
    finally:
        try:
            _remove(storage)
        finally:
            for folder in made:  # the innermost first; a folder that a run has begun to fill stays
                with suppress(OSError):
                    folder.rmdir()


def _remove(storage: Storage) -> None:
    root, path = storage.filesystem.base_fs, storage.filesystem.base_path.rstrip("/")
    for info in root.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True)):
        if info.type == fs.FileType.File:
            root.delete_file(info.path)
    # Folders are left: on disk, and on S3, where pyarrow keeps the place of a deleted object as an empty folder.
    if not isinstance(root, fs.GcsFileSystem) and root.get_file_info([path])[0].type != fs.FileType.NotFound:
        root.delete_dir(path)
