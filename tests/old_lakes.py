"""Lakes as a dictalake of another version of the schema wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from dictalake.config.sections import Lake
from dictalake.lake.contract import read_snapshots
from dictalake.lake.schema import PARTITIONS, SCHEMA_VERSION
from tests.lake_rows import make_row

OLDER = sorted(set(read_snapshots()) - {SCHEMA_VERSION})


def schemas_of(version: int) -> dict[str, pa.Schema]:
    """Of each table that version had."""
    return {name: table.schema for name, table in read_snapshots()[version].items()}


def fit(value: Any, kind: pa.DataType) -> Any:
    """``value`` without the fields of structs that ``kind`` does not have."""
    if value is not None and pa.types.is_struct(kind):
        kinds = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return {name: fit(value.get(name), inner) for name, inner in kinds.items()}
    if value is not None and pa.types.is_list(kind):
        return [fit(element, kind.value_type) for element in value]
    return value


def write_lake(lake: Lake, version: int, schemas: Mapping[str, pa.Schema], *recording_ids: str) -> None:
    """A lake as a dictalake with these schemas wrote it, without the properties that tables of versions 1 to 3 lacked."""
    write_rows(lake, version, schemas, [make_row(one) for one in recording_ids])


def write_rows(lake: Lake, version: int, schemas: Mapping[str, pa.Schema], made: Sequence[dict[str, Any]]) -> None:
    """The same of rows of today, which lose what the schemas do not have."""
    rows = [{field.name: fit(row.get(field.name), field.type) for field in schemas["transcripts"]} for row in made]
    started = {"run_id": "run-1", "event": "started", "at": datetime(2026, 3, 1, tzinfo=UTC), "recordings": len(rows)}
    for name, content in (("transcripts", rows), ("runs", [started])):
        uri, partitions = f"{lake.uri}/{name}", list(PARTITIONS) if name == "transcripts" else []
        properties = {"dictalake.schemaVersion": str(version)}
        DeltaTable.create(uri, schemas[name], partition_by=partitions, configuration=properties, raise_if_key_not_exists=False)
        table = pa.Table.from_pylist(content, schema=schemas[name])
        write_deltalake(uri, table, mode="append", partition_by=partitions or None)
