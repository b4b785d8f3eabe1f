"""``backfill --dry-run`` says what would be done, and writes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.cli.main import run_command
from dictalake.config.load import load_config
from dictalake.config.sections import Config
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.workflow.dry_run import plan_dry_run
from dictalake.workflow.identity import identify
from tests.recordings import make_sound, write_wav
from tests.truth_lake import commit, make_version


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in "abc":
        write_wav(folder / f"{name}.wav", make_sound(1.0, 0))
    return folder


def configure(archive: Path, lake: Path, **keys: str) -> Config:
    pairs = [("archive.uri", str(archive)), ("lake.uri", str(lake)), ("decoding.lm", "null"), ("report.price_per_hour", "2")]
    return load_config("demo", [*pairs, *((key.replace("__", "."), value) for key, value in keys.items())], environment={})


def list_files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_lake_that_is_not_there_is_not_made(archive: Path, tmp_path: Path) -> None:
    plan = plan_dry_run(configure(archive, tmp_path / "lake"))
    assert (plan.counts.found, plan.counts.pending, plan.audio_hours, plan.cost) == (3, 3, None, None)
    assert plan.size_bytes == sum(path.stat().st_size for path in archive.iterdir())
    assert not (tmp_path / "lake").exists()


def test_what_is_done_and_erased_is_left_out_and_the_rest_estimated_without_a_change(archive: Path, tmp_path: Path) -> None:
    from dictalake.archive.manifest import scan_recordings

    config = configure(archive, tmp_path / "lake")
    fingerprint = identify(config, find_checkpoint(config.acoustic)).fingerprint
    [done, erased, left] = sorted(scan_recordings(config.archive), key=lambda one: one.uri)
    row = make_version(done.uri, recording_id=done.recording_id, fingerprint=fingerprint)
    row["quality"] |= {"duration_s": 360.0}
    row["source"] |= {"size_bytes": 36_000}
    commit(config.lake, row)
    RunLog(config.lake).append(RunRecord(run_id="r", event="finished", ok=1, audio_hours=4.0, wall_s=3600.0))
    forget(config.lake, Subjects(uris=(erased.uri,)), force=True)
    before = list_files(tmp_path / "lake")
    plan = plan_dry_run(config)
    assert (plan.counts.found, plan.counts.skipped, plan.counts.erased, plan.counts.pending) == (2, 1, 1, 1)
    assert plan.size_bytes == left.size_bytes
    assert plan.audio_hours == pytest.approx(left.size_bytes / 100 / 3600)
    assert plan.cost == pytest.approx(plan.audio_hours / 4 * 2)
    assert plan.new is None
    assert list_files(tmp_path / "lake") == before


def test_the_command_says_what_a_new_fingerprint_means(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(archive, tmp_path / "lake")
    commit(config.lake, make_version("gs://a/1"))
    before = list_files(tmp_path / "lake")
    arguments = [str(archive), str(tmp_path / "lake"), "--dry-run", "--decoding.lm", "null"]
    assert run_command("backfill", arguments) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  to do +3$", shown, re.M)
    assert "is new to this lake" in shown
    assert run_command("backfill", [*arguments, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["pending"] == 3
    assert list_files(tmp_path / "lake") == before
