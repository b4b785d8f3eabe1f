"""Tries out what a run does to a lake, in a folder of its own that is removed again, whatever happens."""

from __future__ import annotations

import time
import uuid

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import fs

from pipelines.config import Lake
from pipelines.errors import RunError
from pipelines.lake.storage import Storage, open_storage

_SCHEMA = pa.schema([pa.field("probe", pa.string())])


def probe_objects(lake: Lake) -> float:
    """Writes, lists, reads and removes an object the way data files are; returns by how many seconds the storage's clock is
    ahead of this machine's. Raises ConfigError, OSError, and RunError where it does not read what it wrote.
    """
    storage, content = _open_probe(lake), uuid.uuid4().hex.encode()
    try:
        now = time.time()
        storage.write_bytes("probe", content)
        (info,) = storage.filesystem.get_file_info(["probe"])
        listed = [found.base_name for found in storage.filesystem.get_file_info(fs.FileSelector("", recursive=True))]
        with storage.filesystem.open_input_stream("probe") as stream:
            read = stream.read()
        if read != content or listed != ["probe"]:
            raise RunError("the lake does not give what was written to it a moment ago: its storage is not consistent")
        return 0.0 if info.mtime is None else info.mtime.timestamp() - now
    finally:
        _remove(storage)


def probe_commits(lake: Lake) -> None:
    """Makes a Delta table, and makes sure that nobody can make it a second time: commits rest on that. Raises as above."""
    storage = _open_probe(lake)
    try:
        for is_first in (True, False):
            try:
                DeltaTable.create(storage.uri, _SCHEMA, storage_options=dict(storage.delta_options))
            except DeltaError as error:
                if is_first:
                    raise RunError(f"a Delta table cannot be made in the lake: {str(error).splitlines()[0][:200]}") from None
                return
        raise RunError("the storage lets two writers make the same version of a table: commits would be lost")
    finally:
        _remove(storage)


def _open_probe(lake: Lake) -> Storage:
    return open_storage(lake, f"doctor-{uuid.uuid4().hex}")


def _remove(storage: Storage) -> None:
    root, path = storage.filesystem.base_fs, storage.filesystem.base_path.rstrip("/")
    for info in root.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True)):
        if info.type == fs.FileType.File:
            root.delete_file(info.path)
    # What is left are folders: of the disk, or of pyarrow, which keeps the place of a deleted S3 object as an empty one.
    if not isinstance(root, fs.GcsFileSystem) and root.get_file_info([path])[0].type != fs.FileType.NotFound:
        root.delete_dir(path)
