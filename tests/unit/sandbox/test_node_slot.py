"""The one place of a machine goes to who came first, and the queue survives whoever is killed in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dictalake.sandbox import node_slot

pytestmark = pytest.mark.timeout(60)

# Waits for the place; without another argument it is never woken.
_SLEEPER = """
import sys
from pathlib import Path
from dictalake.sandbox import node_slot
node_slot.find_folder = lambda: Path(sys.argv[1])
if len(sys.argv) == 2:
    node_slot._wait_for = lambda *_: print("waits", flush=True) or input()
with node_slot.hold_slot("test", 60):
    pass
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node_slot, "find_folder", lambda: tmp_path)
    return node_slot.find_queue(tmp_path, "test")


def test_who_waits_has_the_place_in_the_order_in_which_they_came(queue: Path) -> None:
    order: list[int] = []

    def take(number: int) -> None:
        with node_slot.hold_slot("test", 60):
            order.append(number)

    with ThreadPoolExecutor(8) as pool, node_slot.hold_slot("test", 60):
        for number in range(8):
            pool.submit(take, number)
            while len(os.listdir(queue)) < number + 2:
                time.sleep(0.001)
    assert order == list(range(8))
    assert os.listdir(queue) == []


def test_nobody_takes_the_place_before_one_that_came_first_unless_that_one_is_killed(queue: Path) -> None:
    with node_slot.hold_slot("test", 60):
        sleeper = subprocess.Popen(
            [sys.executable, "-c", _SLEEPER, str(queue.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == b"waits\n"
    with sleeper:
        with pytest.raises(TimeoutError), node_slot.hold_slot("test", 0):
            pass
        sleeper.kill()
    assert len(os.listdir(queue)) == 1, "of the one that was killed"
    with node_slot.hold_slot("test", 0):
        pass
    assert os.listdir(queue) == []


def test_who_is_ahead_by_an_older_version_without_a_ticket_is_waited_for(queue: Path) -> None:
    with node_slot._open_lock(queue.parent / "test.lock") as theirs, ThreadPoolExecutor(1) as pool:
        assert node_slot._try_lock(theirs)
        with pytest.raises(TimeoutError), node_slot.hold_slot("test", 0):
            pass
        entered = threading.Event()

        def take() -> None:
            with node_slot.hold_slot("test", 60):
                entered.set()

        pool.submit(take)
        while not queue.exists() or not os.listdir(queue):
            time.sleep(0.001)
        assert not entered.is_set()
        node_slot._unlock(theirs)
        assert entered.wait(60)


def test_who_waits_in_vain_leaves_the_queue(queue: Path) -> None:
    with node_slot.hold_slot("test", 60):
        for _ in range(3):
            with pytest.raises(TimeoutError), node_slot.hold_slot("test", 0.01):
                pass
        assert len(os.listdir(queue)) == 1


def test_who_is_stopped_while_it_waits_is_passed_and_comes_when_it_goes_on(
    queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_slot, "_SLICE_S", 0.05)
    taken: list[int] = []

    def take(number: int) -> None:
        with node_slot.hold_slot("test", 40):
            taken.append(number)

    with node_slot.hold_slot("test", 60):
        waiter = subprocess.Popen([sys.executable, "-c", _SLEEPER, str(queue.parent), "is woken"])
        while len([name for name in os.listdir(queue) if not name.startswith(".")]) < 2:
            time.sleep(0.001)
        waiter.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(take, range(2)))
        assert sorted(taken) == [0, 1]
        with node_slot.hold_slot("test", 40):
            waiter.send_signal(signal.SIGCONT)
            with pytest.raises(subprocess.TimeoutExpired):
                waiter.wait(0.2)
        assert waiter.wait(40) == 0
    finally:
        waiter.kill()
        waiter.wait()


def test_who_has_the_place_removes_what_those_left_who_were_killed_long_ago(queue: Path) -> None:
    old = queue.parent / "test.another-boot.queue"
    old.mkdir()
    queue.mkdir()
    for path in (old / "0001", old / ".0002", queue / ".0003", queue / ("9" * 30), queue / ".new"):
        path.touch()
        if path.name != ".new":
            os.utime(path, (0, 0))
    with node_slot._open_lock(queue / "9") as theirs:
        assert node_slot._try_lock(theirs)
        os.utime(queue / "9", (0, 0))
        with node_slot.hold_slot("test", 0):
            pass
        assert sorted(os.listdir(queue)) == [".new", "9"], "what is new or locked is somebody's"
    assert os.listdir(old) == []
