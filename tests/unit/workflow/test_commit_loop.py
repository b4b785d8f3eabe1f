"""How a run ends its commits: what is finished is committed, whenever the request to stop comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.table import CommitResult, TranscriptTable
from dictalake.observers.base import Observer
from dictalake.observers.stats import RunStats
from dictalake.workflow.commit_loop import commit_as_they_come
from dictalake.workflow.stages.assemble import REPORT
from tests.lake_rows import done_ids, make_rows


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def make_report(name: str, lake: Lake) -> pa.Table:
    counts = {"audio_s": 2.0, "failures": [], "uncovered": [], "lost": [], "retries": 0}
    rows = [{**file.to_row(), **counts} for file in write_staged(make_rows([name]), lake)]
    return pa.Table.from_pylist(rows, schema=REPORT)


@pytest.mark.parametrize("stop", [SystemExit(143), KeyboardInterrupt()], ids=["SIGTERM", "Ctrl-C"])
def test_a_stop_during_the_last_commit_ends_the_run_after_that_commit(
    stop: BaseException, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, commit, tries = TranscriptTable(lake), TranscriptTable.commit, list[int]()

    def be_stopped_once(self: TranscriptTable, files: Sequence[StagedFile]) -> CommitResult:
        tries.append(len(files))
        if len(tries) == 1:
            raise stop
        return commit(self, files)

    monkeypatch.setattr(TranscriptTable, "commit", be_stopped_once)
    stats = RunStats(wanted=1)
    with pytest.raises(type(stop)):
        commit_as_they_come(iter([make_report("a", lake)]), table, stats, Observer(), every_s=1000)
    assert (tries, stats.ok) == ([1, 1], 1)
    assert done_ids(TranscriptTable(lake)) == [("a", 0)]


def test_a_commit_that_did_not_run_out_of_patience_is_made_once_more_at_the_end(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, commit, tries = TranscriptTable(lake), TranscriptTable.commit, list[int]()

    def fail_once(self: TranscriptTable, files: Sequence[StagedFile]) -> CommitResult:
        tries.append(len(files))
        if len(tries) == 1:
            raise RunError("files that workers wrote are not there")
        return commit(self, files)

    monkeypatch.setattr(TranscriptTable, "commit", fail_once)
    with pytest.raises(RunError, match="are not there"):
        commit_as_they_come(iter([make_report("a", lake)]), table, RunStats(), Observer(), every_s=0)
    assert tries == [1, 1]
    assert done_ids(TranscriptTable(lake)) == [("a", 0)]
