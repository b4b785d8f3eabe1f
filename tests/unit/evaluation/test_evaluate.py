"""``dictalake evaluate``: its tables, its report, and the arguments that it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from dictalake.cli.main import run_command
from dictalake.cli.score_tables import show_clinical, show_figures
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError
from dictalake.evaluation.report import assess_all, make_figures, make_rows, write_report
from dictalake.evaluation.systems import (
    SystemOutput,
    make_systems,
    make_utterances,
)
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from tests.evaluated import OUTPUTS, RECORDINGS
from tests.lake_rows import make_row


def test_the_rows_of_a_lake_are_scored_without_transcribing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command: two runs that a lake holds already, one better than the other."""
    speak(tmp_path / "1.wav", seconds=40)
    (tmp_path / "refs.csv").write_text("uri,reference,voice\n1.wav,no left effusion of 5 mm,slt\n2.wav,clear lungs,awb\n")
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    uri = f"file://{tmp_path}/1.wav"
    rows = [
        make_row("x", fingerprint="aaaaaaaaaaaa", text_raw="no left effusion of 5 mm", source={"uri": uri}),
        make_row("x", fingerprint="bbbbbbbbbbbb", text_raw="right effusion of 6 mm", source={"uri": uri}),
    ]
    for row in rows:
        TranscriptTable(lake).commit(write_staged(make_transcripts([row]), lake))
    out = tmp_path / "out"
    given = ["--archive.manifest", f"{tmp_path}/refs.csv", "--lake.uri", f"{tmp_path}/lake", "--out", str(out), "--by", "voice"]
    assert (
        run_command("evaluate", [*given, "--run", "aaaaaaaaaaaa=good", "--run", "bbbbbbbbbbbb=bad"]) == 3
    )  # 2.wav is in neither
    systems = json.loads((out / "scores.json").read_text())["systems"]
    assert {name: list(of_system) for name, of_system in systems.items()} == {
        "good": ["medasr", "multimed", "whisper"],
        "bad": ["medasr", "multimed", "whisper"],
    }
    good, bad = systems["good"]["medasr"], systems["bad"]["medasr"]
    for figures in (of_normaliser for of_system in systems.values() for of_normaliser in of_system.values()):
        assert set(KEYS) <= set(figures)
        assert figures["wer_low"] <= figures["wer"] <= figures["wer_high"]
    assert [good[key] for key in ("substitutions", "deletions", "insertions", "reference_words")] == [0, 2, 0, 8]
    assert [bad[key] for key in ("substitutions", "deletions", "insertions", "reference_words")] == [2, 3, 0, 8]
    assert [good[key] for key in ("negation_errors", "number_errors", "laterality_errors")] == [0, 0, 0]
    assert [bad[key] for key in ("negation_errors", "number_errors", "laterality_errors")] == [1, 1, 1]
    assert bad["difference"]["p_value"] == 1  # one recording proves nothing
    assert good["routing"][3] == {"share": 0.05, "wer_of_rest": 0, "errors_caught": 1}  # the failed one goes first
    page = (out / "report.html").read_text()
    assert page.count("data:audio/mpeg;base64,") == 1
    assert ">from 5 s to 35 s<" in page
    assert "sides swapped" in page
    places = [
        page.index(f"<h2>{title}") for title in ("Which system", "Worst transcripts", "Mistakes that may hurt", "All counts")
    ]
    assert places == sorted(places)
    assert re.findall(r"<details( open)?><summary>Normaliser (\w+)", page) == [
        ("", n) for n in ("medasr", "multimed", "whisper")
    ]
    assert "rest on 2 recordings or clusters are narrower than the truth" in page
    assert "rest on 2 recordings" in capsys.readouterr().out


KEYS = (
    *("wer", "wer_low", "wer_high", "cer", "substitutions", "deletions", "insertions", "reference_words"),
    *("term_recall", "term_precision", "negation_errors", "number_errors", "laterality_errors"),
)


def speak(path: Path, seconds: int) -> None:
    soundfile.write(path, np.zeros(16_000 * seconds, dtype=np.int16), 16_000)


def assess_demo() -> Any:
    better = OUTPUTS | {"a": SystemOutput("no acute fracture", "No acute fracture", confidence=0.9)}
    scored = {"greedy": make_utterances(RECORDINGS, OUTPUTS), "lm": make_utterances(RECORDINGS, better)}
    return assess_all(scored, ["medasr", "words"], None)


def test_tables_have_counts_per_group_and_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    figures = make_figures(assess_demo(), "voice")
    show_figures(figures, "medasr", "voice", Console(width=140))
    show_clinical(figures, "medasr", Console(width=140))
    printed = capsys.readouterr().out
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()[2:8]]
    assert [row[:-5] + row[-3:] for row in rows] == [
        ["greedy", "awb", "1", "1", "3", "100.00", "0", "3", "0"],
        ["greedy", "slt", "1", "3", "33.33", "1", "0", "0"],
        ["greedy", "all", "2", "1", "6", "66.67", "1", "3", "0"],
        ["lm", "awb", "1", "1", "3", "100.00", "0", "3", "0"],
        ["lm", "slt", "1", "3", "0.00", "0", "0", "0"],
        ["lm", "all", "2", "1", "6", "50.00", "0", "3", "0"],
    ]
    assert "lm against greedy, normaliser medasr: -16.67 points" in printed
    assert "fracture" not in printed


def test_rows_are_one_for_each_recording_system_and_normaliser() -> None:
    reasons = {"greedy": {"a": None, "b": "fetch_failed"}, "lm": {"a": None, "b": "fetch_failed"}}
    rows = make_rows(assess_demo(), reasons).to_pylist()
    assert [(row["system"], row["recording_id"], row["normaliser"]) for row in rows[:4]] == [
        ("greedy", "a", "medasr"),
        ("greedy", "a", "words"),
        ("greedy", "b", "medasr"),
        ("greedy", "b", "words"),
    ]
    assert len(rows) == 8
    lost = rows[2]
    assert (lost["error_reason"], lost["reference"], lost["hypothesis"]) == ("fetch_failed", "lungs are clear", "")
    assert (lost["words"], lost["substitutions"], lost["deletions"], lost["insertions"]) == (3, 0, 3, 0)
    assert (lost["characters"], lost["character_errors"], lost["labels"]) == (15, 15, [("voice", "awb")])


def test_report_is_three_files_for_their_owner_alone(tmp_path: Path) -> None:
    assessments = assess_demo()
    reasons = {"greedy": {"b": "fetch_failed"}, "lm": {"b": "fetch_failed"}}
    sound = np.zeros(16_000, dtype=np.int16)
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("an older and longer page that others may read" * 9_999)
    write_report(out, make_figures(assessments, None), assessments, reasons, 5, lambda recording_id: sound)
    assert {file.name: file.stat().st_mode & 0o777 for file in out.iterdir()} == dict.fromkeys(
        ["scores.json", "utterances.parquet", "report.html"], 0o600
    )
    scores = json.loads((out / "scores.json").read_text())["systems"]
    assert scores.keys() == {"greedy", "lm"}
    assert scores["greedy"].keys() == {"medasr", "words"}
    needed = "wer wer_low wer_high cer substitutions deletions insertions reference_words term_recall term_precision"
    assert {*needed.split(), "negation_errors", "number_errors", "laterality_errors"} <= scores["lm"]["medasr"].keys()
    assert scores["lm"]["medasr"]["wer"] == 0.5
    assert scores["lm"]["medasr"]["negation_errors"] == 0
    page = (out / "report.html").read_text()
    assert page.count("data:audio/mpeg;base64,") == 3  # greedy a and b, lm b
    assert '<span class="word substituted"><del>acute</del>' in page


def test_text_in_the_page_is_shown_as_text(tmp_path: Path) -> None:
    recording = Recording("a", "file:///a.wav", "1", 1, metadata={"reference": "x", "note": "<script>alert(1)</script>"})
    scored = {"<b>s</b>": make_utterances([recording], {"a": SystemOutput("&lt; y", "y")})}
    assessments = assess_all(scored, ["multimed"], None)
    write_report(tmp_path, make_figures(assessments, "note"), assessments, {"<b>s</b>": {}}, 5, None)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "<b>s" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_file_in_place_of_the_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "1.wav").write_bytes(b"RIFF")
    (tmp_path / "refs.csv").write_text("uri,reference\n1.wav,clear\n")
    (tmp_path / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"--out .*scores\.parquet: is no folder"):
        run_command("evaluate", ["--archive.manifest", f"{tmp_path}/refs.csv", "--out", f"{tmp_path}/scores.parquet"])


def test_two_systems_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "refs.csv").write_text("uri,reference\n1.wav,clear\n")
    given = ["--archive.manifest", f"{tmp_path}/refs.csv", "--lake.uri", f"{tmp_path}/lake"]
    with pytest.raises(ConfigError, match="each system needs a name of its own"):
        run_command("evaluate", [*given, "--run", "aaaaaaaaaaaa", "--run", "aaaaaaaaaaaa"])


def test_systems_are_configurations(tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_text("decoding:\n  beam_width: 32\n")
    config = Config.model_validate({"decoding": {"hotwords": "drugs.txt", "lm_weight": 0.7}})
    names = ["greedy", "greedy-lm", "lm", "hotwords", "whisper"]
    systems = make_systems(config, names, [("wide", str(tmp_path / "wide.yaml"))])
    assert {name: (s.decoding.kind, s.decoding.hotwords) for name, s in systems.items()} == {
        "greedy": ("greedy", None),
        "greedy-lm": ("beam", None),
        "lm": ("beam", None),
        "hotwords": ("beam", "drugs.txt"),
        "wide": ("beam", "drugs.txt"),
    }
    assert {name: s.decoding.beam_width for name, s in systems.items()} | {"greedy": 8} == {
        **dict.fromkeys(systems, 8),
        "greedy-lm": 1,
        "wide": 32,
    }
    assert (systems["wide"].decoding.beam_width, systems["wide"].decoding.lm_weight) == (32, 0.7)
    with pytest.raises(ConfigError, match="--system lm: another system has this name"):
        make_systems(config, ["greedy"], [("lm", str(tmp_path / "wide.yaml"))])
    with pytest.raises(ConfigError, match=r"the system hotwords needs decoding\.hotwords"):
        make_systems(Config.model_validate({}), ["hotwords"], [])


def test_own_terms_take_the_place_of_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# ours\nacute fracture\tbones\nlungs\n")
    scored = {"greedy": make_utterances(RECORDINGS, OUTPUTS)}
    figures = make_figures(assess_all(scored, ["medasr"], tmp_path / "mine.txt"), None)["greedy"]["medasr"]
    assert {name: (count["said"], count["recall"]) for name, count in figures["terms"].items()} == {
        "bones": (1, 0.0),
        "mine": (1, 0.0),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "archive.manifest is not set"),
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
        run_command("evaluate", [argument.format(folder=tmp_path) for argument in arguments])


def test_an_unknown_system_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--systems: 'siri' is none of greedy, greedy-lm, lm, hotwords, whisper$"):
        run_command("evaluate", ["--systems", "greedy,siri"])
