"""``dictalake search``: finds what the view ``transcripts`` holds, and nothing that was replaced or erased."""

from __future__ import annotations

import csv
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dictalake.cli.main import run_command
from dictalake.cli.search import mark
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import make_transcripts
from dictalake.lake.search import Hit, TextIndex, default_folder
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

A, B, C, D, E = (letter * 32 for letter in "abcde")
NEW = "7be1d0a94c52"
MARCH = datetime(2026, 3, 2, tzinfo=UTC)
# No two with one stem.
TERMS = ("fracture", "wrist", "lung", "effusion", "stenosis", "nodule")


def say(recording_id: str, text: str, days: int = 0, **changes: Any) -> dict[str, Any]:
    row = make_row(recording_id, text=text, **changes)
    row["provenance"] |= {"transcribed_at": MARCH + timedelta(days=days), "fingerprint": row["fingerprint"]}
    return row


def commit(lake: Lake, *rows: dict[str, Any]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))


def ids(hits: list[Hit]) -> list[str]:
    return sorted(hit.recording_id for hit in hits)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    cardiology = {"metadata": [("specialty", "cardiology")]}
    commit(
        lake,
        say(A, "No acute fracture of the left wrist."),
        say(B, "Two old fractures. The lungs are clear.", recorded_month="2026-04"),
        say(C, "Severe aortic stenosis.", **cardiology),
        make_failed_row(D),
    )
    RunLog(lake)
    return lake


@pytest.fixture
def index(lake: Lake, tmp_path: Path) -> TextIndex:
    index = TextIndex(lake, tmp_path / "index")
    assert (index.refresh().added, index.refresh().added) == (3, 0)
    return index


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("fracture", [A, B]),
        ("Fractures", [A, B]),
        ("lung wrist", [A, B]),
        ("lung AND wrist", []),
        ("fracture AND NOT lungs", [A]),
        ("fracture -lungs", [A]),
        ('fracture AND NOT "left wrist"', [B]),
        ('"fracture and not lungs"', []),
        ('"left wrist"', [A]),
        ('"wrist left"', []),
        ("specialty:cardiology AND stenosis", [C]),
        ("fracture AND recorded_month:2026-04", [B]),
        ("appendix", []),
    ],
)
def test_words_phrases_and_fields_find_what_they_say(index: TextIndex, words: str, found: list[str]) -> None:
    assert ids(index.search(words, 10)) == found


def test_a_hit_shows_where_the_words_stand(index: TextIndex) -> None:
    (hit,) = index.search("stenosis OR aortic", 10)
    assert mark(hit) == "Severe «aortic» «stenosis»"
    assert (hit.recorded_month, hit.specialty) == ("2026-03", "cardiology")
    assert hit.score > 0


def test_no_more_than_the_limit_and_the_best_first(index: TextIndex) -> None:
    both = index.search("fracture lungs", 10)
    assert [hit.recording_id for hit in both] == [B, A]
    assert index.search("fracture lungs", 1) == both[:1]


def test_a_newer_model_takes_the_place_of_an_older_one(lake: Lake, index: TextIndex) -> None:
    commit(lake, say(A, "Old pneumothorax.", days=1, fingerprint=NEW))
    assert index.refresh().added == 1
    assert ids(index.search("fracture", 10)) == [B]
    assert ids(index.search("pneumothorax", 10)) == [A]
    commit(lake, say(A, "Nonsense.", days=-9, fingerprint="0123456789ab"))  # an older row that comes later changes nothing
    assert index.refresh().added == 0
    assert ids(index.search("pneumothorax", 10)) == [A]


def test_what_is_erased_leaves_no_trace(lake: Lake, index: TextIndex, tmp_path: Path) -> None:
    assert any(b"stenosis" in path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file())
    forget(lake, Subjects(recordings=(C,)))
    refreshed = index.refresh()
    assert (refreshed.added, refreshed.removed) == (2, 1)
    assert index.search("stenosis", 10) == []
    assert ids(index.search("fracture", 10)) == [A, B]
    left = [path for path in (tmp_path / "index").rglob("*") if path.is_file()]
    assert not [path for path in left if b"stenosis" in path.read_bytes() or C.encode() in path.read_bytes()]


def test_what_is_erased_after_a_refresh_was_cut_off_is_not_found(lake: Lake, index: TextIndex, tmp_path: Path) -> None:
    known = next((tmp_path / "index").glob("index-*")) / "known.parquet"
    before = known.read_bytes()
    commit(lake, say(E, "Small nodule."))
    known.with_suffix(".new").mkdir()  # the rows are taken in, then nothing can be written about them
    with pytest.raises(IsADirectoryError):
        index.refresh()
    assert known.read_bytes() == before
    known.with_suffix(".new").rmdir()
    forget(lake, Subjects(recordings=(E,)))
    index.refresh()
    assert index.search("nodule", 10) == []
    assert ids(index.search("fracture OR stenosis", 10)) == [A, B, C]
    assert not [path for path in (tmp_path / "index").rglob("*") if path.is_file() and b"nodule" in path.read_bytes()]


def test_an_index_that_was_left_behind_is_deleted_though_the_lake_is_the_same(index: TextIndex, tmp_path: Path) -> None:
    left = tmp_path / "index" / f"index-{'0' * 32}"
    left.mkdir()
    (left / "segment").write_bytes(b"stenosis")
    assert index.refresh().added == 0
    assert not left.exists()
    assert ids(index.search("stenosis", 10)) == [C]


def test_the_index_is_its_owners_alone(index: TextIndex, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "index").stat().st_mode) == 0o700


@given(st.lists(st.lists(st.sampled_from(TERMS), min_size=1, max_size=6), min_size=1, max_size=8))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_term_finds_the_rows_that_hold_it_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("search")
    lake = Lake.model_validate({"uri": str(folder / "lake")})
    commit(lake, *(say(f"{number:032x}", " ".join(words)) for number, words in enumerate(texts)))
    index = TextIndex(lake, folder / "index")
    index.refresh()
    for term in TERMS:
        assert ids(index.search(term, 100)) == [f"{number:032x}" for number, words in enumerate(texts) if term in words]


def test_files_of_others_are_not_touched(lake: Lake, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photos.chmod(0o755)
    for name in ("cat.jpg", "index-of-photos"):
        (photos / name).mkdir()
        with pytest.raises(ConfigError, match=rf"holds other files \({name} …\): give an empty or a new folder"):
            TextIndex(lake, photos)
        assert stat.S_IMODE(photos.stat().st_mode) == 0o755
        (photos / name).rmdir()


def test_bad_questions_are_refused_in_words(lake: Lake, tmp_path: Path) -> None:
    here = ["--lake.uri", str(lake.uri), "--index", str(tmp_path / "index")]
    for arguments, words in (
        (["fracture AND ("], "the words cannot be understood"),
        (["patient:doe"], "fields are text, recorded_month"),
        ([], "give the words to find"),
        (["--limit", "0", "wrist"], "must be 1 or more"),
    ):
        with pytest.raises(ConfigError, match=words):
            run_command("search", [*here, *arguments])
    with pytest.raises(RunError, match="there is no dictalake table"):
        run_command("search", ["--lake.uri", str(tmp_path / "nowhere"), "--index", str(tmp_path / "other"), "wrist"])


def test_csv_and_json_hold_the_same(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ["--lake.uri", str(lake.uri), "--index", str(tmp_path / "index"), "fracture"]
    assert run_command("search", [*here, "--format", "json"]) == run_command("search", [*here, "--format", "csv"]) == 0
    shown = capsys.readouterr()
    document, _, table = shown.out.partition("\n]\n")
    found = json.loads(document + "]")
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["snippet"] for row in rows] == [hit["snippet"] for hit in found]
    assert sorted(row["recording_id"] for row in rows) == [A, B]
    assert shown.err == "index: 3 transcripts added, 0 removed\n"


def test_each_lake_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_folder("./lake") == default_folder(str(tmp_path / "lake")) != default_folder("gs://bucket/lake")
    assert FINGERPRINT not in str(default_folder("./lake"))
