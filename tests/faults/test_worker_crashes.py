"""A recording that kills every worker that meets it costs one row, and no other recording notices; real Ray, real SIGKILL."""

from __future__ import annotations

from pathlib import Path

import pytest

from dictalake.lake.query import connect
from dictalake.workflow import run as story
from dictalake.workflow.plan import Resources
from dictalake.workflow.run import transcribe
from dictalake.workflow.worklist import Retry
from tests.faults.deadly_stages import DeadlyEmit, DeadlyLoad, DiesBetweenTables, write_deadly
from tests.recordings import make_config, make_sound, read_rows, write_wav


@pytest.mark.parametrize(("name", "deadly"), [("Emit", DeadlyEmit), ("Load", DeadlyLoad)])
def test_only_the_recording_that_kills_workers_fails(
    name: str, deadly: type, two_cpus: Resources, random_lasr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(11):
        write_wav(tmp_path / f"archive/{number:02}.wav", make_sound(1.0, seed=number))
    write_deadly(tmp_path / "archive/deadly.wav")
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")}, ray={"block_rows": 6})
    with monkeypatch.context() as patch:
        patch.setattr(story, name, deadly)
        summary = transcribe(config)
    assert (summary.ok, summary.failed) == (11, 1)
    assert summary.failures == {f"worker_crashed ({name.lower()})": 1}
    (failed,) = (row for row in read_rows(tmp_path / "lake") if row["status"] == "failed")
    assert failed["source"]["uri"].endswith("/deadly.wav")
    assert failed["error"]["retryable"]

    assert transcribe(config).skipped == 12
    again = transcribe(config, retry=Retry())
    assert (again.skipped, again.retried, again.ok, again.failed) == (11, 1, 1, 0)
    rows = [row for row in read_rows(tmp_path / "lake") if row["recording_id"] == failed["recording_id"]]
    assert sorted((row["attempt"], row["status"]) for row in rows) == [(0, "failed"), (1, "ok")]
    database = connect(str(tmp_path / "lake"))
    counts = "SELECT count(*), count(DISTINCT recording_id), max(attempt) FROM transcripts"
    assert database.sql(counts).fetchall() == [(12, 12, 1)]
    assert database.sql("SELECT count(*) FROM failures").fetchall() == [(0,)]


def test_a_worker_that_dies_between_two_of_its_tables_loses_and_doubles_nothing(
    two_cpus: Resources, random_lasr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(14):
        write_wav(tmp_path / f"archive/{number:02}.wav", make_sound(0.5 + number % 3, seed=number))
    (tmp_path / "DEATHS").write_text("3")
    monkeypatch.setattr(story, "Load", DiesBetweenTables)
    archive = {"uri": str(tmp_path / "archive")}
    config = make_config(random_lasr, tmp_path / "lake", archive=archive, ray={"block_rows": 14, "block_audio_s": 4})
    summary = transcribe(config)
    assert (tmp_path / "DEATHS").read_text() == "0"
    rows = read_rows(tmp_path / "lake")
    assert len(rows) == 14 == len({row["recording_id"] for row in rows})
    assert all(row["status"] == "ok" for row in rows)
    assert summary.failed == 0
    assert transcribe(config).skipped == 14
