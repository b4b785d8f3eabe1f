"""From rows of the lake to the tables of ``dictalake evaluate`` and ``dictalake demo``."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from jobs.demo import failed_as_intended, make_table
from jobs.evaluate import Heard, make_report, make_utterances, read_references, read_transcripts, show_scores
from jobs.evaluate import main as evaluate
from pipelines.config import Archive, Lake
from pipelines.errors import ConfigError
from pipelines.lake.schema import make_transcripts
from pipelines.lake.staging import write_staged
from pipelines.lake.table import TranscriptTable
from pipelines.records import Recording
from pipelines.scoring.utterances import Utterance
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

GOOD = Recording("a", "file:///demo/recordings/ct/1.wav", "1", 10, metadata={"reference": "no acute fracture", "voice": "slt"})
LOST = Recording("b", "file:///demo/recordings/ct/2.wav", "1", 10, metadata={"reference": "lungs are clear", "voice": "awb"})
BROKEN = Recording("c", "file:///demo/recordings/notes.wav", "1", 10)
RECORDINGS = [GOOD, LOST, BROKEN]
HEARD = {
    "a": Heard("no cute fracture", "No cute fracture"),
    "b": Heard(reason="fetch_failed", detail="4 tries failed"),
    "c": Heard(reason="not_audio", detail="this is text"),
}


def test_a_failed_recording_has_no_hypothesis_and_one_without_reference_is_left_out() -> None:
    assert make_utterances(RECORDINGS, HEARD) == [
        Utterance("a", "no acute fracture", "no cute fracture", GOOD.metadata),
        Utterance("b", "lungs are clear", None, LOST.metadata),
    ]


def test_silence_is_an_empty_hypothesis_not_a_failure() -> None:
    assert make_utterances([GOOD], {"a": Heard("", "")})[0].hypothesis == ""


def test_rows_are_read_by_fingerprint_and_last_attempt(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    rows = [
        make_failed_row("a", attempt=0),
        make_row("a", attempt=1, text_raw="no acute fracture", text="No acute fracture"),
        make_failed_row("c"),
        make_row("c", fingerprint="another00000"),
        make_row("of another archive"),
    ]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    assert read_transcripts(lake, FINGERPRINT, RECORDINGS) == {
        "a": Heard("no acute fracture", "No acute fracture"),
        "b": Heard(reason="no_row", detail="the lake has no row of this recording"),
        "c": Heard(reason="not_audio", detail="the object is text"),
    }


def test_table_has_counts_per_group_and_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    better = HEARD | {"a": Heard("no acute fracture", "No acute fracture")}
    scored = {"greedy": make_utterances(RECORDINGS, HEARD), "lm": make_utterances(RECORDINGS, better)}
    show_scores(scored, "medasr", "voice", Console(width=120))
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    assert rows == [
        ["greedy", "awb", "1", "1", "3", "100.00", "0", "3", "0"],
        ["greedy", "slt", "1", "", "3", "33.33", "1", "0", "0"],
        ["greedy", "all", "2", "1", "6", "66.67", "1", "3", "0"],
        ["lm", "awb", "1", "1", "3", "100.00", "0", "3", "0"],
        ["lm", "slt", "1", "", "3", "0.00", "0", "0", "0"],
        ["lm", "all", "2", "1", "6", "50.00", "0", "3", "0"],
    ]
    assert printed.splitlines()[-1] == "lm over greedy, normaliser medasr: +25.0 % relative improvement"
    assert "fracture" not in printed


def test_report_has_a_row_for_each_system_and_normaliser() -> None:
    rows = make_report(RECORDINGS, {"greedy": HEARD}, ["medasr", "words"]).to_pylist()
    assert [(row["recording_id"], row["normaliser"]) for row in rows] == [
        ("a", "medasr"),
        ("a", "words"),
        ("b", "medasr"),
        ("b", "words"),
    ]
    assert rows[2] == {
        "recording_id": "b",
        "system": "greedy",
        "normaliser": "medasr",
        "error_reason": "fetch_failed",
        "reference": "lungs are clear",
        "hypothesis": "",
        "words": 3,
        "substitutions": 0,
        "deletions": 3,
        "insertions": 0,
        "labels": [("voice", "awb")],
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "archive.manifest is missing"),
        (["--archive.manifest", "{folder}/bare.csv"], "no row has a reference"),
        (
            ["--archive.manifest", "{folder}/refs.csv", "--by", "speaker"],
            "--by speaker: .* no such column; .*voice",
        ),
        (
            ["--archive.manifest", "{folder}/refs.csv", "--systems", "whisper", "--whisper-model", "{folder}"],
            "no model.bin|extra",
        ),
    ],
)
def test_bad_arguments_are_explained(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "1.wav").write_bytes(b"RIFF")
    (tmp_path / "bare.csv").write_text("uri\n1.wav\n")
    (tmp_path / "refs.csv").write_text("uri,reference,voice\n1.wav,clear,slt\n")
    with pytest.raises(ConfigError, match=said):
        evaluate([argument.format(folder=tmp_path) for argument in arguments])


def test_an_unknown_system_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        evaluate(["--systems", "greedy,siri"])
    assert exit_status.value.code == 2
    assert "'siri' is none of greedy, lm, whisper" in capsys.readouterr().err


def test_the_demo_succeeds_when_exactly_the_recordings_without_reference_failed() -> None:
    good = {"a": HEARD["a"], "c": HEARD["c"]}
    assert failed_as_intended([GOOD, BROKEN], {"greedy": good, "lm": good})
    assert not failed_as_intended(RECORDINGS, {"greedy": HEARD, "lm": HEARD})
    assert not failed_as_intended([GOOD, BROKEN], {"greedy": good, "lm": good | {"c": Heard("a note", "A note")}})


def test_the_demo_shows_each_file_with_its_rates_and_fits_the_width() -> None:
    better = HEARD | {"a": Heard("no acute fracture", "No acute fracture. " * 10)}
    table = make_table(RECORDINGS, {"greedy": HEARD, "lm": better}, width=90)
    console = Console(width=90)
    with console.capture() as capture:
        console.print(table)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if line.startswith("│")]
    assert lines == [
        ["ct/1.wav", "ok", "No acute fracture. No acute fracture…", "33.3", "0.0"],
        ["ct/2.wav", "fetch_failed", "4 tries failed", "100.0", "100.0"],
        ["notes.wav", "not_audio", "this is text", "", ""],
    ]


def test_the_demo_archive_is_what_its_readme_says() -> None:
    recordings = read_references(Archive.model_validate({"manifest": "embedded:demo-archive/references.csv"}))
    spoken = [recording for recording in recordings if "reference" in recording.metadata]
    assert (len(recordings), len(spoken)) == (29, 27)
    assert sum(recording.size_bytes for recording in recordings) <= 6_000_000
