"""``infra/bigquery`` gives the same views as ``dictalake query``: parsed as BigQuery's SQL, and run, put into DuckDB's words,
over a lake whose tables look as BigQuery sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify

from dictalake.cli.schema import INFRA
from dictalake.config.sections import Lake
from dictalake.lake.bigquery import DATASET, EXTERNAL_TABLES
from dictalake.lake.corrections import AccessLog, CorrectionRecord, Corrections
from dictalake.lake.findings_schema import FINDINGS, ITEM_LISTS
from dictalake.lake.fingerprints import keep_what_counts, promote
from dictalake.lake.query import VIEWS, connect
from dictalake.lake.rechecks import Recheck, RecheckLog
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import ACCESSES, CORRECTIONS, FINGERPRINTS, RECHECKS, RUNS, TRANSCRIPTS, make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.extracted_lake import add_extractions, make_extraction
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

FOLDER = INFRA / "bigquery"
FILES = {path.stem: path.read_text(encoding="utf-8") for path in (FOLDER / "views").glob("*.sql")}
SCHEMAS = {
    "transcript_rows": TRANSCRIPTS,
    "run_records": RUNS,
    "recheck_records": RECHECKS,
    "fingerprint_records": FINGERPRINTS,
    "correction_records": CORRECTIONS,
    "access_records": ACCESSES,
    "finding_rows": FINDINGS,
}
READ = {  # by each view, beside external tables
    "superseded": ("promotions",),
    "history": ("superseded",),
    "transcripts": ("promotions", "superseded", "corrections"),
    "recordings": ("promotions", "superseded", "transcripts", "failures"),
    "transcript_words": ("transcripts",),
    "transcript_sections": ("transcripts",),
    "incomplete": ("transcripts", "rechecks"),
    "extractions": ("transcripts",),
    **dict.fromkeys(ITEM_LISTS, ("extractions",)),
}
AT = datetime(2026, 3, 2, 8, tzinfo=UTC)


def parse(name: str) -> exp.Query:
    [statement] = sqlglot.parse(FILES[name], read="bigquery", error_level=sqlglot.ErrorLevel.RAISE)
    assert isinstance(statement, exp.Query)
    return statement


def columns_of(name: str) -> list[str]:
    """The names that a view of BigQuery has, found by sqlglot from the columns of what it reads."""
    tables: dict[str, list[str]] = {table: schema.names for table, schema in SCHEMAS.items()}
    tables |= {view: columns_of(view) for view in READ.get(name, ())}
    known = {DATASET: {table: dict.fromkeys(names, "STRING") for table, names in tables.items()}}
    return qualify(parse(name), schema=known, dialect="bigquery", validate_qualify_columns=False).named_selects


def as_bigquery_sees(schema: pa.Schema, table: str) -> str:
    """A query of ``table`` with maps as lists of structs, and empty lists for those that are null."""
    columns = []
    for field in schema:
        column = f'map_entries("{field.name}")' if pa.types.is_map(field.type) else f'"{field.name}"'
        is_list = pa.types.is_map(field.type) or pa.types.is_list(field.type)
        columns.append(f'coalesce({column}, []) AS "{field.name}"' if is_list else column)
    return f"SELECT {', '.join(columns)} FROM {table}"


def to_duckdb(name: str) -> str:
    """The view in DuckDB's words. BigQuery's OFFSET counts from 0, DuckDB's ORDINALITY from 1: sqlglot does not see to it."""
    [text] = sqlglot.transpile(FILES[name], read="bigquery", write="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)
    return text.replace('"place" + 1', '"place"')


def make_lake(folder: Path) -> Lake:
    """Rows and runs in which newest, last and null matter."""
    lake = Lake.model_validate({"uri": str(folder / "lake")})
    words = [{"word": word, "start_s": 0.5, "end_s": 1.0, "confidence": 0.5, "channel": 0} for word in ("no", "fracture")]
    rows: list[dict[str, Any]] = []
    for hours, changes in enumerate(
        (
            {"recording_id": "a", "fingerprint": "111111111111"},
            {"recording_id": "a", "fingerprint": "222222222222", "words": words, "text": "No fracture."},
            {"recording_id": "b", "words": None, "sections": None, "metadata": None},
            {"recording_id": "c", "attempt": 1, "recorded_month": "2026-04"},
            {"recording_id": "e", "quality": {"duration_s": 8.0, "lost_s": 2.0, "repairs": ["hole"]}},
            {"recording_id": "e", "attempt": 1, "quality": {"duration_s": 8.0, "lost_s": 3.0, "repairs": ["hole"]}},
            {"recording_id": "f", "quality": {"duration_s": 2.0}},
            {"recording_id": "g", "quality": {"duration_s": 2.0}},
            {"recording_id": "h", "quality": {"duration_s": 8.0, "lost_s": 0.0}},
            {"recording_id": "h", "attempt": 1, "quality": {"duration_s": 8.0, "lost_s": 3.0, "repairs": ["hole"]}},
            {"recording_id": "i", "fingerprint": "111111111111", "quality": {"duration_s": 2.0}},
            {"recording_id": "i", "quality": {"duration_s": 2.0}},
        )
    ):
        row = make_row(**changes)
        rows.append({**row, "provenance": {**row["provenance"], "transcribed_at": AT + timedelta(hours=hours)}})
    rows += [make_failed_row("c", recorded_month="2026-04"), make_failed_row("d"), make_failed_row("d", attempt=1)]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    keep_what_counts(lake)  # all fingerprints so far, together
    promote(lake, "222222222222")
    later = [make_row("a", fingerprint="333333333333", text="An experiment.")]
    for version in (1, 2):
        row = make_row(f"j{version}", metadata=[("specialty", "radiology"), ("department", "x")])
        later.append(
            {**row, "source": row["source"] | {"uri": "gs://archive/j.wav", "modified_at": AT + timedelta(days=version)}}
        )
    TranscriptTable(lake).commit(write_staged(make_transcripts(later), lake))
    add_extractions(
        lake,
        make_extraction("b"),
        make_extraction("b", fingerprint="ffffffffffff", status="failed"),
        make_extraction("c"),  # of the attempt before
        make_extraction("h", transcript_attempt=0, findings=None),
    )
    found: dict[str, Any] = {"fingerprint": FINGERPRINT, "attempt": 0, "loader": 2}
    RecheckLog(lake).append(
        [
            Recheck(recording_id="f", at=AT, verdict="unread", **found),
            Recheck(recording_id="f", at=AT + timedelta(hours=1), verdict="lost", missing_s=6.0, duration_s=8.0, **found),
            Recheck(recording_id="g", at=AT, verdict="lost", reason="corrupt_audio", repairs=("hole", "damaged"), **found),
            Recheck(recording_id="b", at=AT, verdict="complete", **found),
            Recheck(recording_id="h", at=AT, verdict="lost", missing_s=3.0, duration_s=8.0, **found),
            Recheck(recording_id="i", at=AT, verdict="lost", missing_s=6.0, duration_s=8.0, **found),
            Recheck(recording_id="i", at=AT, verdict="complete", missing_s=0.0, **{**found, "fingerprint": "111111111111"}),
        ]
    )
    ended = {"event": "finished", "at": AT + timedelta(hours=1)}
    log = RunLog(lake)
    log.append(
        RunRecord(run_id="r1", event="started", at=AT, job="backfill", versions={"ray": "2.60"}, recordings=4),
        RunRecord(run_id="r1", **ended, ok=3, failed=1, failures={"not_audio": 1}),  # type: ignore[arg-type]
        RunRecord(run_id="r2", event="started", at=AT, job="nightly"),
    )
    said = Corrections(lake)
    for one, text in (("a", "No fractures."), ("b", "Nothing."), ("e", "A hole.")):
        said.save(CorrectionRecord(recording_id=one, event="corrected", who="Ann", text=text))
    for one in "be":
        said.undo(one, said.find_last(one).correction_id, "Bob")  # type: ignore[union-attr]
    said.undo("e", said.find_last("e").correction_id, "Bob")  # type: ignore[union-attr]
    said.claim("h", "Ann", "worst", AT)
    AccessLog(lake).add("Ann", ["a"], "page")
    return lake


@pytest.fixture(scope="module")
def databases(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection]]:
    """DuckDB's own views, and another with those of BigQuery."""
    lake = make_lake(tmp_path_factory.mktemp("bigquery"))
    with connect(str(lake.uri)) as ours, connect(str(lake.uri)) as theirs:
        theirs.execute(f"CREATE SCHEMA {DATASET}")
        for table, schema in SCHEMAS.items():
            theirs.execute(f"CREATE TABLE {DATASET}.{table} AS {as_bigquery_sees(schema, table)}")
        for name in VIEWS:  # transcripts first, others read it
            theirs.execute(f"CREATE VIEW {DATASET}.{name} AS {to_duckdb(name)}")
        yield ours, theirs


def test_each_view_of_query_has_a_file_for_bigquery() -> None:
    assert set(FILES) == set(VIEWS)
    assert set(EXTERNAL_TABLES) == set(SCHEMAS)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_reads_tables_of_the_dataset_alone(name: str) -> None:
    own = {query.alias for query in parse(name).find_all(exp.CTE)}
    tables = {(table.db, table.name) for table in parse(name).find_all(exp.Table) if table.name and table.name not in own}
    assert tables
    assert tables <= {(DATASET, table) for table in (*EXTERNAL_TABLES, *READ.get(name, ()))}


@pytest.mark.parametrize("name", ["transcripts", "corrections", "failures", "rechecks", "promotions", "history"])
def test_what_sqlglot_translates_rightly_is_its_translation(name: str) -> None:
    translated = sqlglot.parse_one(VIEWS[name], read="duckdb").sql(dialect="bigquery", identify=True)
    assert parse(name).sql(dialect="bigquery", identify=True, comments=False).replace(f"`{DATASET}`.", "") == translated


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_the_columns_that_it_has_in_duckdb(
    databases: tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection], name: str
) -> None:
    assert columns_of(name) == databases[0].sql(f"FROM {name}").columns


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_gives_the_rows_that_it_gives_in_duckdb(
    databases: tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection], name: str
) -> None:
    ours, theirs = databases
    schema = ours.sql(f"FROM {name}").to_arrow_table().schema
    expected = ours.sql(f"{as_bigquery_sees(schema, name)} ORDER BY ALL").to_arrow_table()
    there = theirs.sql(f"{as_bigquery_sees(expected.schema, f'{DATASET}.{name}')} ORDER BY ALL").to_arrow_table()
    assert there.to_pylist() == expected.to_pylist()
    assert expected.num_rows, "the lake has rows for every view"


def test_the_external_tables_are_delta_tables_of_the_lake() -> None:
    text = (FOLDER / "tables.sql").read_text(encoding="utf-8")
    grammar = r"CREATE OR REPLACE EXTERNAL TABLE (`\w+`\.`\w+`)\nWITH CONNECTION (`[\w-]+\.\w+`)\n(OPTIONS \(.*?\));"
    found = re.findall(grammar, text)
    assert len(found) == text.count("CREATE OR REPLACE") == len(EXTERNAL_TABLES)
    region = re.search(r"location = '([\w-]+)'", text)
    assert region is not None
    for table, connection, options in found:
        # sqlglot knows no EXTERNAL TABLE: what is within is read as that of a table.
        statement = sqlglot.parse_one(f"CREATE TABLE {table} {options}", read="bigquery")
        uri = f"gs://my-hospital-lake/speech/{EXTERNAL_TABLES[statement.this.name]}"
        assert statement.sql(dialect="bigquery") == f"CREATE TABLE {table} OPTIONS (FORMAT='DELTA_LAKE', uris=['{uri}'])"
        assert connection == f"`{region[1]}.{DATASET}`"


def test_each_column_of_a_described_view_has_its_words() -> None:
    text = (FOLDER / "descriptions.sql").read_text(encoding="utf-8")
    views = re.findall(r"^ALTER VIEW `\w+`\.`(\w+)`\n(.*?'\));$", text, re.DOTALL | re.MULTILINE)
    grammar = re.compile(r"^  ALTER COLUMN `(\w+)` SET OPTIONS \(description = '(?:[^'\\]|\\.)+'\)", re.MULTILINE)
    assert [name for name, _ in views] == ["transcripts", "history", "recordings"]
    for name, changes in views:
        described = grammar.findall(changes)
        shown = [column for column in columns_of(name) if column not in ("is_current", "superseded_by")]
        assert described == shown
