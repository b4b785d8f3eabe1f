"""What the driver does with its runners' answers and deaths, without Ray; real deaths are in tests/faults."""

from __future__ import annotations

from unittest.mock import MagicMock

import pyarrow as pa
import pytest

from dictalake.config.sections import Config
from dictalake.errors import RunError
from dictalake.workflow.plan import Resources, make_plan
from dictalake.workflow.runner import Answer
from dictalake.workflow.runners import MOST_DEATHS, RunnerPool, take_in
from dictalake.workflow.shares import ShareBook

import ray  # isort: skip
import ray.exceptions  # isort: skip

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
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"object_store_memory": 6e9})
    monkeypatch.setattr(ray, "kill", lambda actor: actor.was_killed())
    monkeypatch.setattr(ray, "wait", lambda questions, **_: (questions, []))
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


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.ActorDiedError(),
        ray.exceptions.ActorUnavailableError("out of reach", None),
        ray.exceptions.OutOfMemoryError("by Ray's monitor"),
        ray.exceptions.NodeDiedError("gone"),
        ray.exceptions.ObjectLostError("ab", None, ""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_runner_that_is_gone_in_any_way_is_ended_and_replaced(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch, error: ray.exceptions.RayError
) -> None:
    """One that is only out of reach would keep what the new one needs."""
    monkeypatch.setattr(ray, "get", MagicMock(side_effect=error))
    gone = pool._actors["r1"]
    pool._book.take("r1", 2)
    pool._polls = {"a question": "r1"}
    pool._ledger.forgive.side_effect = lambda _: pool.interrupt()  # type: ignore[attr-defined]
    assert list(pool.read_reports()) == []
    gone.was_killed.assert_called_once_with()
    assert [place for _, place in pool._starts] == [1]
    assert pool._book.waiting == 5


def test_runners_end_with_a_run_that_is_stopped_while_an_answer_is_on_its_way(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_late(question: str) -> Answer:
        pool.interrupt()
        return Answer(make_reports(s0=["x"]))

    monkeypatch.setattr(ray, "get", answer_late)
    pool._polls = {"a question": "r1"}
    actors = list(pool._actors.values())
    reports = pool.read_reports()
    next(reports, None)  # whoever reads does not come back after a stop
    for actor in actors:
        actor.was_killed.assert_called_once_with()


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
