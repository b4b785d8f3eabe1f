"""The ten questions of ``infra/queries/findings``, asked of a small lake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dictalake.config.sections import Lake
from dictalake.lake.finding_rows import FindingTable
from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.query import connect
from dictalake.lake.row_tables import FINDING_ROWS
from dictalake.lake.staged_files import write_staged
from tests.extracted_lake import add_dictations, make_dictation
from tests.lake_rows import FINGERPRINT, MONTH

QUERIES = Path(__file__).parents[3] / "infra/queries/findings"
AT = {"places": 1, "start_char": 0, "end_char": 4, "first_word": 1, "last_word": 2, "start_s": 1.0, "end_s": 2.0}


def make_item(quote: str, confidence: float = 0.9, **fields: Any) -> dict[str, Any]:
    return {**fields, **AT, "quote": quote, "confidence": confidence}


def make_extraction(recording_id: str, **changes: Any) -> dict[str, Any]:
    """A row of the table ``findings`` with something in every list."""
    return {
        "recording_id": recording_id,
        "status": "ok",
        "run_id": "extract-1",
        "attempt": 0,
        "transcript_fingerprint": FINGERPRINT,
        "transcript_attempt": 0,
        "findings": [
            make_item(
                "nodule of 12 mm", term="Nodule", side="left", negated=False, measurement=12.0, unit="mm", change="increased"
            ),
            make_item("no effusion", term="effusion", negated=True),
        ],
        "medications": [
            make_item("aspirin 81 mg", 0.4, drug="Aspirin", dose=81.0, unit="mg", frequency="daily", negated=False),
            make_item("ibuprofen was stopped", drug="ibuprofen", negated=True),
        ],
        "lab_values": [make_item("potassium 4.2", test="potassium", value="4.2", number=4.2)],
        "follow_ups": [make_item("CT in three months", what="CT", when="in three months")],
        "impressions": [make_item("Growing nodule.")],
        "offered": 9,
        "dropped": [("quote_not_found", 2)],
        "parts": 1,
        "provenance": {"kind": "openai", "model": "gemma", "extracted_at": datetime(2026, 3, 2, tzinfo=UTC)},
        "fingerprint": "0123456789ab",
        "recorded_month": MONTH,
        **changes,
    }


def add_extractions(lake: Lake, *rows: dict[str, Any]) -> None:
    FindingTable(lake).commit(write_staged(pa.Table.from_pylist(list(rows), schema=FINDINGS), lake, of=FINDING_ROWS))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    folder = tmp_path_factory.mktemp("questions") / "lake"
    lake = add_dictations(folder, make_dictation("a", "Nodule."), make_dictation("b", "Nodule."))
    add_extractions(lake, make_extraction("a"), make_extraction("b"))
    with connect(str(lake.uri)) as opened:
        yield opened


ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "findings_by_month": [(MONTH, "nodule", 2)],
    "ruled_out": [("effusion", 2, 0)],
    "sides": [("nodule", 2, 0, 0, 0)],
    "growing_findings": [(one, "Nodule", None, "left", "increased", 12.0, "mm", "nodule of 12 mm", 1.0) for one in "ab"],
    "drug_doses": [("aspirin", 81.0, "mg", "daily", 2)],
    "drugs_not_taken": [("ibuprofen", one, "ibuprofen was stopped", 1.0) for one in "ab"],
    "lab_values_by_test": [("potassium", None, 2, 4.2, 4.2, 4.2)],
    "follow_ups_by_time": [("in three months", "ct", 2)],
    "what_models_say": [("gemma", "0123456789ab", 2, 18, "quote_not_found", 4)],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_question_has_its_answer(database: duckdb.DuckDBPyConnection, name: str) -> None:
    assert database.sql((QUERIES / f"{name}.sql").read_text(encoding="utf-8")).fetchall() == ANSWERS[name]


def test_the_least_certain_items_come_first(database: duckdb.DuckDBPyConnection) -> None:
    rows = database.sql((QUERIES / "uncertain_words.sql").read_text(encoding="utf-8")).fetchall()
    assert [row[:3] for row in rows[:2]] == [("medication", one, "aspirin 81 mg") for one in "ab"]
    assert len(rows) == 10


def test_there_are_ten_and_each_is_asked_in_words_first() -> None:
    files = list(QUERIES.glob("*.sql"))
    assert {file.stem for file in files} == {*ANSWERS, "uncertain_words"}
    assert len(files) == 10
    assert all(re.match(r"-- [A-Z][^\n]+\?\n", file.read_text(encoding="utf-8")) for file in files)
