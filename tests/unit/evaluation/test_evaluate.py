"""From rows of the lake to the tables of ``dictalake evaluate`` and ``dictalake demo``."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from dictalake.archive.manifest import find_recordings
from dictalake.audio.load import AudioLoader, LoadedAudio
from dictalake.cli.demo import failed_as_intended, show_table
from dictalake.cli.demo import make_rows as make_demo_rows
from dictalake.cli.main import run_command
from dictalake.cli.score_tables import show_clinical, show_figures
from dictalake.config.sections import Archive, Config, Lake
from dictalake.errors import ConfigError
from dictalake.evaluation.report import assess_all, make_figures, make_rows, write_report
from dictalake.evaluation.systems import (
    SystemOutput,
    join_run,
    make_finder,
    make_systems,
    make_utterances,
    read_references,
    read_transcripts,
    transcribe_here,
)
from dictalake.evaluation.utterances import Utterance
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row
from tests.unit.archive.test_unpack import make_zip
from tests.unit.audio.formats.archive_samples import encode, make_tone

GOOD = Recording("a", "file:///demo/recordings/ct/1.wav", "1", 10, metadata={"reference": "no acute fracture", "voice": "slt"})
LOST = Recording("b", "file:///demo/recordings/ct/2.wav", "1", 10, metadata={"reference": "lungs are clear", "voice": "awb"})
BROKEN = Recording("c", "file:///demo/recordings/notes.wav", "1", 10)
RECORDINGS = [GOOD, LOST, BROKEN]
VOX = b"\x08\x80" * 2000  # a second of nearly nothing at 8 kHz
HEARD = {
    "a": SystemOutput("no cute fracture", "No cute fracture"),
    "b": SystemOutput(reason="fetch_failed", detail="4 tries failed"),
    "c": SystemOutput(reason="not_audio", detail="this is text"),
}


def test_a_failed_recording_has_no_hypothesis_and_one_without_reference_is_left_out() -> None:
    assert make_utterances(RECORDINGS, HEARD) == [
        Utterance("a", "no acute fracture", "no cute fracture", GOOD.metadata),
        Utterance("b", "lungs are clear", None, LOST.metadata),
    ]


def test_silence_is_an_empty_hypothesis_not_a_failure() -> None:
    assert make_utterances([GOOD], {"a": SystemOutput("", "")})[0].hypothesis == ""


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
        "a": SystemOutput("no acute fracture", "No acute fracture", confidence=0.5),
        "b": SystemOutput(reason="no_row", detail="the lake has no row of this recording"),
        "c": SystemOutput(reason="not_audio", detail="the object is text"),
    }


def test_an_archive_object_has_the_texts_of_all_files_in_it(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    uri = "file:///a/week.zip"
    rows = [
        make_row("m2", archive_id="a", text_raw="fracture", text="fracture", source={"uri": f"{uri}#2.wav"}),
        make_row("m1", archive_id="a", text_raw="no acute", text="No acute", source={"uri": f"{uri}#1.wav"}),
        make_row("m3", archive_id="b", source={"uri": "file:///b.zip#1.wav"}),
        make_failed_row("m4", archive_id="b"),
    ]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    outputs = read_transcripts(lake, FINGERPRINT, [GOOD, LOST])
    assert (outputs["a"].text_raw, outputs["a"].text) == ("no acute fracture", "No acute fracture")
    assert outputs["b"].reason == "not_audio"


def failed(recording_id: str, **changes: Any) -> dict[str, Any]:
    error = {"stage": "load", "reason": "fetch_failed", "detail": "4 tries failed", "retryable": True}
    return make_failed_row(recording_id, error=error, **changes)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (failed("a"), None),  # before it could be read
        (failed("a", archive_id="a"), None),
        (failed("a", archive_id="a", archive_rows=3), "fetch_failed"),  # of the same reading: part of it is damaged
    ],
)
def test_an_old_failure_of_an_archive_object_does_not_count_once_its_files_are_read(
    tmp_path: Path, own: dict[str, Any], expected: str | None
) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    rows_of_it = 2 if own.get("archive_rows") is None else 3
    members = [
        make_row(name, attempt=1, archive_id="a", archive_rows=rows_of_it, source={"uri": f"file:///a.zip#{name}"})
        for name in ("m1", "m2")
    ]
    TranscriptTable(lake).commit(write_staged(make_transcripts([own, *members]), lake))
    assert read_transcripts(lake, FINGERPRINT, [GOOD])["a"].reason == expected


def test_an_archive_object_with_files_that_were_not_read_failed(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    rows = [failed("a", archive_id="a", attempt=1), make_row("m1", archive_id="a", archive_rows=2)]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    assert read_transcripts(lake, FINGERPRINT, [GOOD])["a"].reason == "fetch_failed"


def test_an_archive_object_of_another_version_is_joined_by_its_uri(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})

    def member(recording_id: str, archive: str, name: str, day: int) -> dict[str, Any]:
        source = {"uri": f"file:///{name}", "modified_at": datetime(2026, 3, day, tzinfo=UTC)}
        of = {"archive_id": archive, "archive_rows": 2}
        return make_row(recording_id, text_raw=recording_id, source=source, **of)

    rows = [
        member("old1", "old", "a.zip#1.wav", 1),
        member("old2", "old", "a.zip#2.wav", 1),
        member("new2", "new", "a.zip#2.wav", 2),
        member("new1", "new", "a.zip#1.wav", 2),
        member("odd1", "odd", "w#1.zip#m#1.wav", 2),
        make_row("plain", text_raw="plain", source={"uri": "file:///b#1.wav"}),
    ]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    names = ("a.zip", "w#1.zip", "b#1.wav", "b")
    joined = join_run(lake, FINGERPRINT, [Recording(name, f"file:///{name}", "9", 1) for name in names])
    assert {name: joined[name].text_raw or joined[name].reason for name in names} == {
        "a.zip": "new1 new2",
        "w#1.zip": "odd1",
        "b#1.wav": "plain",
        "b": "no_row",
    }


def test_a_defect_costs_one_recording_of_a_system_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = encode(make_tone(), 16_000, "WAV")
    (tmp_path / "a.wav").write_bytes(sound)
    (tmp_path / "b.wav").write_bytes(sound)
    (tmp_path / "c.zip").write_bytes(make_zip({"b.wav": sound}))
    config = Config.model_validate({"archive": {"uri": str(tmp_path)}})
    recordings = list(find_recordings(config.archive))
    load = AudioLoader.load

    def load_all_but_b(self: AudioLoader, data: bytes, recording: Recording) -> LoadedAudio:
        if recording.uri.endswith("b.wav"):
            raise RuntimeError("a patient's name")
        return load(self, data, recording)

    monkeypatch.setattr(AudioLoader, "load", load_all_but_b)
    outputs = transcribe_here(lambda waveforms: "text", recordings, config)
    found = {one.uri.rsplit("/", 1)[-1]: outputs[one.recording_id] for one in recordings}
    assert {name: output.reason for name, output in found.items()} == {
        "a.wav": None,
        "b.wav": "internal_error",
        "c.zip": "internal_error",
    }
    assert (found["b.wav"].detail or "").startswith("RuntimeError in test_evaluate.py:")

    def refuse(self: AudioLoader, data: bytes, recording: Recording) -> LoadedAudio:
        raise ConfigError("a key that every recording needs")

    monkeypatch.setattr(AudioLoader, "load", refuse)
    with pytest.raises(ConfigError, match="a key that every recording needs"):
        transcribe_here(lambda waveforms: "text", recordings, config)


def test_a_system_in_this_process_reads_archive_objects_and_vox_as_a_run_does(tmp_path: Path) -> None:
    sound = encode(make_tone(), 16_000, "WAV")
    (tmp_path / "week.zip").write_bytes(make_zip({"1.wav": sound, "2.vox": VOX}))
    (tmp_path / "day.zip").write_bytes(make_zip({"1.wav": sound}))
    (tmp_path / "take.vox").write_bytes(VOX)
    (tmp_path / "note.wav").write_text("call the ward")
    config = Config.model_validate({"archive": {"uri": str(tmp_path), "vox_rate_hz": 8_000}})
    recordings = list(find_recordings(config.archive))
    outputs = transcribe_here(lambda waveforms: f"{waveforms.shape[1]} samples", recordings, config)
    found = {one.uri.rsplit("/", 1)[-1]: outputs[one.recording_id] for one in recordings}
    assert found["week.zip"].text_raw == "16000 samples 16000 samples"
    assert found["take.vox"].text_raw == "16000 samples"
    assert found["note.wav"].reason == "not_audio"
    find = make_finder(recordings, config)
    waveforms = {name: find(one.recording_id) for name, one in zip(found, recordings, strict=True)}
    lengths = {name: None if waveform is None else len(waveform) for name, waveform in waveforms.items()}
    assert lengths == {"week.zip": None, "day.zip": 16_000, "take.vox": 16_000, "note.wav": None}


def test_a_run_of_another_day_is_joined_by_uri_where_the_object_has_another_version(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})

    def source(day: int, uri: str) -> dict[str, Any]:
        return {"source": {"uri": uri, "version": str(day), "modified_at": datetime(2026, 3, day, tzinfo=UTC)}}

    rows = [
        make_row("new", text_raw="newer", text="Newer", **source(2, GOOD.uri)),
        make_row("old", text_raw="older", text="Older", **source(1, GOOD.uri)),
        make_row("b", text_raw="itself", text="Itself", **source(1, LOST.uri)),
        make_row("b2", text_raw="another version", **source(3, LOST.uri)),
    ]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    assert join_run(lake, FINGERPRINT, RECORDINGS) == {
        "a": SystemOutput("newer", "Newer", confidence=0.5),
        "b": SystemOutput("itself", "Itself", confidence=0.5),
        "c": SystemOutput(reason="no_row", detail="the lake has no row of this recording"),
    }
    with pytest.raises(ConfigError, match=f"--run 000000000000: .* no row with this fingerprint; it has {FINGERPRINT}"):
        join_run(lake, "000000000000", RECORDINGS)


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
    assert "rest on 2 recordings or clusters are narrower than the truth" in page
    assert "rest on 2 recordings" in capsys.readouterr().out


KEYS = (
    *("wer", "wer_low", "wer_high", "cer", "substitutions", "deletions", "insertions", "reference_words"),
    *("term_recall", "term_precision", "negation_errors", "number_errors", "laterality_errors"),
)


def speak(path: Path, seconds: int) -> None:
    soundfile.write(path, np.zeros(16_000 * seconds, dtype=np.int16), 16_000)


def assess_demo() -> Any:
    better = HEARD | {"a": SystemOutput("no acute fracture", "No acute fracture", confidence=0.9)}
    scored = {"greedy": make_utterances(RECORDINGS, HEARD), "lm": make_utterances(RECORDINGS, better)}
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
    with pytest.raises(ConfigError, match="--run: each system needs a name of its own"):
        run_command("evaluate", [*given, "--run", "aaaaaaaaaaaa", "--run", "aaaaaaaaaaaa"])


def test_systems_are_configurations(tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_text("decoding:\n  beam_width: 32\n")
    config = Config.model_validate({"decoding": {"hotwords": "drugs.txt", "lm_weight": 0.7}})
    systems = make_systems(config, ["greedy", "lm", "hotwords", "whisper"], [("wide", str(tmp_path / "wide.yaml"))])
    assert {name: (s.decoding.kind, s.decoding.hotwords) for name, s in systems.items()} == {
        "greedy": ("greedy", None),
        "lm": ("beam", None),
        "hotwords": ("beam", "drugs.txt"),
        "wide": ("beam", "drugs.txt"),
    }
    assert (systems["wide"].decoding.beam_width, systems["wide"].decoding.lm_weight) == (32, 0.7)
    with pytest.raises(ConfigError, match="--system lm: another system has this name"):
        make_systems(config, ["greedy"], [("lm", str(tmp_path / "wide.yaml"))])
    with pytest.raises(ConfigError, match=r"the system hotwords needs decoding\.hotwords"):
        make_systems(Config.model_validate({}), ["hotwords"], [])


def test_own_terms_take_the_place_of_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# ours\nacute fracture\tbones\nlungs\n")
    scored = {"greedy": make_utterances(RECORDINGS, HEARD)}
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
    with pytest.raises(ConfigError, match=r"^--systems: 'siri' is none of greedy, lm, hotwords, whisper$"):
        run_command("evaluate", ["--systems", "greedy,siri"])


def test_the_demo_succeeds_when_exactly_the_recordings_without_reference_failed() -> None:
    good = {"a": HEARD["a"], "c": HEARD["c"]}
    assert failed_as_intended([GOOD, BROKEN], {"greedy": good, "lm": good})
    assert not failed_as_intended(RECORDINGS, {"greedy": HEARD, "lm": HEARD})
    assert not failed_as_intended([GOOD, BROKEN], {"greedy": good, "lm": good | {"c": SystemOutput("a note", "A note")}})


def test_the_demo_shows_each_file_with_its_rates_and_fits_the_width() -> None:
    better = HEARD | {"a": SystemOutput("no acute fracture", "No acute fracture. " * 10)}
    console = Console(width=90, force_terminal=True, no_color=True)
    with console.capture() as capture:
        show_table(make_demo_rows(RECORDINGS, {"greedy": HEARD, "lm": better}), console)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if line.startswith("│")]
    assert lines == [
        ["ct/1.wav", "No acute fracture. No acute fracture. No acute fracture.…", "33.3", "0.0"],
        ["ct/2.wav", "fetch_failed: 4 tries failed", "100.0", "100.0"],
        ["notes.wav", "not_audio: this is text", "", ""],
    ]


def test_the_demo_archive_is_what_its_readme_says() -> None:
    recordings = read_references(Archive.model_validate({"manifest": "embedded:demo-archive/references.csv"}))
    spoken = [recording for recording in recordings if "reference" in recording.metadata]
    assert (len(recordings), len(spoken)) == (29, 27)
    assert sum(recording.size_bytes for recording in recordings) <= 6_000_000
