"""The schema as a contract: documented from the code, additive from version to version, read across versions in real files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake

from jobs.schema import INFRA, check, main, write
from pipelines.config import Lake
from pipelines.errors import RunError
from pipelines.lake import contract
from pipelines.lake.contract import Difference, compare, find_breaks, list_columns, read_snapshots
from pipelines.lake.delta import open_dataset
from pipelines.lake.query import connect, open_lake
from pipelines.lake.runs import RunLog, RunRecord
from pipelines.lake.schema import PARTITIONS, RUNS, SCHEMA_VERSION, TRANSCRIPTS
from pipelines.lake.staging import write_staged
from pipelines.lake.storage import open_storage
from pipelines.lake.table import TranscriptTable
from tests.lake_rows import done_ids, make_row, make_rows

OLDER = sorted(set(read_snapshots()) - {SCHEMA_VERSION})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def fit(value: Any, kind: pa.DataType) -> Any:
    """``value`` without the fields of structs that ``kind`` does not have."""
    if value is not None and pa.types.is_struct(kind):
        kinds = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return {name: fit(value.get(name), inner) for name, inner in kinds.items()}
    if value is not None and pa.types.is_list(kind):
        return [fit(element, kind.value_type) for element in value]
    return value


def write_lake(lake: Lake, version: int, schemas: Mapping[str, pa.Schema], *recording_ids: str) -> None:
    """A lake as a dictalake with these schemas wrote it."""
    made = [make_row(one) for one in recording_ids]
    rows = [{field.name: fit(row.get(field.name), field.type) for field in schemas["transcripts"]} for row in made]
    started = {"run_id": "run-1", "event": "started", "at": datetime(2026, 3, 1, tzinfo=UTC), "recordings": len(rows)}
    for name, content in (("transcripts", rows), ("runs", [started])):
        uri, partitions = f"{lake.uri}/{name}", list(PARTITIONS) if name == "transcripts" else []
        properties = {"dictalake.schemaVersion": str(version)}
        DeltaTable.create(uri, schemas[name], partition_by=partitions, configuration=properties, raise_if_key_not_exists=False)
        table = pa.Table.from_pylist(content, schema=schemas[name])
        write_deltalake(uri, table, mode="append", partition_by=partitions or None)


def with_field(schema: pa.Schema, struct: str, field: pa.Field) -> pa.Schema:
    """``schema`` with one more field at the beginning of a struct."""
    place = schema.get_field_index(struct)
    kind = schema.field(place).type
    fields = [field, *(kind.field(i) for i in range(kind.num_fields))]
    return schema.set(place, schema.field(place).with_type(pa.struct(fields)))


def test_the_documents_in_infra_are_those_of_the_code_and_the_contract_is_kept() -> None:
    assert list(check(INFRA)) == []
    assert main(["--check"]) == 0


def test_check_names_what_is_not_current(tmp_path: Path) -> None:
    written = {str(path.relative_to(tmp_path)) for path in write(tmp_path)}
    assert {"schema.json", "schema.md", "bigquery/tables.sql", "bigquery/views/transcripts.sql"} <= written
    assert list(check(tmp_path)) == []
    with (tmp_path / "schema.md").open("a", encoding="utf-8") as file:
        file.write("by hand\n")
    (tmp_path / "schema.json").unlink()
    assert [problem.partition(" is")[0] for problem in check(tmp_path)] == ["schema.md", "schema.json"]


def test_every_column_is_documented_with_its_meaning_and_its_first_version() -> None:
    text = (INFRA / "schema.md").read_text(encoding="utf-8")
    columns = [column for table in contract.TABLES for column in list_columns(table)]
    assert all(column.doc for column in columns)
    assert all(f"`{column.path}`" in text for column in columns)
    since = {column.path: column.since for column in list_columns("transcripts")}
    assert {path: since[path] for path in ("text", "quality.dc_offset", "archive_id", "sections.name")} == {
        "text": 1,
        "quality.dc_offset": 2,
        "archive_id": 3,
        "sections.name": 5,
    }
    assert set(since.values()) <= set(range(1, SCHEMA_VERSION + 1))


def test_the_json_is_what_delta_lake_reads() -> None:
    document = json.loads((INFRA / "schema.json").read_text(encoding="utf-8"))
    assert document["schema_version"] == SCHEMA_VERSION
    for name, schema in contract.TABLES.items():
        again = Schema.from_json(json.dumps(document["tables"][name]["schema"]))
        assert pa.schema(again.to_arrow()).equals(schema, check_metadata=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.remove(s.get_field_index("nbest")), "nbest is gone; bring it back, null in new rows"),
        (lambda s: s.set(s.get_field_index("attempt"), pa.field("attempt", pa.int64(), False)), "attempt is of another type; "),
        (lambda s: s.set(s.get_field_index("text"), pa.field("text", pa.string(), False)), "text is of another type; "),
        (lambda s: s.append(pa.field("site", pa.string(), False)), "site was added and cannot be null, "),
        (lambda s: s.append(pa.field("site", pa.string())), "did not have site; raise SCHEMA_VERSION, "),
        (lambda s: with_field(s, "quality", pa.field("snr_db", pa.float32())), "did not have quality.snr_db; raise "),
    ],
    ids=["removed", "retyped", "made required", "added and required", "added without a version", "field added without one"],
)
def test_a_change_that_breaks_the_contract_is_named_with_what_to_do(change: Any, told: str) -> None:
    lines = find_breaks({**contract.TABLES, "transcripts": change(TRANSCRIPTS)}, read_snapshots(), SCHEMA_VERSION)
    assert any(line.startswith(f"transcripts, version {SCHEMA_VERSION}") and told in line for line in lines)


def test_columns_may_be_added_with_a_new_version_and_its_snapshot() -> None:
    new = with_field(TRANSCRIPTS, "quality", pa.field("snr_db", pa.float32())).append(pa.field("site", pa.string()))
    now = {**contract.TABLES, "transcripts": new}
    assert find_breaks(now, {**read_snapshots(), SCHEMA_VERSION + 1: now}, SCHEMA_VERSION + 1) == []
    [missing] = find_breaks(now, read_snapshots(), SCHEMA_VERSION + 1)
    assert missing == f"schemas/v{SCHEMA_VERSION + 1}.json is not there; dictalake schema --write makes it"


def test_a_table_that_is_gone_breaks_the_contract() -> None:
    now = {name: schema for name, schema in contract.TABLES.items() if name != "runs"}
    assert find_breaks(now, {1: {"runs": RUNS}, SCHEMA_VERSION: {}}, SCHEMA_VERSION) == [
        "runs, version 1: the table is gone; bring it back"
    ]


def test_compare_leaves_order_and_words_out_and_does_not_name_the_fields_of_a_missing_struct() -> None:
    assert compare(TRANSCRIPTS, pa.schema(list(contract.without_docs(TRANSCRIPTS))[::-1])) == Difference()
    assert compare(TRANSCRIPTS, TRANSCRIPTS.remove(TRANSCRIPTS.get_field_index("quality"))).missing == ("quality",)


@pytest.mark.parametrize("version", OLDER)
def test_an_older_lake_is_read_with_null_for_what_it_does_not_have(lake: Lake, version: int) -> None:
    write_lake(lake, version, read_snapshots()[version], "a", "b")
    rows = open_lake(str(lake.uri)).to_table()
    assert rows.schema.equals(TRANSCRIPTS)
    [quality] = {json.dumps(row["quality"]) for row in rows.to_pylist()}
    assert (json.loads(quality)["duration_s"], json.loads(quality)["markers_unknown"]) == (2.0, None)
    assert rows["sections"][0].as_py() == [{"heading": "FINDINGS", "name": None, "text": "No acute fracture."}]
    with connect(str(lake.uri)) as database:
        answer = database.sql("SELECT recording_id, text, name FROM transcript_sections ORDER BY ALL").fetchall()
        assert answer == [("a", "No acute fracture.", None), ("b", "No acute fracture.", None)]
        assert database.sql("SELECT state, recordings, job FROM runs").fetchall() == [("unfinished", 2, None)]
    assert RunLog(lake, must_exist=True).read().num_rows == 1


def test_a_newer_lake_is_read_without_what_it_has_besides(lake: Lake) -> None:
    newer = with_field(TRANSCRIPTS, "quality", pa.field("snr_db", pa.float32())).append(pa.field("site", pa.string()))
    write_lake(lake, SCHEMA_VERSION + 1, {"transcripts": newer, "runs": RUNS.append(pa.field("cost", pa.float64()))}, "a")
    transcripts = open_lake(str(lake.uri))
    assert transcripts.schema.equals(TRANSCRIPTS)
    assert transcripts.to_table().to_pylist()[0]["quality"] == make_row("a")["quality"]
    with connect(str(lake.uri)) as database:
        assert database.sql("SELECT count(*), any_value(quality.duration_s) FROM transcripts").fetchall() == [(1, 2.0)]
        assert database.sql("SELECT recordings FROM runs").fetchall() == [(1,)]


@pytest.mark.parametrize("version", OLDER)
def test_the_reader_of_an_older_version_reads_what_is_written_now(lake: Lake, version: int) -> None:
    TranscriptTable(lake).commit(write_staged(make_rows(["a"]), lake))
    theirs = read_snapshots()[version]["transcripts"]
    [row] = open_dataset(open_storage(lake, "transcripts"), theirs).to_table().to_pylist()
    [now] = open_lake(str(lake.uri)).to_table().to_pylist()
    assert row == {field.name: fit(now[field.name], field.type) for field in theirs}


def test_a_lake_whose_columns_have_other_types_is_not_read(lake: Lake) -> None:
    place = TRANSCRIPTS.get_field_index("confidence")
    theirs = TRANSCRIPTS.set(place, pa.field("confidence", pa.float64()))
    write_lake(lake, 9, {"transcripts": theirs, "runs": RUNS}, "a")
    with pytest.raises(RunError, match=r"version 9, this dictalake writes version \d: .* another type \['confidence'\]; use"):
        open_lake(str(lake.uri))


def test_writing_to_an_older_or_newer_lake_is_refused_with_what_to_do(lake: Lake, tmp_path: Path) -> None:
    write_lake(lake, 4, read_snapshots()[4], "a")
    with pytest.raises(RunError, match=r"missing \['sections\.name', .*; `dictalake schema --upgrade --lake\.uri LAKE` adds"):
        TranscriptTable(lake)
    newer = Lake.model_validate({"uri": str(tmp_path / "newer")})
    write_lake(newer, SCHEMA_VERSION + 1, {"transcripts": TRANSCRIPTS.append(pa.field("site", pa.string())), "runs": RUNS}, "a")
    with pytest.raises(RunError, match=r"unknown \['site'\], of another type none; a newer dictalake writes to it; update"):
        TranscriptTable(newer)


@pytest.mark.parametrize("version", OLDER)
def test_an_upgraded_lake_is_written_to_and_its_old_rows_stay(
    lake: Lake, version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lake(lake, version, read_snapshots()[version], "a", "b")
    files = sorted(Path(f"{lake.uri}/transcripts").rglob("*.parquet"))
    assert main(["--upgrade", "--lake.uri", str(lake.uri)]) == 0
    assert "quality.markers_repaired" in capsys.readouterr().out
    assert sorted(Path(f"{lake.uri}/transcripts").rglob("*.parquet")) == files
    table = TranscriptTable(lake)
    table.commit(write_staged(make_rows(["c"]), lake))
    RunLog(lake).append(RunRecord(run_id="run-2", event="started", job="backfill"))
    assert done_ids(table) == [("a", 0), ("b", 0), ("c", 0)]
    with connect(str(lake.uri)) as database:
        unknown = database.sql("SELECT recording_id, quality.markers_unknown FROM history ORDER BY ALL").fetchall()
        assert unknown == [("a", None), ("b", None), ("c", 1)]
        assert database.sql("SELECT run_id, job FROM runs ORDER BY ALL").fetchall() == [("run-1", None), ("run-2", "backfill")]
    main(["--upgrade", "--lake.uri", str(lake.uri)])
    assert capsys.readouterr().out.splitlines()[0] == f"transcripts: nothing to add; version {SCHEMA_VERSION}"


def test_upgrading_refuses_a_lake_of_a_newer_version_and_a_place_without_one(lake: Lake, tmp_path: Path) -> None:
    write_lake(lake, SCHEMA_VERSION + 1, {"transcripts": TRANSCRIPTS.append(pa.field("site", pa.string())), "runs": RUNS}, "a")
    with pytest.raises(RunError, match="a newer dictalake writes to it"):
        main(["--upgrade", "--lake.uri", str(lake.uri)])
    with pytest.raises(RunError, match="there is no dictalake table"):
        main(["--upgrade", "--lake.uri", str(tmp_path / "empty")])


def test_a_doc_that_was_worded_anew_does_not_keep_runs_from_a_lake(lake: Lake) -> None:
    words = pa.schema([field.with_metadata({"doc": "as it was said before"}) for field in RUNS])
    write_lake(lake, SCHEMA_VERSION, {"transcripts": TRANSCRIPTS, "runs": words}, "a")
    RunLog(lake).append(RunRecord(run_id="run-2", event="started"))
    assert RunLog(lake).read().num_rows == 2


def test_a_lake_without_rows_is_read(lake: Lake) -> None:
    TranscriptTable(lake)
    transcripts = open_lake(str(lake.uri))
    assert duckdb.sql("SELECT count(*) FROM transcripts").fetchall() == [(0,)]
    assert transcripts.schema.equals(TRANSCRIPTS)
