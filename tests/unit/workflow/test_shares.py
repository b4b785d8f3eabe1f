"""The driver's book of shares, and the tickets of a runner: nothing is lost, nothing is done twice."""

from __future__ import annotations

import random
from pathlib import Path
from unittest.mock import MagicMock, patch

import pyarrow as pa

from dictalake.config.sections import Lake
from dictalake.lake.manifests import Manifests
from dictalake.records import Recording
from dictalake.workflow import columns
from dictalake.workflow.runner import FromRunner, Tickets, WithShare
from dictalake.workflow.shares import Reported, Share, ShareBook


def make_places(count: int) -> pa.Table:
    return pa.table({"part": [0] * count, "group": list(range(count))})


def make_block(*names: str, **done: tuple[str, ...]) -> pa.Table:
    found = [Recording(name, f"gs://a/{name}", "1", 10, done_members=done.get(name, ())) for name in names]
    return columns.recordings_to_table(found)


def groups_of(shares: list[Share]) -> list[int]:
    return [group for share in shares for group in share.places["group"].to_pylist()]


def test_each_block_is_given_once_and_in_order() -> None:
    book = ShareBook(make_places(5), blocks_per_share=2)
    assert (len(book), book.waiting) == (3, 3)
    first, second, third = book.take("a", 1), book.take("b", 5), book.take("a", 5)
    assert (groups_of(first), groups_of(second), groups_of(third)) == ([0, 1], [2, 3, 4], [])
    assert not book.is_over
    for runner, shares in (("a", first), ("b", second)):
        for share in shares:
            book.complete(runner, share.number)
    assert book.is_over


def test_the_unfinished_shares_of_a_runner_that_died_go_to_the_next_before_all_others() -> None:
    book = ShareBook(make_places(4))
    taken = book.take("a", 2)
    book.complete("a", taken[0].number)
    assert book.give_back("a") == 1
    assert groups_of(book.take("b", 2)) == [1, 2]
    assert (book.give_back("a"), book.outstanding("a"), book.outstanding("b")) == (0, 0, 2)


def test_what_was_reported_of_a_share_is_left_out_by_the_next_runner() -> None:
    book = ShareBook(make_places(1))
    (share,) = book.take("a", 1)
    assert share.reported.leave_out(make_block("x", "y"))["recording_id"].to_pylist() == ["x", "y"]
    book.note("a", share.number, [("x", None, None)])
    book.give_back("a")
    (again,) = book.take("b", 1)
    assert again.reported.leave_out(make_block("x", "y"))["recording_id"].to_pylist() == ["y"]


def test_a_report_of_a_runner_that_no_longer_has_the_share_changes_nothing() -> None:
    book = ShareBook(make_places(1))
    (share,) = book.take("a", 1)
    book.give_back("a")
    book.note("a", share.number, [("x", None, None)])
    book.complete("a", share.number)
    assert not book.is_over
    (again,) = book.take("b", 1)
    assert again.reported == Reported()


def test_an_archive_object_goes_on_with_the_members_that_have_no_row() -> None:
    block = make_block("zip", "own", zip=("m0",))
    some = Reported().add([("m1", "zip", 4)]).add([("m2", "zip", 4)])
    (left, _) = some.leave_out(block).to_pylist()
    assert (left["done_members"], left["archive_id"]) == (["m0", "m1", "m2"], "zip")
    assert some.add([("m3", "zip", 4)]).leave_out(block)["recording_id"].to_pylist() == ["own"]


def test_the_book_balances_whatever_dies() -> None:
    """Random takes, reports and deaths; every recording is reported exactly once."""
    for seed in range(20):
        rng = random.Random(seed)
        book, seen, held = ShareBook(make_places(30), 2), list[str](), dict[str, list[Share]]()
        names = {number: [f"{number}-{one}" for one in range(5)] for number in range(30)}
        born = 3
        runners = ["0", "1", "2"]
        while not book.is_over:
            runner = rng.choice(runners)
            action = rng.random()
            if action < 0.2:
                book.give_back(runner)
                held.pop(runner, None)
                runners[runners.index(runner)] = str(born)
                born += 1
            elif action < 0.6 or not held.get(runner):
                held.setdefault(runner, []).extend(book.take(runner, rng.randint(1, 3)))
            else:
                share = held[runner].pop(0)
                ids = [one for group in share.places["group"].to_pylist() for one in names[group]]
                left = share.reported.leave_out(make_block(*ids))["recording_id"].to_pylist()
                part = left[: rng.randint(0, len(left))]
                book.note(runner, share.number, [(one, None, None) for one in part])
                seen += part
                if part == left:
                    book.complete(runner, share.number)
        assert sorted(seen) == sorted(one for group in names.values() for one in group)


def make_share(number: int) -> Share:
    return Share(number, make_places(1))


def test_a_task_that_is_run_again_gets_the_same_share() -> None:
    tickets = Tickets()
    assert tickets.take(0) == "wait"
    tickets.stock.extend([make_share(7), make_share(8)])
    first = tickets.take(0)
    assert isinstance(first, Share)
    assert first.number == 7
    assert tickets.take(0) is first
    second = tickets.take(1)
    assert isinstance(second, Share)
    assert second.number == 8


def test_tasks_end_when_no_more_shares_come() -> None:
    tickets = Tickets(is_draining=True)
    assert tickets.take(3) == "end"
    tickets.stock.append(make_share(1))  # of a runner that died
    assert tickets.take(3) == "end"
    assert isinstance(tickets.take(4), Share)


def test_a_share_is_complete_when_all_that_was_loaded_is_reported_in_whatever_order_one_hears_of_it() -> None:
    tickets = Tickets()
    tickets.stock.extend([make_share(0), make_share(1)])
    tickets.take(0), tickets.take(1)
    assert [tickets.note_reported(0, 3), tickets.note_loaded(0, 5), tickets.note_reported(0, 2)] == [False, False, True]
    assert [tickets.note_reported(1, 5), tickets.note_loaded(1, 5)] == [False, True]
    assert not tickets.note_reported(9, 1)


def test_a_pipeline_is_over_only_when_no_share_is_left_and_none_will_come() -> None:
    tickets = Tickets()
    assert not tickets.is_over
    tickets.is_draining = True
    assert tickets.is_over
    tickets.stock.append(make_share(0))
    assert not tickets.is_over
    tickets.take(0)
    assert not tickets.is_over


def test_the_first_stage_loads_what_is_left_of_its_share_and_says_how_much_that_was(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    block = make_block("x", "y", "z")
    (place,) = Manifests(lake).write("run", [block], block.schema)
    share = Share(4, pa.Table.from_pylist([place._asdict()]), Reported().add([("y", None, None)]))
    runner, given = MagicMock(), iter([share, None])
    source = FromRunner(lake, "run", lambda table: iter([table.slice(0, 1), table.slice(1)]), runner, 2)
    with patch.object(source, "_take", lambda ticket: next(given)):
        tables = list(source(pa.table({"ticket": [0, 1]})))
    rows = [(row["recording_id"], row["share"]) for table in tables for row in table.to_pylist()]
    assert rows == [("x", 4), ("z", 4)]
    runner.note_loaded.remote.assert_called_once_with(2, 4, 2)


def test_each_report_says_to_which_share_its_rows_belong() -> None:
    finish = WithShare(lambda table: pa.table({"recording_ids": [table["recording_id"].to_pylist()]}))
    table = pa.table({"recording_id": ["a", "b", "c"], "share": [5, 6, 5]})
    reports = [row for report in finish(table) for row in report.to_pylist()]
    assert reports == [{"recording_ids": ["a", "c"], "share": 5}, {"recording_ids": ["b"], "share": 6}]


def test_a_book_that_is_open_gets_more_and_no_runner_ends_before_it_is_closed() -> None:
    book = ShareBook(make_places(2), is_closed=False)
    first = book.take("a", 9)
    for share in first:
        book.complete("a", share.number)
    assert (book.waiting, book.is_draining, book.is_over) == (0, False, False)
    book.add(make_places(5), blocks_per_share=2)
    book.add(make_places(0))
    assert (len(book), book.waiting, book.at_work) == (5, 3, 0)
    more = book.take("b", 2)
    assert (book.at_work, book.give_back("b"), book.at_work) == (2, 2, 0)
    more = book.take("a", 9)
    assert groups_of(first) + groups_of(more) == [0, 1, 0, 1, 2, 3, 4]
    assert [share.number for share in more] == [2, 3, 4]
    for share in more:
        book.complete("a", share.number)
    assert not book.is_over
    book.close()
    assert (book.is_draining, book.is_over) == (True, True)
