"""Manifests in Parquet, with any of Arrow's types for text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dictalake.archive.manifest_rows import KEY, URI, Line, Notes, make_row, name_columns
from dictalake.errors import ConfigError

_BATCH_ROWS = 1024
_TEXT = ("is_string", "is_large_string", "is_string_view")
_BYTES = ("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary")


def read_parquet(source: BinaryIO, notes: Notes) -> Iterator[Line]:
    """The rows of the file. Columns of bytes, the audio itself for example, are not read.

    Raises ConfigError at the call where the file as a whole cannot be used, and while iterating where it is damaged.
    """
    try:
        file = pq.ParquetFile(source)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError):
        raise ConfigError(f"{KEY}: the file begins like Parquet but cannot be read; write it again") from None
    names = name_columns(schema.names)
    of_uri = schema.types[names.index(URI)]
    if not (_is_any(of_uri, *_TEXT, *_BYTES) or pa.types.is_null(of_uri)):
        raise ConfigError(f"{KEY}: its column `uri` holds {of_uri}; it must hold text")
    notes.left_out = [i + 1 for i, kind in enumerate(schema.types) if names[i] != URI and _holds_bytes(kind)]
    return _iterate(file, schema, names, notes)


def _iterate(file: pq.ParquetFile, schema: pa.Schema, names: list[str], notes: Notes) -> Iterator[Line]:
    left_out = {number - 1 for number in notes.left_out}
    wanted = {name for i, name in enumerate(schema.names) if i not in left_out}
    number = 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=sorted(wanted) if left_out else None):
            places = _find_places(batch.schema.names, schema.names)
            columns = [(names[i], _read_values(c)) for i, c in zip(places, batch.columns, strict=True) if i not in left_out]
            for index in range(batch.num_rows):
                number += 1
                fields = [(name, values[index]) for name, values in columns]
                place, content = f"row {number}", repr(fields).encode("utf-8", "backslashreplace")
                yield Line(place, content, partial(make_row, place, fields, content, notes))
    except (pa.ArrowException, OSError):
        raise ConfigError(f"{KEY}: the Parquet file is damaged after row {number}; write it again") from None


def _find_places(read: list[str], names: list[str]) -> list[int]:
    """Where each column that was ``read`` is among ``names``: it is asked for by a name, which several may share."""
    places = {name: iter([i for i, other in enumerate(names) if other == name]) for name in names}
    return [next(places[name]) for name in read]


def _read_values(column: pa.Array) -> list[Any]:
    """The values of a column; bytes for a text that is not UTF-8."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return [_read_value(scalar) for scalar in column]


def _read_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes() if _is_any(scalar.type, *_TEXT) else None
    except (ValueError, OverflowError):  # a time that Python cannot hold
        return scalar.cast(pa.string()).as_py()


def _is_any(kind: pa.DataType, *tests: str) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(getattr(pa.types, test)(kind) for test in tests)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return _is_any(kind, *_BYTES)
