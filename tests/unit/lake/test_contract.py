"""The schema as a contract: documented from the code, additive from version to version, read across versions in real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema

from dictalake.cli.main import run_command
from dictalake.cli.schema import INFRA, check, write
from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake import contract
from dictalake.lake.contract import (
    FORWARD_COMPATIBLE_SINCE,
    Difference,
    Table,
    compare,
    find_breaks,
    list_columns,
    read_snapshots,
)
from dictalake.lake.delta import open_dataset, open_table, set_properties
from dictalake.lake.query import connect, open_lake
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import ERASURES, PARTITIONS, RUNS, SCHEMA_VERSION, TRANSCRIPTS
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import done_ids, make_row, make_rows
from tests.old_lakes import OLDER, fit, schemas_of, write_lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def with_field(schema: pa.Schema, struct: str, field: pa.Field) -> pa.Schema:
    """``schema`` with one more field at the beginning of a struct."""
    place = schema.get_field_index(struct)
    kind = schema.field(place).type
    fields = [field, *(kind.field(i) for i in range(kind.num_fields))]
    return schema.set(place, schema.field(place).with_type(pa.struct(fields)))


def test_the_documents_in_infra_are_those_of_the_code_and_the_contract_is_kept() -> None:
    assert list(check(INFRA)) == []
    assert run_command("schema", ["--check"]) == 0


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
    assert {path: since[path] for path in ("text", "quality.dc_offset", "archive_id", "sections.name", "quality.lost_s")} == {
        "text": 1,
        "quality.dc_offset": 2,
        "archive_id": 3,
        "sections.name": 5,
        "quality.lost_s": 6,
    }
    assert set(since.values()) <= set(range(1, SCHEMA_VERSION + 1))


def test_the_json_is_what_delta_lake_reads() -> None:
    document = json.loads((INFRA / "schema.json").read_text(encoding="utf-8"))
    assert document["schema_version"] == SCHEMA_VERSION
    for name, table in contract.TABLES.items():
        again = Schema.from_json(json.dumps(document["tables"][name]["schema"]))
        assert pa.schema(again.to_arrow()).equals(table.schema, check_metadata=True)
        assert document["tables"][name]["partitions"] == list(table.partitions)


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
    changed = Table(change(TRANSCRIPTS), PARTITIONS)
    lines = find_breaks({**contract.TABLES, "transcripts": changed}, read_snapshots(), SCHEMA_VERSION)
    assert any(line.startswith(f"transcripts, version {SCHEMA_VERSION}") and told in line for line in lines)


def test_columns_may_be_added_with_a_new_version_and_its_snapshot() -> None:
    new = with_field(TRANSCRIPTS, "quality", pa.field("snr_db", pa.float32())).append(pa.field("site", pa.string()))
    now = {**contract.TABLES, "transcripts": Table(new, PARTITIONS)}
    assert find_breaks(now, {**read_snapshots(), SCHEMA_VERSION + 1: now}, SCHEMA_VERSION + 1) == []
    [missing] = find_breaks(now, read_snapshots(), SCHEMA_VERSION + 1)
    assert missing == f"schemas/v{SCHEMA_VERSION + 1}.json is not there; dictalake schema --write makes it"


def test_a_table_that_is_gone_breaks_the_contract() -> None:
    now = {name: table for name, table in contract.TABLES.items() if name != "runs"}
    assert find_breaks(now, {1: {"runs": Table(RUNS)}, SCHEMA_VERSION: {}}, SCHEMA_VERSION) == [
        "runs, version 1: the table is gone; bring it back"
    ]


def test_compare_leaves_order_and_words_out_and_does_not_name_the_fields_of_a_missing_struct() -> None:
    turned = pa.schema(list(contract.without_docs(TRANSCRIPTS))[::-1])
    assert compare(Table(TRANSCRIPTS), Table(turned)) == Difference()
    without = TRANSCRIPTS.remove(TRANSCRIPTS.get_field_index("quality"))
    assert compare(Table(TRANSCRIPTS), Table(without)).missing == ("quality",)


_SCORE, _SCORED = pa.field("score", pa.int32()), pa.field("score", pa.int64())


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        (pa.list_(pa.field("element", pa.string())), pa.list_(pa.field("element", pa.string(), nullable=False))),
        (pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.field("value", pa.int64(), nullable=False))),
        (pa.list_(pa.map_(pa.string(), pa.int64())), pa.list_(pa.map_(pa.string(), pa.int32()))),
        (pa.map_(pa.struct([_SCORE]), pa.int64()), pa.map_(pa.struct([_SCORED]), pa.int64())),
    ],
    ids=["list element", "map value", "map in a list", "struct as a key"],
)
def test_what_a_list_or_a_map_is_of_counts_and_whether_it_may_be_null(was: pa.DataType, is_now: pa.DataType) -> None:
    ours, theirs = Table(pa.schema([pa.field("marks", was)])), Table(pa.schema([pa.field("marks", is_now)]))
    assert compare(ours, theirs) == Difference(changed=("marks",))
    assert compare(theirs, ours) == Difference(changed=("marks",))


@pytest.mark.parametrize("wrap", [lambda kind: kind, lambda kind: pa.list_(kind)], ids=["map", "list of maps"])
def test_fields_of_structs_in_maps_are_columns_too(wrap: Any) -> None:
    def make(*fields: pa.Field) -> Table:
        return Table(pa.schema([pa.field("scores", wrap(pa.map_(pa.string(), pa.struct(list(fields)))))]))

    site = pa.field("site", pa.string())
    assert compare(make(_SCORE), make(_SCORED)) == Difference(changed=("scores.score",))
    assert compare(make(_SCORE, site), make(_SCORE)) == Difference(missing=("scores.site",))
    documented = make(_SCORE.with_metadata({"comment": "1 to 5"})).schema
    assert contract.without_docs(documented).equals(make(_SCORE).schema, check_metadata=True)


def test_every_version_says_by_what_its_tables_are_partitioned() -> None:
    assert {version: tables["transcripts"].partitions for version, tables in read_snapshots().items()} == dict.fromkeys(
        range(1, SCHEMA_VERSION + 1), PARTITIONS
    )
    assert read_snapshots()[4]["erasures"] == Table(contract.without_docs(ERASURES))
    assert {column.since for column in list_columns("erasures")} == {4}


@pytest.mark.parametrize(
    ("partitions", "told"),
    [((), "nothing"), (PARTITIONS[::-1], "recorded_month and fingerprint"), (("run_id",), "run_id")],
    ids=["none", "in another order", "another column"],
)
def test_other_partitions_break_the_contract(partitions: tuple[str, ...], told: str) -> None:
    lines = find_breaks({**contract.TABLES, "transcripts": Table(TRANSCRIPTS, partitions)}, read_snapshots(), SCHEMA_VERSION)
    assert lines == [
        f"transcripts, version {version}: was partitioned by fingerprint and recorded_month, is by {told}; "
        "leave the partitions as they were"
        for version in read_snapshots()
    ]


@pytest.mark.parametrize("version", OLDER)
def test_an_older_lake_is_read_with_null_for_what_it_does_not_have(lake: Lake, version: int) -> None:
    write_lake(lake, version, schemas_of(version), "a", "b")
    rows = open_lake(str(lake.uri)).to_table()
    assert rows.schema.equals(TRANSCRIPTS)
    [quality] = {json.dumps(row["quality"]) for row in rows.to_pylist()}
    quality = json.loads(quality)
    assert (quality["duration_s"], quality["lost_s"], quality["repairs"]) == (2.0, None, None)
    assert (rows["source"][0]["loader"].as_py(), rows["source"][0]["tracks"].as_py()) == (None, None)
    name = "FINDINGS" if version >= 5 else None
    assert rows["sections"][0].as_py() == [{"heading": "FINDINGS", "name": name, "text": "No acute fracture."}]
    with connect(str(lake.uri)) as database:
        answer = database.sql("SELECT recording_id, text, name FROM transcript_sections ORDER BY ALL").fetchall()
        assert answer == [("a", "No acute fracture.", name), ("b", "No acute fracture.", name)]
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
def test_todays_reader_reads_with_the_schema_of_an_older_version_what_is_written_now(lake: Lake, version: int) -> None:
    """As a dictalake of a version will read, once it is old. The readers of versions 1 to 4 looked for their own version."""
    TranscriptTable(lake).commit(write_staged(make_rows(["a"]), lake))
    theirs = schemas_of(version)["transcripts"]
    [row] = open_dataset(open_storage(lake, "transcripts"), theirs).to_table().to_pylist()
    [now] = open_lake(str(lake.uri)).to_table().to_pylist()
    assert row == {field.name: fit(now[field.name], field.type) for field in theirs}


def test_a_lake_whose_columns_have_other_types_is_not_read(lake: Lake) -> None:
    place = TRANSCRIPTS.get_field_index("confidence")
    theirs = TRANSCRIPTS.set(place, pa.field("confidence", pa.float64()))
    write_lake(lake, 9, {"transcripts": theirs, "runs": RUNS}, "a")
    with pytest.raises(RunError, match=r"version 9, this dictalake writes version \d: .* another type \['confidence'\]; use"):
        open_lake(str(lake.uri))


def test_the_contract_says_since_which_version_an_older_dictalake_reads_a_newer_lake() -> None:
    text = (INFRA / "schema.md").read_text(encoding="utf-8")
    assert FORWARD_COMPATIBLE_SINCE == 5
    assert "an older one a newer lake, from version 5 on; older ones refuse the lake of any other version" in text


@pytest.mark.parametrize("to_read", [True, False])
def test_a_table_with_other_partitions_is_neither_read_nor_written_nor_upgraded(lake: Lake, to_read: bool) -> None:
    storage = open_storage(lake, "transcripts")
    properties = {"dictalake.schemaVersion": str(SCHEMA_VERSION)}
    DeltaTable.create(
        storage.uri,
        TRANSCRIPTS,
        partition_by=["recorded_month"],
        configuration=properties,
        raise_if_key_not_exists=False,
    )
    with pytest.raises(RunError, match=r"another type none, partitioned by \['recorded_month'\]; use the dictalake that"):
        open_table(storage, TRANSCRIPTS, to_read=to_read)
    with pytest.raises(RunError, match="partitioned by"):
        run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])


def test_writing_to_an_older_or_newer_lake_is_refused_with_what_to_do(lake: Lake, tmp_path: Path) -> None:
    write_lake(lake, 4, schemas_of(4), "a")
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
    write_lake(lake, version, schemas_of(version), "a", "b")
    files = sorted(Path(f"{lake.uri}/transcripts").glob("fingerprint=*/**/*.parquet"))
    assert run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)]) == 0
    assert "quality.lost_s, quality.repairs, source.loader, source.tracks" in capsys.readouterr().out
    assert sorted(Path(f"{lake.uri}/transcripts").glob("fingerprint=*/**/*.parquet")) == files
    table = TranscriptTable(lake)
    table.commit(write_staged(make_rows(["c"]), lake))
    RunLog(lake).append(RunRecord(run_id="run-2", event="started", job="backfill"))
    assert done_ids(table) == [("a", 0), ("b", 0), ("c", 0)]
    with connect(str(lake.uri)) as database:
        unknown = database.sql("SELECT recording_id, quality.lost_s, source.loader FROM history ORDER BY ALL").fetchall()
        assert unknown == [("a", None, None), ("b", None, None), ("c", 0.0, 2)]
        assert database.sql("SELECT run_id, job FROM runs ORDER BY ALL").fetchall() == [("run-1", None), ("run-2", "backfill")]
    run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])
    assert capsys.readouterr().out.splitlines()[0] == f"transcripts: nothing to add; version {SCHEMA_VERSION}"


def test_upgrading_refuses_a_lake_of_a_newer_version_and_a_place_without_one(lake: Lake, tmp_path: Path) -> None:
    write_lake(lake, SCHEMA_VERSION + 1, {"transcripts": TRANSCRIPTS.append(pa.field("site", pa.string())), "runs": RUNS}, "a")
    with pytest.raises(RunError, match="a newer dictalake writes to it"):
        run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])
    with pytest.raises(RunError, match="there is no dictalake table"):
        run_command("schema", ["--upgrade", "--lake.uri", str(tmp_path / "empty")])


def test_upgrading_changes_nothing_where_one_table_cannot_be_upgraded(lake: Lake) -> None:
    write_lake(lake, 3, {**schemas_of(3), "runs": schemas_of(3)["runs"].append(pa.field("cost", pa.float64()))}, "a")
    before = {path: path.read_bytes() for path in Path(str(lake.uri)).rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"unknown \['cost'\]"):
        run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])
    assert {path: path.read_bytes() for path in Path(str(lake.uri)).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("version", [3, SCHEMA_VERSION])
def test_an_upgraded_table_has_the_properties_of_a_new_one_and_keeps_what_its_owner_chose(
    lake: Lake, tmp_path: Path, version: int
) -> None:
    """Also one that an earlier upgrade brought to this version without them."""
    write_lake(lake, version, schemas_of(version), "a")
    chosen = {"delta.checkpointInterval": "7", "delta.dataSkippingStatsColumns": "text"}
    DeltaTable(f"{lake.uri}/transcripts").alter.set_table_properties(chosen, raise_if_not_exists=False)
    run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])
    new = Lake.model_validate({"uri": str(tmp_path / "new")})
    TranscriptTable(new)
    RunLog(new)
    names = ("transcripts", "runs")
    upgraded, made = ({name: DeltaTable(f"{one.uri}/{name}").metadata().configuration for name in names} for one in (lake, new))
    assert upgraded["transcripts"] == made["transcripts"] | {"delta.checkpointInterval": "7"}
    assert upgraded["runs"] == made["runs"]
    assert made["transcripts"]["delta.dataSkippingStatsColumns"] == "recording_id,status,run_id,attempt"


def test_the_properties_are_there_before_the_version_that_lets_writers_in(lake: Lake) -> None:
    write_lake(lake, 3, schemas_of(3), "a")
    run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])
    delta = DeltaTable(f"{lake.uri}/transcripts")
    for version in range(delta.version() + 1):
        delta.load_as_version(version)
        configuration = delta.metadata().configuration
        if configuration["dictalake.schemaVersion"] == str(SCHEMA_VERSION):
            break
        assert configuration["dictalake.schemaVersion"] == "3"
    assert 0 < version < delta.version() + 1
    assert {"delta.dataSkippingStatsColumns", "delta.checkpointInterval", "delta.logRetentionDuration"} <= set(configuration)


def test_the_log_of_an_older_table_is_kept_for_a_day_until_its_owner_says_otherwise(lake: Lake) -> None:
    write_lake(lake, 3, schemas_of(3), "a")
    key, days = "delta.logRetentionDuration", []
    for _ in range(2):
        DeltaTable(f"{lake.uri}/transcripts").alter.set_table_properties({key: "interval 7 days"})
        run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])
        days.append(DeltaTable(f"{lake.uri}/transcripts").metadata().configuration[key])
    assert days == ["interval 1 days", "interval 7 days"]


def test_what_the_owner_of_a_new_table_set_stays_in_the_words_of_older_versions_too(lake: Lake) -> None:
    TranscriptTable(lake)
    table = DeltaTable(f"{lake.uri}/transcripts")
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 7 days"})
    set_properties(table, TRANSCRIPTS)
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 7 days"


def test_a_doc_that_was_worded_anew_does_not_keep_runs_from_a_lake(lake: Lake) -> None:
    words = pa.schema([field.with_metadata({"comment": "as it was said before"}) for field in RUNS])
    write_lake(lake, SCHEMA_VERSION, {"transcripts": TRANSCRIPTS, "runs": words}, "a")
    RunLog(lake).append(RunRecord(run_id="run-2", event="started"))
    assert RunLog(lake).read().num_rows == 2


def test_a_lake_without_rows_is_read(lake: Lake) -> None:
    TranscriptTable(lake)
    transcripts = open_lake(str(lake.uri))
    assert duckdb.sql("SELECT count(*) FROM transcripts").fetchall() == [(0,)]
    assert transcripts.schema.equals(TRANSCRIPTS)
