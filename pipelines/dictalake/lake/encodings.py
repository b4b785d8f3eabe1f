"""How the columns of a file of transcripts are encoded: what measured smallest (``docs/performance.md``).

Words, their times on the grid of the model's frames and their confidences in thousandths repeat, so a dictionary is best.
Texts and hashes do not, and a dictionary would only be in the way. BYTE_STREAM_SPLIT would save another byte and a half a row,
but engines that people still use cannot read it.

pyarrow writes new files, and delta-rs those of compaction and erasure. delta-rs takes properties of columns at the top level
alone; fields of structs get a dictionary there, which costs 2 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties

_LEVEL = 9  # of zstd: 6 % smaller than 3, in 0.03 ms more a row
# Minima and maxima in a file's footer let a reader skip it. Those of texts would take as much room as a tenth of the texts.
_WITH_STATISTICS = ("recording_id", "status", "run_id", "attempt", "archive_id", "confidence")
_LONGEST_STATISTIC = 32  # characters; an id has as many
_TEXT: Final = "DELTA_LENGTH_BYTE_ARRAY"
_COUNTING: Final = "DELTA_BINARY_PACKED"
_ENCODINGS = {
    **dict.fromkeys(
        (
            "recording_id",
            "text",
            "text_raw",
            "sections.list.element.text",
            "nbest.list.element.text",
            "source.uri",
            "source.version",
            "source.sha256",
            "dicom.sop_instance_uid",
        ),
        _TEXT,
    ),
    **dict.fromkeys(
        ("source.size_bytes", "source.modified_at", "provenance.transcribed_at", "dicom.content_datetime"), _COUNTING
    ),
}
_MEASURES = ("quality", "timings", "nbest")  # their numbers hardly repeat


def find_encodings(schema: pa.Schema) -> dict[str, str]:
    """The encoding of each Parquet column of ``schema`` that gets no dictionary."""
    leaves = {path: kind for field in schema for path, kind in _list_leaves(field.name, field.type)}
    measures = {path: "PLAIN" for path, kind in leaves.items() if path.startswith(_MEASURES) and pa.types.is_floating(kind)}
    return measures | {path: encoding for path, encoding in _ENCODINGS.items() if path in leaves}


def make_options(schema: pa.Schema) -> dict[str, Any]:
    """The options of ``pyarrow.parquet.write_table``."""
    encodings = find_encodings(schema)
    leaves = [path for field in schema for path, _ in _list_leaves(field.name, field.type)]
    return {
        "compression": "zstd",
        "compression_level": _LEVEL,
        "use_dictionary": [path for path in leaves if path not in encodings],
        "column_encoding": encodings,
        "write_statistics": [path for path in leaves if path in _WITH_STATISTICS],
        # Docs and types are in the transaction log; Arrow's own copy of the schema would add 8 KB to every file.
        "store_schema": False,
    }


def make_writer_properties(schema: pa.Schema) -> WriterProperties:
    """The same for delta-rs, as far as it goes."""
    columns = {
        name: ColumnProperties(dictionary_enabled=False, encoding=_TEXT, statistics_enabled="CHUNK")
        for name, encoding in find_encodings(schema).items()
        if name in schema.names and encoding == _TEXT
    }
    return WriterProperties(
        compression="ZSTD",
        compression_level=_LEVEL,
        statistics_truncate_length=_LONGEST_STATISTIC,
        default_column_properties=ColumnProperties(statistics_enabled="CHUNK"),
        column_properties=columns,
    )


def _list_leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The paths of a field's Parquet columns, and their types."""
    if pa.types.is_struct(kind):
        for child in kind:
            yield from _list_leaves(f"{path}.{child.name}", child.type)
    elif pa.types.is_map(kind):
        yield from _list_leaves(f"{path}.key_value.key", kind.key_type)
        yield from _list_leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind):
        yield from _list_leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind
