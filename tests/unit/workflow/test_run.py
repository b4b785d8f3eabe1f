"""What a run says and where, without Ray."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import pyarrow as pa
import pytest

from dictalake import logs, terminal
from dictalake.config.sections import Config
from dictalake.errors import ConfigError, Erased
from dictalake.lake.manifests import BlockPlace, Manifests
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.observers.stats import FailureKind, RunStats
from dictalake.records import Recording
from dictalake.workflow import columns, run
from dictalake.workflow.worklist import Counts
from tests.lake_rows import make_failed_row, make_row


def warn_and_fail(*_: object) -> None:
    logs.log_event("slow_dtype", "the model will be slow", level=logs.WARNING)
    raise ConfigError("and that is all")


@pytest.mark.parametrize("has_file", [True, False])
def test_a_piped_night_shows_the_warnings_that_no_file_can_hold(
    has_file: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "_open_run", warn_and_fail)
    if not has_file:
        monkeypatch.setattr(terminal, "_open_file", lambda job: None)
    with pytest.raises(ConfigError, match="that is all"):
        run.transcribe(Config(), job="nightly")
    assert ("the model will be slow" in capfd.readouterr().err) == (not has_file)


def test_a_run_that_met_what_was_erased_blanks_it_in_its_own_manifest_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing could not know that the object is of an erased study, so its manifest had named it."""
    config = Config.model_validate({"lake": {"uri": str(tmp_path / "lake")}})
    lake, table, stats = config.lake, TranscriptTable(config.lake), RunStats()
    error = {"stage": "load", "reason": Erased.reason, "detail": "it was erased and is kept out", "retryable": False}
    named = columns.recordings_to_table([Recording(one, f"gs://archive/{one}.dcm", "1", 10) for one in ("x", "y")])
    for run_id in ("r1", "other"):
        list(Manifests(lake).write(run_id, [named], named.schema))

    def commit(*_: object) -> None:
        rows = [make_failed_row("x", error=error), make_row("y")]
        table.commit(write_staged(make_transcripts(rows), lake))
        stats.failures[FailureKind(Erased.reason, "load")] += 1

    for name in ("make_plan", "plan_heavy", "ClusterCrashLedger", "_open_book", "_open_reader"):
        monkeypatch.setattr(run, name, MagicMock())
    for module, name in ((run.cluster, "running_cluster"), (run, "reserve_memory")):
        monkeypatch.setattr(module, name, MagicMock(side_effect=lambda *_: nullcontext(MagicMock(cpus=1.0, gpus=0.0))))
    for name in ("_while_alive", "start_record"):
        monkeypatch.setattr(run, name, MagicMock())
    monkeypatch.setattr(run, "commit_as_they_come", commit)
    of_run = MagicMock(config=config, stats=stats, table=table, provenance=MagicMock(run_id="r1"))
    planning = MagicMock(counts=Counts(), find_missing=lambda: 0)
    run._do_work(of_run, planning, pa.table({"part": [0]}), MagicMock())
    left = {run_id: Manifests(lake).read_block(run_id, BlockPlace(0, 0))["uri"].to_pylist() for run_id in ("r1", "other")}
    assert left == {"r1": ["", "gs://archive/y.dcm"], "other": ["gs://archive/x.dcm", "gs://archive/y.dcm"]}
