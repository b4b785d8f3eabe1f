"""The stage Recognize gives one row for each recording, cuts at pauses, and recognises equal channels once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.archive.listing import list_recordings
from dictalake.config.sections import Config
from dictalake.records import SAMPLE_RATE_HZ, Recording, Word
from dictalake.workflow import columns
from dictalake.workflow.identity import identify
from dictalake.workflow.stages.assemble import Assemble, RowAssembler
from dictalake.workflow.stages.load import Load
from dictalake.workflow.stages.recognize import Recognize
from tests.engine_models import save_random_qwen_asr
from tests.recordings import MIXED_ARCHIVE, make_config, make_sound, write_mixed_archive, write_wav


@pytest.fixture(scope="module")
def random_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_qwen_asr(tmp_path_factory.mktemp("models") / "random-qwen")


def config_of(model: Path, folder: Path, **acoustic: object) -> Config:
    keys = {"kind": "qwen3-asr", **acoustic}
    return make_config(model, folder / "lake", acoustic=keys, archive={"uri": str(folder / "archive")})


def load(config: Config) -> pa.Table:
    return pa.concat_tables(Load(config)(columns.recordings_to_table(list(list_recordings(config.archive)))))


def test_every_recording_has_its_row_with_words_or_the_error_it_came_with(random_qwen: Path, tmp_path: Path) -> None:
    write_mixed_archive(tmp_path / "archive")
    config = config_of(random_qwen, tmp_path)
    loaded = load(config)
    heard = Recognize(config, threads=1)(loaded)
    assert heard["recording_id"].to_pylist() == loaded["recording_id"].to_pylist()
    assert heard["error"].to_pylist() == loaded["error"].to_pylist()
    assert "waveforms" not in heard.column_names
    provenance = identify(config, find_checkpoint(config.acoustic))
    rows = [RowAssembler(config, provenance, None).assemble(row) for row in heard.to_pylist()]
    assert sorted(row["status"] for row in rows) == sorted("failed" if r else "ok" for r in MIXED_ARCHIVE.values())
    for row in rows:
        if row["status"] == "ok":
            assert row["text_raw"] == " ".join(word["word"] for word in row["words"]) != ""
            assert row["confidence"] is None  # Qwen3-ASR says none
            assert row["nbest"] is None
            assert row["timings"]["emit_ms"] > 0
            assert row["timings"]["decode_ms"] is None
    names = {row["source"]["uri"].rsplit("/", 1)[-1]: row for row in rows}
    assert {word["channel"] for word in names["two_channels.wav"]["words"]} == {0, 1}
    two = [word["word"] for word in names["two_channels.wav"]["words"] if word["channel"] == 1]
    assert two != [word["word"] for word in names["two_channels.wav"]["words"] if word["channel"] == 0]
    assert names["silence.wav"]["provenance"]["decoder"].startswith("transformers 5.")


class Counting:
    """An engine that says how many samples it got, and fails on a stretch that begins with the sample 666."""

    device, dtype = "cpu", "float32"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def recognize(self, stretches: Sequence[np.ndarray]) -> list[list[Word]]:
        if any(stretch[0] == 666 for stretch in stretches):
            raise RuntimeError("a word of the patient")
        self.asked += [len(stretch) for stretch in stretches]
        return [[Word(str(len(stretch)), 0.0, len(stretch) / SAMPLE_RATE_HZ, 0.5)] for stretch in stretches]

    def is_usable(self) -> bool:
        return True


def hear(monkeypatch: pytest.MonkeyPatch, recordings: list[list[np.ndarray]], **acoustic: object) -> tuple[pa.Table, Counting]:
    engine = Counting()
    monkeypatch.setattr("dictalake.workflow.stages.recognize.open_engine", lambda *_: engine)
    config = Config.model_validate({"acoustic": {"kind": "qwen3-asr", **acoustic}})
    table = columns.recordings_to_table([Recording(f"{i}", f"{i}.wav", "1", 1) for i in range(len(recordings))])
    table = columns.extend(table, {"error": columns.ERROR}, [{} for _ in recordings])
    return Recognize(config, threads=1)(columns.append_waveforms(table, recordings)), engine


def test_words_of_a_long_recording_are_on_its_own_time_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    loud = np.full(25 * SAMPLE_RATE_HZ, 9_000, dtype=np.int16)
    loud[8 * SAMPLE_RATE_HZ : 8 * SAMPLE_RATE_HZ + 1_600] = 0  # a pause of a tenth of a second
    table, engine = hear(monkeypatch, [[loud]], stretch_s=10)
    assert engine.asked == [128_800, 159_200, 112_000]
    times = [(word["word"], word["start_s"], word["end_s"]) for word in table["recognized_words"].to_pylist()[0][0]]
    assert times == [("128800", 0.0, 8.05), ("159200", 8.05, 18.0), ("112000", 18.0, 25.0)]


def test_a_channel_that_is_the_same_is_heard_once_and_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    sound, other = np.full(100, 5, dtype=np.int16), np.full(300, 7, dtype=np.int16)
    table, engine = hear(monkeypatch, [[sound, other, sound], [other]])
    assert engine.asked == [100, 300, 300]
    words = [[[word["word"] for word in channel] for channel in row] for row in table["recognized_words"].to_pylist()]
    assert words == [[["100"], ["300"], ["100"]], [["300"]]]


def test_what_the_engine_cannot_hear_is_one_row_and_tells_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = np.full(100, 666, dtype=np.int16), np.full(300, 7, dtype=np.int16)
    table, _ = hear(monkeypatch, [[good], [bad], [good]])
    first, error, last = table["error"].to_pylist()
    assert first is last is None
    assert (error["stage"], error["reason"], error["retryable"]) == ("hear", "model_failed", True)
    assert error["detail"] == "the engine failed on this recording: RuntimeError"
    words = [[word["word"] for channel in row for word in channel] for row in table["recognized_words"].to_pylist()]
    assert words == [["300"], [], ["300"]]


def test_a_recording_that_the_engine_cannot_hear_is_written_like_any_other(
    random_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = np.full(SAMPLE_RATE_HZ, 666 / 32_768)
    write_wav(tmp_path / "archive/bad.wav", bad)
    write_wav(tmp_path / "archive/good.wav", make_sound(1.0, seed=1))
    monkeypatch.setattr("dictalake.workflow.stages.recognize.open_engine", lambda *_: Counting())
    config = config_of(random_qwen, tmp_path)
    provenance = identify(config, find_checkpoint(config.acoustic))
    report = Assemble(config, provenance, None)(Recognize(config, threads=1)(load(config))).to_pylist()
    assert sum(len(file["recording_ids"]) for file in report) == 2
    failures = [(failure["stage"], failure["reason"]) for file in report for failure in file["failures"]]
    assert failures == [("hear", "model_failed")]


def test_a_group_holds_no_more_audio_than_memory_allows() -> None:
    table = columns.recordings_to_table([Recording(f"{i}", f"{i}.wav", "1", 1) for i in range(4)])
    waveforms = [[np.zeros(seconds * SAMPLE_RATE_HZ, dtype=np.int16)] for seconds in (3, 1, 1, 9)]
    groups = list(columns.group_by_audio(columns.append_waveforms(table, waveforms), range(4), 4.0))
    assert groups == [[0, 1], [2], [3]]
