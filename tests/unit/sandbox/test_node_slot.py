"""The one place of a machine goes to who came first, and the queue survives whoever is killed in it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dictalake.sandbox import node_slot

pytestmark = pytest.mark.timeout(60)

# Waits for the place, and is never woken.
_SLEEPER = """
import sys
from pathlib import Path
from dictalake.sandbox import node_slot
node_slot.find_folder = lambda: Path(sys.argv[1])
node_slot._wait_for = lambda *_: print("waits", flush=True) or input()
with node_slot.hold_slot("test", 60):
    pass
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node_slot, "find_folder", lambda: tmp_path)
    return tmp_path / "test.queue"


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
