"""The views that ``dictalake query`` answers from, the files that they read, and the questions of ``infra/queries``."""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import make_row
from tests.query_lake import APRIL, MARCH, NEW, OLD, ROOT, make_dictation, query, write_lake

QUERIES = ROOT / "infra" / "queries"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_lake(tmp_path_factory.mktemp("query") / "lake")


def test_transcripts_are_the_newest_good_row_of_each_recording(lake: str, tmp_path: Path) -> None:
    sql = "SELECT recording_id, fingerprint, attempt, text FROM transcripts ORDER BY ALL"
    assert query(lake, tmp_path, sql) == [
        ("a", NEW, 0, "No aspirin given"),
        ("b", NEW, 0, "Warfarin [findings] no"),
        ("c", NEW, 1, "Denies taking any aspirin {period} she takes warfarin"),
        ("d", NEW, 0, "Insulin"),
    ]


def test_words_have_a_row_each(lake: str, tmp_path: Path) -> None:
    assert query(lake, tmp_path, "SELECT * FROM transcript_words WHERE recording_id = 'a' ORDER BY position") == [
        ("a", NEW, "2026-03", 1, "no", 0.25, 0.75, 0.75, 0),
        ("a", NEW, "2026-03", 2, "aspirin", 1.25, 1.75, 0.75, 0),
        ("a", NEW, "2026-03", 3, "given", 2.25, 2.75, 0.75, 0),
    ]
    assert query(lake, tmp_path, "SELECT count(*) FROM transcript_words") == [(3 + 3 + 8 + 1,)]


def test_sections_have_a_row_each(lake: str, tmp_path: Path) -> None:
    assert query(lake, tmp_path, "SELECT * FROM transcript_sections WHERE recording_id = 'b' ORDER BY position") == [
        ("b", NEW, "2026-03", 1, None, None, "Chest."),
        ("b", NEW, "2026-03", 2, "FINDINGS", "FINDINGS", "Clear."),
        ("b", NEW, "2026-03", 3, "CONCLUSION", "IMPRESSION", "Well."),
    ]
    columns = query(lake, tmp_path, "SELECT column_name FROM (DESCRIBE transcript_sections)")
    assert [name for (name,) in columns] == [
        *("recording_id", "fingerprint", "recorded_month", "position", "heading", "name", "text")
    ]


def test_a_run_has_one_row_of_its_start_and_its_end(lake: str, tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    sql = "SELECT run_id, state, started_at, ended_at, job, host, cpus, ok, failures FROM runs ORDER BY run_id"
    assert query(lake, tmp_path, sql) == [
        ("r1", "finished", MARCH, MARCH + hour, "nightly", "node-1", 2.0, 3, [("fetch_failed", 1)]),
        ("r2", "finished", APRIL, APRIL + hour, "nightly", "node-1", None, 2, []),
        ("r3", "unfinished", APRIL + 2 * hour, None, "nightly", "node-1", None, None, None),
    ]


def test_failures_are_those_that_no_later_attempt_made_good(lake: str, tmp_path: Path) -> None:
    assert query(lake, tmp_path, "SELECT recording_id, error.reason FROM failures") == [("e", "not_audio")]
    assert query(lake, tmp_path, "SELECT count(*) FROM history") == [(7,)]


def test_a_recording_whose_date_changed_is_there_once_a_month(tmp_path: Path) -> None:
    """The price of closed files: DuckDB cannot know what the months that it does not read hold."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    rows = [make_dictation("a", "old", MARCH, 1, fingerprint=OLD), make_dictation("a", "new", APRIL, 1)]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    answer = query(str(lake.uri), tmp_path, "SELECT recorded_month, text FROM transcripts ORDER BY ALL")
    assert answer == [("2026-03", "Old"), ("2026-04", "New")]


def test_a_lake_without_runs_has_none(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a")]), lake))
    assert query(str(lake.uri), tmp_path, "SELECT count(*) FROM runs") == [(0,)]
    assert query(str(lake.uri), tmp_path, "SELECT count(*) FROM transcripts") == [(1,)]


QUESTIONS: dict[str, list[tuple[Any, ...]]] = {
    "volume_by_month": [
        ("cardiology", "2026-04", 1, 0.5),
        ("radiology", "2026-03", 2, 1.0),
        ("unknown", "2026-04", 1, 1.0),
    ],
    "turnaround": [("2026-03", 2, 15.0, 25.4), ("2026-04", 2, 8.0, 9.6)],
    "drug_mentions": [("aspirin", 2, 2, 2), ("warfarin", 2, 0, 2), ("insulin", 1, 0, 1)],
    "redictation_rate": [("2026-03", 2, 1, 50.0), ("2026-04", 2, 0, 0.0)],
    "low_confidence_by_device": [("LFH 5274", 2, 1, 50.0, 0.825), ("unknown", 2, 0, 0.0, 0.9)],
    "failures_by_reason": [("not_audio", "load", False, 1, "2026-04", "2026-04")],
    "speech_without_words": [("2026-03", 2, 0, 0.0, None), ("2026-04", 2, 1, 3.0, "d")],
    "reports_without_impression": [("radiology", 2, 1, 50.0), ("cardiology", 1, 0, 0.0)],
    "what_a_new_model_changed": [(OLD, NEW, 1, 1, 100.0, 0.25)],
    "runs_by_month": [("2026-03", "nightly", 1, 0, 3, 1, 1.5, 1.5), ("2026-04", "nightly", 2, 1, 2, 1, 3.0, 6.0)],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_of_an_analytics_team(lake: str, tmp_path: Path, name: str) -> None:
    assert query(lake, tmp_path, "--file", str(QUERIES / f"{name}.sql")) == QUESTIONS[name]


def test_each_question_is_asked_in_words_first() -> None:
    files = sorted(QUERIES.glob("*.sql"))
    # Where a row comes from is asked of the demo lake, whose rows come from somewhere.
    assert [path.stem for path in files] == sorted([*QUESTIONS, "provenance_of_a_row"])
    assert [path.name for path in files if not re.match(r"-- [A-Z][^\n]+\?.*\n", path.read_text(encoding="utf-8"))] == []


def test_a_negation_ends_with_its_sentence_and_after_five_words(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    far = "no one two three four heparin no one two three four five morphine {new_paragraph} never. insulin No [PLAN] digoxin"
    rows = [make_dictation("a", far, MARCH, 1), make_dictation("b", "tramadol no no. {period} Tramadol, not", MARCH, 1)]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    answer = query(str(lake.uri), tmp_path, "--file", str(QUERIES / "drug_mentions.sql"))
    assert answer == [
        ("tramadol", 2, 0, 1),
        ("digoxin", 1, 0, 1),
        ("heparin", 1, 1, 1),
        ("insulin", 1, 0, 1),
        ("morphine", 1, 0, 1),
    ]


def test_drugs_are_counted_alike_from_the_text_of_one_channel_and_the_words_of_several(tmp_path: Path) -> None:
    said = (
        "no aspirin {period} Insulin, heparinized not",
        "denies warfarin {new paragraph} aspirin",
        "never [EXAM TYPE] morphine no a b c {open quote} Heparin.",
    )
    answers = []
    for channels in (1, 2, None):
        lake = Lake.model_validate({"uri": str(tmp_path / f"lake-{channels}")})
        words = [re.findall(r"\{[^}]*\}|\[[^]]*\]|\S+", text) for text in said]
        rows = [make_dictation(f"{number}", text, MARCH, 1) for number, text in enumerate(said)]
        for row, spoken in zip(rows, words, strict=True):
            row["words"] = [{"word": one, "start_s": 0.0, "end_s": 0.1, "confidence": 0.9, "channel": 0} for one in spoken]
            row["source"] = {**(row["source"] or {}), "channels": channels}
        TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
        answers.append(query(str(lake.uri), tmp_path, "--file", str(QUERIES / "drug_mentions.sql")))
    assert answers[0] == [
        ("aspirin", 2, 1, 2),
        ("heparin", 1, 1, 1),
        ("insulin", 1, 0, 1),
        ("morphine", 1, 0, 1),
        ("warfarin", 1, 1, 1),
    ]
    assert answers[0] == answers[1] == answers[2]


def test_files_of_other_months_are_not_opened_through_the_views(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "lake")
    for path in Path(lake).glob("transcripts/fingerprint=*/recorded_month=2026-04/*.parquet"):
        path.unlink()
    for view, count in {"transcripts": 2, "transcript_words": 6, "transcript_sections": 5, "history": 3}.items():
        march = f"SELECT count(*) FROM (SELECT * FROM {view} WHERE recorded_month = '2026-03')"
        assert query(lake, tmp_path, march) == [(count,)]
        with pytest.raises(RunError, match=r"^cannot read the lake's files; .* No such file or directory$"):
            query(lake, tmp_path, f"SELECT count(*) FROM (SELECT * FROM {view})")


def test_files_of_other_fingerprints_are_not_opened_for_failures(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "lake")
    shutil.rmtree(f"{lake}/transcripts/fingerprint={OLD}")
    assert query(lake, tmp_path, f"SELECT recording_id FROM failures WHERE fingerprint = '{NEW}'") == [("e",)]


def test_columns_that_are_not_asked_for_are_not_read_through_the_views(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "lake")
    for path in Path(lake).glob("transcripts/*/*/*.parquet"):
        overwrite_columns(path, "text", "sections.list.element.text")
    assert len(query(lake, tmp_path, "SELECT recording_id, text_raw, words FROM transcripts")) == 4
    assert query(lake, tmp_path, "SELECT count(word) FROM transcript_words") == [(15,)]
    for sql in ("SELECT text FROM transcripts", "SELECT text FROM transcript_sections"):
        with pytest.raises(RunError, match=r"^cannot read the lake's files"):
            query(lake, tmp_path, sql)


def overwrite_columns(path: Path, *names: str) -> None:
    """Puts garbage where the columns' values are."""
    content = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(0)
    for chunk in (group.column(i) for i in range(group.num_columns)):
        if chunk.path_in_schema in names:
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
