"""The ten questions of ``infra/queries/findings``, asked of a small lake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dictalake.lake.query import connect
from tests.extracted_lake import add_dictations, add_extractions, make_dictation, make_extraction
from tests.lake_rows import MONTH

QUERIES = Path(__file__).parents[3] / "infra/queries/findings"


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
