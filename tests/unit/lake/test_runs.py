"""Run records say what ran, on what, and how it ended, and hold no secret."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from dictalake.config.sections import Config, Lake
from dictalake.lake.query import connect
from dictalake.lake.runs import RunLog, RunRecord, describe_config
from dictalake.lake.schema import RUNS
from dictalake.lake.table import TranscriptTable


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def test_a_run_leaves_a_start_and_an_end(lake: Lake) -> None:
    log = RunLog(lake)
    log.append(RunRecord(run_id="r1", event="started", at=datetime(2026, 3, 1, 8, tzinfo=UTC), recordings=10, cpus=2.0))
    end = RunRecord(
        run_id="r1",
        event="finished",
        at=datetime(2026, 3, 1, 9, tzinfo=UTC),
        ok=9,
        failed=1,
        failures={"not_audio": 1},
        versions={"torch": "2.13.0"},
    )
    RunLog(lake).append(end)
    rows = log.read().select(["run_id", "event", "at", "recordings", "ok", "failed", "failures", "versions"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("r1", "started", datetime(2026, 3, 1, 8, tzinfo=UTC), 10, None, None, None, None),
        ("r1", "finished", datetime(2026, 3, 1, 9, tzinfo=UTC), None, 9, 1, [("not_audio", 1)], [("torch", "2.13.0")]),
    ]


@pytest.mark.parametrize("event", ["finished", "stopped", "failed"])
def test_each_end_of_a_run_is_its_state_and_comes_after_its_start(lake: Lake, event: Literal["stopped"]) -> None:
    log, at = RunLog(lake), datetime(2026, 3, 1, 8, tzinfo=UTC)
    log.append(RunRecord(run_id="r1", event=event, at=at, ok=3), RunRecord(run_id="r1", event="started", at=at))
    assert log.read()["event"].to_pylist() == ["started", event]
    TranscriptTable(lake)
    assert connect(str(lake.uri)).execute("SELECT run_id, state, ok FROM runs").fetchall() == [("r1", event, 3)]


def test_a_record_that_was_written_twice_counts_once(lake: Lake) -> None:
    log, record = RunLog(lake), RunRecord(run_id="r1", event="finished", ok=3)
    log.append(record)
    log.append(record)  # the answer to the first was lost
    assert log.read()["ok"].to_pylist() == [3]


def test_a_lake_without_runs_has_an_empty_record(lake: Lake) -> None:
    assert RunLog(lake).read().schema.equals(RUNS)


def test_the_record_has_a_field_for_every_column() -> None:
    assert [field.name for field in fields(RunRecord)] == RUNS.names


def test_the_configuration_is_kept_without_its_credentials() -> None:
    options = {"lake": {"uri": "s3://b/lake", "storage_options": {"AWS_SECRET_ACCESS_KEY": "canary"}}}
    config = Config.model_validate({**options, "archive": {"storage_options": {"token": "canary"}}})
    text, digest = describe_config(config)
    assert "canary" not in text
    assert json.loads(text)["lake"]["storage_options"] == {"AWS_SECRET_ACCESS_KEY": "***"}
    assert json.loads(text)["lake"]["uri"] == "s3://b/lake"
    assert len(digest) == 16


def test_the_hash_changes_with_the_configuration_alone() -> None:
    same = [describe_config(Config())[1] for _ in range(2)]
    other = describe_config(Config.model_validate({"decoding": {"beam_width": 9}}))[1]
    assert same[0] == same[1] != other
