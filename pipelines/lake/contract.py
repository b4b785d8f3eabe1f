"""The schemas as a contract with everyone who reads the lake: what each version held, and that a new version only adds.

``schemas/vN.json`` is version N as it was, in Delta Lake's own words, without the documentation. A version that was released is
never written again. A new one may add columns, and fields of structs, that may be null; what is there keeps its name, type and
meaning. So a new reader fills with null what an old file does not have, and an old reader passes over what it does not know.
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

from pipelines.lake.schema import ERASURES, PARTITIONS, RUNS, SCHEMA_VERSION, TRANSCRIPTS

TABLES = {"transcripts": TRANSCRIPTS, "runs": RUNS, "erasures": ERASURES}
_PARTITIONS = {"transcripts": PARTITIONS}
_SNAPSHOTS = Path(__file__).parent / "schemas"
_SNAPSHOT_NAME = re.compile(r"v(\d+)\.json")


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
    """Dotted paths: what is ``missing``, what is there and ``unknown``, what is of another type or requiredness; and those of
    the missing that cannot be null, so that no reader can fill them.
    """

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unfillable: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        return not (self.missing or self.unknown or self.changed)

    @property
    def is_readable(self) -> bool:
        """Whether one reads what the other wrote, with nulls for what is missing."""
        return not (self.changed or self.unfillable)

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("unknown", self.unknown), ("of another type", self.changed))
        return ", ".join(f"{what} {list(paths) or 'none'}" for what, paths in parts)


def compare(wanted: pa.Schema, there: pa.Schema) -> Difference:
    """What ``there`` lacks, has besides, and has otherwise than ``wanted``. Order and documentation do not count."""
    ours, theirs = dict(_walk(wanted)), dict(_walk(there))
    # The fields of a struct that is missing itself are not named too.
    missing = [path for path in ours if path not in theirs and path.rpartition(".")[0] not in ours.keys() - theirs.keys()]
    unknown = [path for path in theirs if path not in ours and path.rpartition(".")[0] not in theirs.keys() - ours.keys()]
    changed = [path for path in ours if path in theirs and _shape(ours[path]) != _shape(theirs[path])]
    return Difference(*map(tuple, (missing, unknown, changed, [path for path in missing if not ours[path].nullable])))


def list_columns(table: str) -> Iterator[Column]:
    """Every column of a table and every field in it, in order."""
    for path, field in _walk(TABLES[table]):
        doc = (field.metadata or {}).get(b"doc", b"").decode()
        yield Column(path, _name(field.type), not field.nullable, doc, _first_version(table, path))


def describe() -> dict[str, Any]:
    """All tables for machines: the version, and each table's schema in Delta Lake's JSON, documentation in the metadata."""
    tables = {
        name: {"partitions": list(_PARTITIONS.get(name, ())), "schema": json.loads(Schema.from_arrow(schema).to_json())}
        for name, schema in TABLES.items()
    }
    return {"schema_version": SCHEMA_VERSION, "tables": tables}


def make_snapshot() -> dict[str, Any]:
    """What ``schemas/vN.json`` holds of the present version."""
    tables = {name: json.loads(Schema.from_arrow(without_docs(schema)).to_json()) for name, schema in TABLES.items()}
    return {"schema_version": SCHEMA_VERSION, "tables": tables}


def snapshot_path(version: int) -> Path:
    return _SNAPSHOTS / f"v{version}.json"


@cache
def read_snapshots() -> dict[int, dict[str, pa.Schema]]:
    """Version → table → schema, the oldest version first."""
    found = {}
    for path in _SNAPSHOTS.glob("v*.json"):
        if match := _SNAPSHOT_NAME.fullmatch(path.name):
            tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
            found[int(match[1])] = {
                name: pa.schema(Schema.from_json(json.dumps(schema)).to_arrow()) for name, schema in tables.items()
            }
    return dict(sorted(found.items()))


def find_breaks(now: dict[str, pa.Schema], snapshots: dict[int, dict[str, pa.Schema]], version: int) -> list[str]:
    """One line for each way in which ``now``, which says to be ``version``, breaks the contract; none: it is kept."""
    lines = []
    for earlier, tables in snapshots.items():
        for name, schema in tables.items():
            where = f"{name}, version {earlier}"
            if name not in now:
                lines.append(f"{where}: the table is gone; bring it back")
                continue
            difference = compare(schema, now[name])
            lines += [f"{where}: {path} is gone; bring it back, null in new rows" for path in difference.missing]
            lines += [f"{where}: {path} is of another type; give the new one a new name" for path in difference.changed]
            added = compare(now[name], schema).unfillable
            lines += [f"{where}: {path} was added and cannot be null, old rows have none; let it be null" for path in added]
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
    kind = field.type
    if pa.types.is_list(kind):
        kind = pa.list_(_plain(kind.value_field))
    elif pa.types.is_struct(kind):
        kind = pa.struct([_plain(kind.field(i)) for i in range(kind.num_fields)])
    return pa.field(field.name, kind, field.nullable)


def _walk(fields: Any, path: str = "") -> Iterator[tuple[str, pa.Field]]:
    """Columns, and below them the fields of structs, also of structs in lists."""
    for field in fields:
        yield f"{path}{field.name}", field
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(kind):
            yield from _walk([kind.field(i) for i in range(kind.num_fields)], f"{path}{field.name}.")


def _shape(field: pa.Field) -> tuple[str, bool]:
    return _name(field.type), field.nullable


def _name(kind: pa.DataType) -> str:
    """Of a struct only that it is one: its fields are columns of their own here."""
    if pa.types.is_list(kind):
        return f"list<{_name(kind.value_type)}>"
    if pa.types.is_map(kind):
        return f"map<{_name(kind.key_type)}, {_name(kind.item_type)}>"
    return "struct" if pa.types.is_struct(kind) else str(kind)


def _first_version(table: str, path: str) -> int:
    for version, tables in read_snapshots().items():
        if table in tables and path in dict(_walk(tables[table])):
            return version
    return SCHEMA_VERSION
