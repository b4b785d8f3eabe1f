"""What a system made of each recording: read from a lake, or transcribed in this process."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dictalake.archive.manifest import find_recordings
from dictalake.audio.load import AudioLoader, LoadedAudio
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError
from dictalake.evaluation.systems import (
    SystemOutput,
    join_run,
    make_finder,
    make_utterances,
    read_transcripts,
    transcribe_here,
)
from dictalake.evaluation.utterances import Utterance
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from tests.archives_of_files import make_zip
from tests.evaluated import GOOD, LOST, OUTPUTS, RECORDINGS
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row
from tests.unit.audio.formats.archive_samples import encode, make_tone

VOX = b"\x08\x80" * 2000  # a second of nearly nothing at 8 kHz


def test_a_failed_recording_has_no_hypothesis_and_one_without_reference_is_left_out() -> None:
    assert make_utterances(RECORDINGS, OUTPUTS) == [
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
    assert (found["b.wav"].detail or "").startswith("RuntimeError in test_systems.py:")

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
