"""The schemas are a contract with everyone who reads the lake: they record each version, and a new version only adds.

``schemas/vN.json`` holds version N in Delta Lake's JSON, without the documentation, and each table's partitions. A released
version never changes. A new one may add columns, and fields of structs, that can be null. Existing columns keep their name,
type, partitioning and meaning. So a new reader fills with null what an old file lacks, and an old reader ignores what it does
not know. Readers of version 5 are the first that do so (``FORWARD_COMPATIBLE_SINCE``); those of versions 1 to 4 refuse a lake
of any other version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import Schema

from dictalake.lake.places import PLACES
from dictalake.lake.schema import DOC, SCHEMA_VERSION

# The first version whose code reads a lake of a newer version. It does not change when the version is raised.
FORWARD_COMPATIBLE_SINCE = 5
_SNAPSHOTS = Path(__file__).parent / "schemas"
_SNAPSHOT_NAME = re.compile(r"v(\d+)\.json")


@dataclass(frozen=True)
class Table:
    """Columns and partition columns of a table, in order."""

    schema: pa.Schema
    partitions: tuple[str, ...] = ()


TABLES = {place.folder: Table(place.schema, place.partitions) for place in PLACES if place.schema is not None}


@dataclass(frozen=True)
class Column:
    """A column or a field of one, ``quality.duration_s``. ``since`` is the first version that had it."""

    path: str
    kind: str
    is_required: bool
    doc: str
    since: int


@dataclass(frozen=True)
class Difference:
    """Columns as dotted paths: the ``missing`` ones, the ``unknown`` ones, those ``changed`` in type or nullability, and the
    missing ones that cannot be null, so that no reader can fill them. ``partitions`` are the table's, if they are wrong.
    """

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unfillable: tuple[str, ...] = ()
    partitions: tuple[str, ...] | None = None

    @property
    def is_none(self) -> bool:
        return not (self.missing or self.unknown or self.changed) and self.partitions is None

    @property
    def is_readable(self) -> bool:
        """Whether one can read what the other wrote, with nulls for what is missing."""
        return not (self.changed or self.unfillable) and self.partitions is None

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("unknown", self.unknown), ("of another type", self.changed))
        text = ", ".join(f"{what} {list(paths) or 'none'}" for what, paths in parts)
        return text if self.partitions is None else f"{text}, partitioned by {list(self.partitions) or 'none'}"


def compare(wanted: Table, there: Table) -> Difference:
    """How ``there`` differs from ``wanted``. Documentation and the order of columns do not count; the order of partitions
    does.
    """
    ours, theirs = dict(_walk(wanted.schema)), dict(_walk(there.schema))
    # Do not name the fields of a struct that is missing itself.
    missing = [path for path in ours if path not in theirs and path.rpartition(".")[0] not in ours.keys() - theirs.keys()]
    unknown = [path for path in theirs if path not in ours and path.rpartition(".")[0] not in theirs.keys() - ours.keys()]
    changed = [path for path in ours if path in theirs and _shape(ours[path]) != _shape(theirs[path])]
    unfillable = [path for path in missing if not ours[path].nullable]
    partitions = None if there.partitions == wanted.partitions else there.partitions
    return Difference(tuple(missing), tuple(unknown), tuple(changed), tuple(unfillable), partitions)


def list_columns(table: str) -> Iterator[Column]:
    """Every column of a table and every field in it, in order."""
    for path, field in _walk(TABLES[table].schema):
        doc = (field.metadata or {}).get(DOC.encode(), b"").decode()
        yield Column(path, _name(field.type), not field.nullable, doc, _first_version(table, path))


def describe() -> dict[str, Any]:
    """All tables for machines: the version, and each table's schema in Delta Lake's JSON with documentation as metadata."""
    tables = {name: _to_json(table.partitions, table.schema) for name, table in TABLES.items()}
    return {"schema_version": SCHEMA_VERSION, "tables": tables}


def make_snapshot() -> dict[str, Any]:
    """The content of ``schemas/vN.json`` for the present version."""
    tables = {name: _to_json(table.partitions, without_docs(table.schema)) for name, table in TABLES.items()}
    return {"schema_version": SCHEMA_VERSION, "tables": tables}


def _to_json(partitions: tuple[str, ...], schema: pa.Schema) -> dict[str, Any]:
    return {"partitions": list(partitions), "schema": json.loads(Schema.from_arrow(schema).to_json())}


def _from_json(table: dict[str, Any]) -> Table:
    return Table(pa.schema(Schema.from_json(json.dumps(table["schema"])).to_arrow()), tuple(table["partitions"]))


def snapshot_path(version: int) -> Path:
    return _SNAPSHOTS / f"v{version}.json"


@cache
def read_snapshots() -> dict[int, dict[str, Table]]:
    """Version → name → table, the oldest version first."""
    found = {}
    for path in _SNAPSHOTS.glob("v*.json"):
        if match := _SNAPSHOT_NAME.fullmatch(path.name):
            tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
            found[int(match[1])] = {name: _from_json(table) for name, table in tables.items()}
    return dict(sorted(found.items()))


def find_breaks(now: dict[str, Table], snapshots: dict[int, dict[str, Table]], version: int) -> list[str]:
    """A line for each way in which ``now`` as ``version`` breaks the contract; empty if it keeps it."""
    lines = []
    for earlier, tables in snapshots.items():
        for name, table in tables.items():
            where = f"{name}, version {earlier}"
            if name not in now:
                lines.append(f"{where}: the table is gone; bring it back")
                continue
            difference = compare(table, now[name])
            lines += [f"{where}: {path} is gone; bring it back, null in new rows" for path in difference.missing]
            lines += [f"{where}: {path} is of another type; give the new one a new name" for path in difference.changed]
            added = compare(now[name], table).unfillable
            lines += [f"{where}: {path} was added and cannot be null, old rows have none; let it be null" for path in added]
            if difference.partitions is not None:
                was, is_now = (" and ".join(columns) or "nothing" for columns in (table.partitions, difference.partitions))
                lines.append(f"{where}: was partitioned by {was}, is by {is_now}; leave the partitions as they were")
            if earlier == version and difference.unknown:
                what = ", ".join(difference.unknown)
                lines.append(f"{where} did not have {what}; raise SCHEMA_VERSION, then dictalake schema --write")
    if version not in snapshots:
        lines.append(f"schemas/v{version}.json is not there; dictalake schema --write makes it")
    return lines


def without_docs(schema: pa.Schema) -> pa.Schema:
    """``schema`` without the documentation of its columns."""
    return pa.schema([_plain(field) for field in schema])


def _plain(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _plain_type(field.type), field.nullable)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_field))
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_field), _plain(kind.item_field))
    if pa.types.is_struct(kind):
        return pa.struct([_plain(kind.field(i)) for i in range(kind.num_fields)])
    return kind


def _walk(fields: Any, path: str = "") -> Iterator[tuple[str, pa.Field]]:
    """Columns, and below them the fields of structs, also of structs in lists and as values of maps."""
    for field in fields:
        yield f"{path}{field.name}", field
        kind = field.type
        while pa.types.is_list(kind) or pa.types.is_map(kind):
            kind = kind.value_type if pa.types.is_list(kind) else kind.item_type
        if pa.types.is_struct(kind):
            yield from _walk([kind.field(i) for i in range(kind.num_fields)], f"{path}{field.name}.")


def _shape(field: pa.Field) -> tuple[str, bool]:
    return _name(field.type), field.nullable


def _name(kind: pa.DataType) -> str:
    """The type's name. A struct is only ``struct``, as its fields are listed as columns; a map's key is named in full."""
    if pa.types.is_list(kind):
        return f"list<{_name_inner(kind.value_field)}>"
    if pa.types.is_map(kind):
        return f"map<{kind.key_type}, {_name_inner(kind.item_field)}>"
    return "struct" if pa.types.is_struct(kind) else str(kind)


def _name_inner(field: pa.Field) -> str:
    return _name(field.type) if field.nullable else f"{_name(field.type)} not null"


def _first_version(table: str, path: str) -> int:
    for version, tables in read_snapshots().items():
        if table in tables and path in dict(_walk(tables[table].schema)):
            return version
    return SCHEMA_VERSION
