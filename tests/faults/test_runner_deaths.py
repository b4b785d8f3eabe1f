"""A run with three runners over real Ray: one is killed, a recording kills workers, and an archive object is half reported."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dictalake.errors import ConfigError
from dictalake.workflow import run as story
from dictalake.workflow.plan import Resources
from dictalake.workflow.run import transcribe
from tests.archives_of_files import make_zip
from tests.faults.deadly_stages import KillsItsRunner, RefusesToOpen, write_deadly
from tests.recordings import make_config, make_sound, read_rows, write_wav
from tests.stub_stages import StubDecode, StubEmit

THREE = {"runners": 3, "block_rows": 4, "block_audio_s": 4.0}
THREE |= {"load_memory_mb": 400.0, "emit_memory_mb": 300.0, "decode_memory_mb": 200.0, "finish_memory_mb": 200.0}


def test_a_runner_that_is_killed_costs_no_recording_and_doubles_none(
    two_cpus: Resources,
    random_lasr: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive = tmp_path / "archive"
    for number in range(22):
        write_wav(archive / f"{number:02}.wav", make_sound(1.0, seed=number))
    write_deadly(archive / "deadly.wav")
    packed = {f"{name}.wav": (archive / f"{name}.wav").read_bytes() for name in ("00", "01", "02", "03", "04", "05")}
    (archive / "zz.zip").write_bytes(make_zip(packed))
    for name, stage in (("Load", KillsItsRunner), ("Emit", StubEmit), ("Decode", StubDecode)):
        monkeypatch.setattr(story, name, stage)
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(archive)}, ray=THREE)
    with caplog.at_level(logging.WARNING, logger="dictalake"):
        summary = transcribe(config)
    assert (tmp_path / "KILLED").exists()
    assert any("a runner died" in record.getMessage() for record in caplog.records)
    assert (summary.ok, summary.failed) == (28, 1)
    assert summary.failures == {"worker_crashed (load)": 1}
    rows = read_rows(tmp_path / "lake")
    assert len(rows) == 29 == len({row["recording_id"] for row in rows})
    assert transcribe(config).skipped == 24


def test_what_a_runners_worker_refuses_ends_the_run_with_its_words(
    two_cpus: Resources, random_lasr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wav(tmp_path / "archive/0.wav", make_sound(1.0, seed=1))
    monkeypatch.setattr(story, "Emit", RefusesToOpen)
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")}, ray=THREE)
    with pytest.raises(ConfigError, match=r"^acoustic\.model: not this one$"):
        transcribe(config)
