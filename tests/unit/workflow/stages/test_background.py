"""A background task gets items in order, ends on request, and never leaves the caller waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dictalake.workflow.stages.background import BackgroundTask


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_items_come_in_order_until_the_caller_finishes(pool: ThreadPoolExecutor) -> None:
    task = BackgroundTask[int, list[int]](pool, list, most_waiting=2)
    for item in range(100):
        task.submit(item)
    task.finish()
    assert task.result() == list(range(100))


def test_what_the_caller_failed_with_is_raised_by_the_result(pool: ThreadPoolExecutor) -> None:
    task = BackgroundTask[int, list[int]](pool, list, most_waiting=2)
    task.submit(1)
    task.fail(MemoryError("of the caller"))
    with pytest.raises(MemoryError, match="of the caller"):
        task.result()


def test_a_task_that_ends_early_leaves_no_caller_waiting(pool: ThreadPoolExecutor) -> None:
    may_end = threading.Event()

    def fail_at_once(items: Iterator[int]) -> None:
        may_end.wait()
        raise ValueError("of the task")

    task = BackgroundTask[int, None](pool, fail_at_once, most_waiting=2)
    submitted = []

    def submit_all() -> None:
        for item in range(100):
            task.submit(item)
            submitted.append(item)
            if item == 1:  # both places are taken now
                may_end.set()
        task.finish()

    caller = threading.Thread(target=submit_all, daemon=True)
    caller.start()
    with pytest.raises(ValueError, match="of the task"):
        task.result()
    caller.join(60)
    assert submitted == list(range(100))


def test_no_more_items_wait_than_are_allowed(pool: ThreadPoolExecutor) -> None:
    may_take, took = threading.Event(), []

    def take_late(items: Iterator[int]) -> None:
        may_take.wait()
        took.extend(items)

    task = BackgroundTask[int, None](pool, take_late, most_waiting=2)
    for item in range(2):
        task.submit(item)
    assert task._items.full()
    may_take.set()
    task.finish()
    task.result()
    assert took == [0, 1]
