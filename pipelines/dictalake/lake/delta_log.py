"""Removes values of rows from Delta's log: it may hold only values of the columns ``STATISTICS``.

The log keeps the minimum and maximum of each file's columns. Tables of versions 1 to 3 lacked the property that limits these
columns. So their commits and checkpoints hold whole texts and URIs, which outlive the rows; no vacuum removes them.
``clean_log`` does, while runs may be at work:

1. It adds the files of the newest version again with only the allowed statistics. This commit is refused if another came
   first, since a file that was removed meanwhile must not come back. A checkpoint of that version then holds no more.
2. It deletes older checkpoints that hold more, and rewrites older commits with the same actions but fewer statistics, which
   Delta's protocol allows. It does not delete these commits, since a run at work reads what was committed after its last look.

Afterwards time travel may no longer reach older versions. The log's retention starts anew for rewritten objects.

What was found clean is written down beside the log, and the next cleaning reads only what came since.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import fs

from dictalake.lake.delta import STATISTICS, find_lacking, open_table, retry_on_conflict, set_properties
from dictalake.lake.storage import Storage
from dictalake.lake.table_log import TableLog

_FOLDER = "_delta_log"
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet")
_THREADS = 16
_FILES_AT_ONCE = 4096  # of a checkpoint
_TRIES = 5
_VALUES = ("minValues", "maxValues")
_CLEAN = f"{_FOLDER}/_dictalake_clean.json"  # engines ignore what they do not know there
_COMMIT = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True)
class LogCleaning:
    """Files of the log that held more than they may: how many were ``cleaned``, and how many are ``left`` because a writer
    added them meanwhile."""

    cleaned: int = 0
    left: int = 0


def clean_log(delta: DeltaTable, storage: Storage, schema: pa.Schema) -> LogCleaning:
    """Removes the values of all columns but ``STATISTICS`` from the log of ``delta``, and keeps new ones out.

    It is safe to call again. Raises DeltaError and OSError.
    """
    retry_on_conflict(delta, lambda: set_properties(delta, schema))
    table_id = str(delta.metadata().id)
    found = _find_values(storage, table_id)
    if not found:
        return LogCleaning()
    allowed = {path: stats for files in found.values() for path, stats in files.items()}
    retry_on_conflict(delta, lambda: _name_anew(delta, allowed))
    newest = _write_checkpoint(storage)
    for path in sorted(found, key=_is_checkpoint):  # checkpoints last: a reader that opens the table now may be reading one
        with suppress(FileNotFoundError):  # it is past its retention, or another process cleaned it
            _clean_file(storage, path, newest)
    left = _find_values(storage, table_id)
    return LogCleaning(len(found.keys() - left.keys()), len(left))


def clean_log_of(storage: Storage, schema: pa.Schema) -> LogCleaning:
    """As ``clean_log``, of the table at ``storage``. Where there is nothing to do, no list of all files is in memory."""
    log = TableLog(storage, schema)
    if not find_lacking(log.configuration, schema) and not _find_values(storage, log.table_id):
        return LogCleaning()
    return clean_log(open_table(storage, schema), storage, schema)


def _is_checkpoint(path: str) -> bool:
    return not path.endswith(".json")


def _write_checkpoint(storage: Storage) -> int:
    """Returns its version. Another cleaning may delete the older checkpoint that it builds on; then it starts again."""
    for _ in range(_TRIES - 1):
        with suppress(DeltaError):
            return _try_checkpoint(storage)
    return _try_checkpoint(storage)


def _try_checkpoint(storage: Storage) -> int:
    newest = DeltaTable(storage.uri, storage_options=dict(storage.delta_options))
    newest.create_checkpoint()
    return int(newest.version())


def _find_values(storage: Storage, table_id: str) -> dict[str, dict[str, str]]:
    """Files of the log that hold too much → the data files concerned → the allowed statistics of each.

    Leaves out what an earlier look found clean, and writes down what this one does.
    """
    infos = storage.filesystem.get_file_info(fs.FileSelector(_FOLDER, allow_not_found=True))
    of_log = [info for info in infos if info.type == fs.FileType.File and info.path.endswith((".json", ".parquet"))]
    until, known = _read_clean(storage, table_id)
    commits = {info.path: int(match[1]) for info in of_log if (match := _COMMIT.fullmatch(info.base_name))}
    others = {info.path: [info.size, info.mtime_ns] for info in of_log if info.path not in commits and info.path != _CLEAN}
    names = [path for path, version in commits.items() if version > until]
    names += [path for path, state in others.items() if known.get(path) != state]

    def look(path: str) -> dict[str, str]:
        try:
            return {unquote(file["path"]): _limit(file["stats"]) for file in _read_files(storage, path) if _has_values(file)}
        except FileNotFoundError:
            return {}

    with ThreadPoolExecutor(_THREADS) as pool:
        found = {path: files for path, files in zip(names, pool.map(look, names), strict=True) if files}
    newest = _find_end(commits.values(), until)
    if not any(path in commits for path in found) and (names or newest != until):
        clean = {path: state for path, state in others.items() if path not in found}
        document = {"table": table_id, "until": newest, "others": clean}
        storage.write_bytes(_CLEAN, json.dumps(document).encode())
    return found


def _find_end(versions: Iterable[int], until: int) -> int:
    """The newest version up to which a listing has all from ``until`` on. It may lack one that is being written, and have the
    next; old ones it lacks because they were cleaned up."""
    listed = sorted(version for version in versions if version >= until)
    return next((before for before, after in pairwise(listed) if after != before + 1), listed[-1] if listed else until)


def _read_clean(storage: Storage, table_id: str) -> tuple[int, dict[str, list[int]]]:
    """The version up to which commits are known to be clean, and the other files of the log that are: path → size and time of
    change, as a checkpoint may be written anew under its name."""
    try:
        with storage.filesystem.open_input_stream(_CLEAN) as stream:
            document = json.loads(stream.read())
    except (FileNotFoundError, ValueError):
        return -1, {}
    return (int(document["until"]), document["others"]) if document["table"] == table_id else (-1, {})


def _read_files(storage: Storage, path: str) -> Iterator[Mapping[str, Any]]:
    """The data files that a commit or a checkpoint adds and removes, with at least their ``path`` and ``stats``."""
    if path.endswith(".json"):
        for line in _read_lines(storage, path):
            yield from _list_files(json.loads(line))
        return
    with storage.filesystem.open_input_file(path) as source:
        columns = [f"{kind}.{name}" for kind in ("add", "remove") for name in ("path", "stats")]
        for batch in pq.ParquetFile(source).iter_batches(_FILES_AT_ONCE, columns=columns):
            for row in batch.to_pylist():
                yield from _list_files(row)


def _read_lines(storage: Storage, path: str) -> list[str]:
    with storage.filesystem.open_input_stream(path) as stream:
        return [line for line in stream.read().decode().split("\n") if line]


def _list_files(action: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [file for kind in ("add", "remove") if (file := action.get(kind))]


def _has_values(file: Mapping[str, Any]) -> bool:
    """Whether it has the minimum or maximum of a column outside ``STATISTICS``."""
    stats = json.loads(file.get("stats") or "{}")
    return any(not _is_limited(stats.get(kind) or {}) for kind in _VALUES)


def _is_limited(values: Mapping[str, Any]) -> bool:
    """Whether all columns are allowed. delta-rs also includes fields of structs with these names: ``provenance.run_id``."""
    return all(_is_limited(value) if isinstance(value, dict) else name in STATISTICS for name, value in values.items())


def _limit(stats: str) -> str:
    """Statistics in Delta's JSON, without the columns that must not be there."""
    kept = json.loads(stats)
    for kind in (*_VALUES, "nullCount"):
        if kind in kept:
            kept[kind] = {name: value for name, value in (kept[kind] or {}).items() if name in STATISTICS}
    return json.dumps(kept, separators=(",", ":"))


def _name_anew(delta: DeltaTable, allowed: Mapping[str, str]) -> None:
    """Adds files of the newest version again with the statistics ``allowed`` (path → statistics)."""
    delta.update_incremental()
    files = pa.table(delta.get_add_actions()).to_pylist()
    actions: list[AddAction | RemoveAction] = [
        AddAction(
            path,
            file["size_bytes"],
            file.get("partition") or {},
            file["modification_time"],
            False,
            allowed[path],
        )
        for file in files
        if (path := unquote(file["path"])) in allowed  # AddAction encodes the path, but the list of files does not decode it
    ]
    if actions:
        delta.create_write_transaction(
            actions,
            mode="append",
            schema=delta.schema(),
            partition_by=delta.metadata().partition_columns,
            # Not on top of another commit, which may have removed such a file: an append would bring it back.
            commit_properties=CommitProperties(max_commit_retries=0),
        )


def _clean_file(storage: Storage, path: str, newest: int) -> None:
    """Cleans or deletes one file of the log. ``newest`` is the version of a checkpoint that is clean already."""
    if path.endswith(".json"):
        lines = [_limit_line(line) for line in _read_lines(storage, path)]
        storage.write_bytes(path, "\n".join(lines).encode())
    elif (match := _CHECKPOINT.fullmatch(path.rpartition("/")[2])) and int(match[1]) < newest:
        storage.filesystem.delete_file(path)


def _limit_line(line: str) -> str:
    action = json.loads(line)
    open_files = [file for file in _list_files(action) if _has_values(file)]
    for file in open_files:
        file["stats"] = _limit(file["stats"])
    return json.dumps(action, separators=(",", ":")) if open_files else line
