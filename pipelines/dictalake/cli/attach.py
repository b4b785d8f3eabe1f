"""Tables of one's own beside the views: ``dictalake query --attach other.csv``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from dictalake.errors import ConfigError

_READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".parquet": "read_parquet",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
}


def read_attachments(given: Sequence[str]) -> dict[str, Path]:
    """``FILE`` or ``NAME=FILE`` → the table's name and the file; a file's table is named after it. Raises ConfigError."""
    found: dict[str, Path] = {}
    for text in given:
        named, is_named, location = text.partition("=")
        path = Path(location if is_named else text)
        name = named if is_named else re.sub(r"\W", "_", path.stem)
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"--attach {text}: {name!r} is no name for a table; give one, --attach NAME={path}")
        if name in found:
            raise ConfigError(f"--attach {text}: there is a table {name} already; give another name, --attach NAME={path}")
        if path.suffix.lower() not in _READERS:
            raise ConfigError(f"--attach {text}: the name must end in {', '.join(_READERS)}")
        if not path.is_file():
            raise ConfigError(f"--attach {text}: there is no such file")
        found[name] = path
    return found


def attach(database: duckdb.DuckDBPyConnection, name: str, path: Path) -> None:
    """Reads a file into the table ``name`` before the connection is locked. Raises ConfigError."""
    there = database.execute("SELECT count(*) FROM duckdb_views() WHERE view_name = ?", [name]).fetchall()
    if there[0][0]:
        raise ConfigError(f"--attach {path}: {name} is a view of the lake; give another name, --attach NAME={path}")
    reader = _READERS[path.suffix.lower()]
    try:
        database.execute(f'CREATE TEMP TABLE "{name}" AS SELECT * FROM {reader}(?)', [str(path)])
    except duckdb.Error as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--attach {path}: cannot be read: {reason}") from None
