"""What the driver does with its runners' answers and deaths, without Ray; real deaths are in tests/faults."""

from __future__ import annotations

from unittest.mock import MagicMock

import pyarrow as pa
import pytest

from dictalake.config.sections import Config
from dictalake.errors import RunError
from dictalake.workflow import runners
from dictalake.workflow.plan import Resources, make_plan
from dictalake.workflow.runner import Answer
from dictalake.workflow.runners import MOST_DEATHS, RunnerPool, take_in
from dictalake.workflow.shares import ShareBook

THREE = Config.model_validate({"ray": {"runners": 3}, "acoustic": {"device": "cpu"}})


def make_book(shares: int) -> ShareBook:
    return ShareBook(pa.table({"part": [0] * shares, "group": list(range(shares))}))


def make_reports(**ids_of_shares: list[str]) -> pa.Table:
    """``s3=["a"]``: a report of share 3 with one recording."""
    rows = [
        {"share": int(name[1:]), "recording_ids": ids, "archive_ids": [None] * len(ids), "archive_rows": [None] * len(ids)}
        for name, ids in ids_of_shares.items()
    ]
    kinds = {"recording_ids": pa.string(), "archive_ids": pa.string(), "archive_rows": pa.int32()}
    lists = [pa.field(name, pa.list_(kind)) for name, kind in kinds.items()]
    return pa.Table.from_pylist(rows, schema=pa.schema([pa.field("share", pa.int64()), *lists]))


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> RunnerPool:
    """Three runners by name that share five shares; none is a process."""
    monkeypatch.setattr(runners.ray, "cluster_resources", lambda: {"object_store_memory": 6e9})
    plan = make_plan(THREE, Resources(cpus=2, gpus=0))
    pool = RunnerPool(MagicMock(), THREE, plan, MagicMock(), make_book(5))
    pool._starts.clear()
    for place in range(3):
        hire(pool, f"r{place}", place)
    return pool


def hire(pool: RunnerPool, name: str, place: int) -> None:
    pool._actors[name], pool._places[name] = MagicMock(), place


def test_an_answer_ends_shares_and_keeps_what_was_reported_of_the_others() -> None:
    book = make_book(3)
    book.take("a", 2)
    reports = take_in(book, "a", Answer(make_reports(s0=["x"], s1=["y"]), completed=(0,)))
    assert reports is not None
    assert (book.completed, book.outstanding("a")) == (1, 1)
    book.give_back("a")
    (again,) = book.take("b", 1)
    assert again.reported.recordings == {"y"}
    assert take_in(book, "b", Answer()) is None


def test_the_shares_of_a_dead_runner_go_to_another_and_its_place_to_a_new_one(pool: RunnerPool) -> None:
    pool._ask("r1", 2)
    pool._bury("r1", "it was killed")
    pool._ledger.forgive.assert_called_once_with("r1")  # type: ignore[attr-defined]
    assert [place for _, place in pool._starts] == [1]
    pool._ask("r2", 9)
    shares, is_last, _ = pool._actors["r2"].poll.remote.call_args.args
    assert [share.number for share in shares] == [0, 1, 2, 3, 4]
    assert is_last


def test_each_runner_gets_its_part_of_the_object_store(pool: RunnerPool) -> None:
    assert sum(limits.object_store_bytes for limits in pool._limits) == pytest.approx(3e9)
    assert sum(limits.cpus for limits in pool._limits) <= 2


def test_runners_that_die_one_after_the_other_end_the_run_and_a_report_in_between_does_not(pool: RunnerPool) -> None:
    for number in range(MOST_DEATHS - 1):
        hire(pool, f"n{number}", 0)
        pool._bury(f"n{number}", "OutOfMemoryError")
    hire(pool, "good", 0)
    pool._book.take("good", 1)
    pool._take_in("good", Answer(make_reports(s0=["x"])))
    for number in range(MOST_DEATHS):
        hire(pool, f"m{number}", 0)
        if number < MOST_DEATHS - 1:
            pool._bury(f"m{number}", "OutOfMemoryError")
    with pytest.raises(RunError, match=r"^30 runners died one after the other without finishing anything \(OutOfMemoryError\)"):
        pool._bury(f"m{MOST_DEATHS - 1}", "OutOfMemoryError")


def test_what_ended_a_runner_ends_the_run(pool: RunnerPool) -> None:
    with pytest.raises(RunError, match=r"^the lake is gone$"):
        pool._take_in("r0", Answer(error=RunError("the lake is gone")))
