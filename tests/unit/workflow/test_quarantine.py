"""A block whose worker dies is run again one recording at a time, and only the poison recording fails. An exception that
leaves everything as a killed process would simulates a death; real kills are in tests/faults."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.workflow.quarantine import DEATHS_ALONE, DEATHS_TOGETHER, CrashLedger, QuarantiningStage


class Killed(BaseException):
    """The process is gone: nothing after it runs."""


class Local:
    """A ledger for one worker on one node; ``nodes`` are those that are there."""

    def __init__(self, nodes: set[str]) -> None:
        self.node = "n1"
        self.ledger = CrashLedger(lambda: nodes)

    def begin(self, stage: str, key: str, recordings: int) -> int:
        return self.ledger.begin(stage, key, recordings, self.node)

    def end(self, stage: str, key: str) -> None:
        self.ledger.end(stage, key)


def block(names: str) -> pa.Table:
    return pa.table({"recording_id": list(names)})


def run_until_done(stage: QuarantiningStage, table: pa.Table, most: int = 50) -> tuple[list[tuple[str, bool]], int]:
    """What came out, (name, whether it failed), and how many workers died."""
    for deaths in range(most):
        try:
            tables = list(stage(table))
        except Killed:
            continue
        rows = [row for part in tables for row in part.to_pylist()]
        return [(row["recording_id"], bool(row.get("error"))) for row in rows], deaths
    raise AssertionError("it loops")


def deadly(names: str, seen: list[str] | None = None):  # type: ignore[no-untyped-def]
    def stage(table: pa.Table) -> pa.Table:
        for row in table.to_pylist():
            if seen is not None:
                seen.append(row["recording_id"])
            if row["recording_id"] in names and not row.get("error"):
                raise Killed
        return table

    return stage


def test_a_block_that_kills_nobody_goes_through_whole() -> None:
    local = Local({"n1"})
    assert run_until_done(QuarantiningStage("emit", deadly(""), local), block("abc")) == (
        [("a", False), ("b", False), ("c", False)],
        0,
    )
    assert local.ledger.in_work() == {}


@given(st.sets(st.sampled_from("abcdef"), min_size=1))
def test_only_the_guilty_fail_and_nothing_loops(guilty: set[str]) -> None:
    rows, deaths = run_until_done(QuarantiningStage("emit", deadly("".join(guilty)), Local({"n1"})), block("abcdef"))
    assert rows == [(name, name in guilty) for name in "abcdef"]
    assert deaths == DEATHS_TOGETHER + DEATHS_ALONE * len(guilty)


def test_the_failed_row_says_what_happened() -> None:
    stage = QuarantiningStage("decode", deadly("b"), Local({"n1"}))
    for _ in range(DEATHS_TOGETHER + DEATHS_ALONE):
        with pytest.raises(Killed):
            list(stage(block("ab")))
    _, failed = (part.to_pylist()[0] for part in stage(block("ab")))
    error = failed["error"]
    assert (error["stage"], error["reason"], error["retryable"]) == ("decode", "worker_crashed", True)
    assert "died on it 2 times alone" in error["detail"]


def test_a_node_that_went_away_is_nobodys_fault() -> None:
    nodes = {"n1"}
    local = Local(nodes)
    died = [0]

    def preempted(table: pa.Table) -> pa.Table:
        if died[0] < 20:
            died[0] += 1
            nodes.discard(local.node)
            local.node = f"node-{died[0]}"
            nodes.add(local.node)
            raise Killed
        return table

    assert run_until_done(QuarantiningStage("emit", preempted, local), block("ab")) == ([("a", False), ("b", False)], 20)


def test_a_stage_that_gives_its_tables_one_by_one_is_passed_on() -> None:
    def stage(table: pa.Table) -> Iterator[pa.Table]:
        for row in range(table.num_rows):
            yield table.slice(row, 1)

    assert [part.num_rows for part in QuarantiningStage("load", stage, Local({"n1"}))(block("abc"))] == [1, 1, 1]


def test_what_is_in_work_is_told_by_stage() -> None:
    ledger = CrashLedger(lambda: {"n1"})
    ledger.begin("load", "x", 3, "n1")
    ledger.begin("load", "y", 2, "n1")
    ledger.begin("emit", "x", 3, "n1")
    ledger.end("load", "x")
    assert {stage: count for stage, (count, _) in ledger.in_work().items()} == {"load": 2, "emit": 3}


def test_a_runner_that_died_with_its_workers_blames_no_recording() -> None:
    ledger = CrashLedger(lambda: {"n1"})
    for number in range(20):
        assert ledger.begin("emit", "x", 3, "n1", f"runner-{number}") == 0
        ledger.forgive(f"runner-{number}")
    assert ledger.in_work() == {}
    assert ledger.begin("emit", "x", 3, "n1", "runner-20") == 0
    assert ledger.begin("emit", "x", 3, "n1", "runner-20") == 1, "its worker died, and the runner lives"
