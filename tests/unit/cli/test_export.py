"""``dictalake export``, and what ``query`` gives to spreadsheets and takes from them."""

from __future__ import annotations

import codecs
import csv
import json
import re
from pathlib import Path

import pysubs2
import pytest
from praatio import textgrid

from dictalake.cli.export_formats import _lay_out, write_subtitles
from dictalake.cli.main import run_command
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError
from dictalake.lake.corrections import CorrectionRecord, Corrections
from dictalake.transcript.cues import LONGEST_S, MOST_CHARACTERS, make_cues
from tests.query_lake import APRIL, NEW, make_dictation, query, write_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_lake(tmp_path_factory.mktemp("export") / "lake")


def export(lake: str, out: Path, *arguments: str) -> None:
    assert run_command("export", [lake, "--out", str(out), *arguments]) == 0


def read_csv(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_recordings_are_flat_rounded_and_each_there_once(lake: str, tmp_path: Path) -> None:
    names = "recording_id, status, reason, duration_s, channels, specialty, confidence, lost_s, recorded_at_source"
    assert query(lake, tmp_path, f"SELECT {names} FROM recordings ORDER BY ALL") == [
        ("a", "ok", None, 1800.0, 1, "radiology", 0.75, 0.0, "dicom"),
        ("b", "ok", None, 1800.0, 1, "radiology", 0.9, 0.0, "dicom"),
        ("c", "ok", None, 1800.0, 1, "cardiology", 0.9, 0.0, "object"),
        ("d", "ok", None, 3600.0, 1, None, 0.9, 0.0, "object"),
        ("e", "failed", "not_audio", None, None, None, None, None, None),
    ]
    columns = query(lake, tmp_path, "SELECT column_name, column_type FROM (DESCRIBE recordings)")
    assert [name for name, kind in columns if "STRUCT" in kind or "[]" in kind] == [], "flat"
    assert {"uri", "recorded_at", "metadata", "model", "fingerprint", "run_id"} <= {name for name, _ in columns}


def test_a_csv_for_excel_begins_with_its_mark_and_has_the_separator_of_the_region(lake: str, tmp_path: Path) -> None:
    out = tmp_path / "recordings.csv"
    run_command("query", [lake, "FROM recordings ORDER BY ALL", "--out", str(out), "--excel", "--separator", "semicolon"])
    content = out.read_bytes()
    assert content.startswith(codecs.BOM_UTF8)
    rows = read_csv(out, ";")
    assert [row["recording_id"] for row in rows] == list("abcde")
    assert rows[1]["confidence"] == "0.9", "not 0.8999999761581421"
    run_command("query", [lake, "FROM recordings", "--out", str(out)])
    assert not out.read_bytes().startswith(codecs.BOM_UTF8)


def test_a_table_of_ones_own_is_joined_and_its_file_cannot_be_reached_by_sql(lake: str, tmp_path: Path) -> None:
    orders = tmp_path / "my orders.csv"
    orders.write_text("recording_id,ward\na,north\nd,south\n", encoding="utf-8")
    sql = "SELECT recording_id, ward FROM recordings JOIN my_orders USING (recording_id) ORDER BY ALL"
    assert query(lake, tmp_path, sql, "--attach", str(orders)) == [("a", "north"), ("d", "south")]
    assert query(lake, tmp_path, "SELECT count(*) FROM mine", "--attach", f"mine={orders}") == [(2,)]
    with pytest.raises(ConfigError, match="Permission Error"):
        query(lake, tmp_path, f"FROM read_csv('{orders}')", "--attach", str(orders))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("runs.csv", "a\n1\n", r"runs is a view of the lake; give another name, --attach NAME="),
        ("1.csv", "a\n1\n", r"'1' is no name for a table; give one, --attach NAME="),
        ("orders.xlsx", "", r"the name must end in \.csv, "),
        ("orders.parquet", "no parquet", r"cannot be read: "),
    ],
)
def test_what_cannot_be_attached_is_said(lake: str, tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        query(lake, tmp_path, "SELECT 1", "--attach", str(tmp_path / name))
    with pytest.raises(ConfigError, match="there is no such file"):
        query(lake, tmp_path, "SELECT 1", "--attach", str(tmp_path / "gone.csv"))


def test_a_csv_has_a_line_for_each_recording_with_its_text(lake: str, tmp_path: Path) -> None:
    export(lake, tmp_path / "all.csv")
    rows = {row["recording_id"]: row for row in read_csv(tmp_path / "all.csv")}
    assert sorted(rows) == list("abcde")
    assert rows["a"]["text"] == "No aspirin given"
    assert (rows["e"]["text"], rows["e"]["reason"]) == ("", "not_audio")
    export(lake, tmp_path / "march.csv", "--month", "2026-03")
    assert {row["recording_id"] for row in read_csv(tmp_path / "march.csv")} == {"a", "b"}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], "abcd"),
        (["--specialty", "radiology"], "ab"),
        (["--where", "confidence < 0.8 OR recorded_month = '2026-04'"], "acd"),
        (["--where", "confidence < 0.8 -- to the end"], "a"),
        (["--month", "2026-04", "--recording", "a", "--recording", "c"], "c"),
    ],
)
def test_filters_hold_together(lake: str, tmp_path: Path, arguments: list[str], names: str) -> None:
    export(lake, tmp_path / "some.jsonl", *arguments)
    rows = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(row["recording_id"] for row in rows) == list(names)
    for row in rows:
        assert row["words"][0]["start_s"] == 0.25
        assert row["metadata"] is None or isinstance(row["metadata"], dict)


def test_a_condition_that_is_none_is_refused(lake: str, tmp_path: Path) -> None:
    for bad in ("1); DROP TABLE x; SELECT (1", "no such column"):
        with pytest.raises(ConfigError):
            export(lake, tmp_path / "some.jsonl", "--where", bad)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="say which format with --format"):
        export(lake, tmp_path / "some.txt")


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_are_read_again_with_their_times_and_texts(lake: str, tmp_path: Path, form: str) -> None:
    export(lake, tmp_path / "subtitles", "--format", form)
    files = sorted(path.name for path in (tmp_path / "subtitles").iterdir())
    assert files == [*(f"{name}.{form}" for name in "abcd"), "recordings.csv"]
    [first, second] = pysubs2.load(str(tmp_path / "subtitles" / f"c.{form}"))
    assert (first.start, first.end, first.plaintext) == (250, 4750, "Denies taking any aspirin.")
    assert (second.start, second.end, second.plaintext) == (5250, 7750, "She takes warfarin")
    listed = read_csv(tmp_path / "subtitles" / "recordings.csv")
    assert {(row["file"], row["recording_id"]) for row in listed} == {(f"{name}.{form}", name) for name in "abcd"}


def test_a_textgrid_has_the_words_and_the_silence(lake: str, tmp_path: Path) -> None:
    export(lake, tmp_path / "grids", "--format", "textgrid", "--recording", "a")
    grid = textgrid.openTextgrid(str(tmp_path / "grids" / "a.TextGrid"), includeEmptyIntervals=False)
    assert [tuple(entry) for entry in grid.getTier("words").entries] == [
        (0.25, 0.75, "no"),
        (1.25, 1.75, "aspirin"),
        (2.25, 2.75, "given"),
    ]
    assert grid.maxTimestamp == 1800.0


def test_a_ctm_has_a_line_for_each_word(lake: str, tmp_path: Path) -> None:
    export(lake, tmp_path / "all.ctm")
    lines = (tmp_path / "all.ctm").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("a ")] == [
        "a 1 0.250 0.500 no 0.750",
        "a 1 1.250 0.500 aspirin 0.750",
        "a 1 2.250 0.500 given 0.750",
    ]
    assert all(re.fullmatch(r"\w 1 \d+\.\d{3} 0\.500 \S+ 0\.\d{3}", line) for line in lines)


def test_words_that_overlap_or_have_no_length_are_laid_out_one_after_the_other() -> None:
    words = [
        {"word": word, "start_s": start, "end_s": end}
        for word, start, end in (("a", 0.0, 1.0), ("b", 0.5, 0.7), ("c", 2.0, 2.0))
    ]
    assert list(_lay_out(words)) == [(0.0, 1.0, "a"), (1.0, 1.001, "b"), (2.0, 2.001, "c")]


def test_cues_hold_every_word_are_short_and_end_with_sentences() -> None:
    said = " ".join(["the heart is of normal size and shape"] * 6) + " {period} lungs are clear {period}"
    words = make_dictation("a", said, APRIL, 1)["words"]  # one a second
    cues = make_cues(words)
    assert " ".join(cue.text for cue in cues).lower().replace(".", "").split() == said.replace("{period}", "").split()
    assert all(cue.end_s - cue.start_s <= LONGEST_S + 1 and len(cue.text) <= MOST_CHARACTERS + 1 for cue in cues)
    assert cues[-1].text == "Lungs are clear."
    assert cues[1].text[0].islower(), "it continues a sentence"


def test_an_export_of_production_alone(lake: str, tmp_path: Path) -> None:
    export(lake, tmp_path / "all.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["fingerprint"] for row in rows} == {NEW}


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_marks_that_nobody_knows_stay_in_subtitles(tmp_path: Path, form: str) -> None:
    """A player takes text in braces for a command, and shows none of it."""
    words = make_dictation("a", "lungs {some_mark} clear", APRIL, 1)["words"]
    write_subtitles({"words": words}, tmp_path / "a", form)
    [cue] = pysubs2.load(str(tmp_path / "a"), format_=form)
    assert cue.plaintext == "Lungs (some mark) clear"


def test_a_corrected_text_is_exported_with_who_corrected_it_unless_the_machines_is_asked_for(tmp_path: Path) -> None:
    lake = write_lake(tmp_path / "lake")
    record = CorrectionRecord(recording_id="a", event="corrected", who="Ann", text="Aspirin given")
    Corrections(Lake.model_validate({"uri": lake})).save(record)
    export(lake, tmp_path / "all.csv")
    export(lake, tmp_path / "machine.csv", "--machine-text")
    export(lake, tmp_path / "all.jsonl", "--recording", "a")
    rows = {row["recording_id"]: (row["text"], row["corrected_by"]) for row in read_csv(tmp_path / "all.csv")}
    assert rows["a"] == ("Aspirin given", "Ann")
    assert rows["b"][1] == ""
    heard = {row["recording_id"]: (row["text"], row["corrected_by"]) for row in read_csv(tmp_path / "machine.csv")}
    assert heard["a"] == ("No aspirin given", "")
    [row] = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (row["text"], row["corrected_by"], row["words"][0]["start_s"]) == ("Aspirin given", "Ann", 0.25)
