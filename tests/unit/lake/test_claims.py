"""Who is at work: claims live while they are written, and die with their process or their lease."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dictalake.config.sections import Lake
from dictalake.lake.claims import Lease, LeaseStore, make_lease

LEASE_S = 1.2


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake"), "lease_s": LEASE_S})


def foreign(run_id: str, **changes: object) -> Lease:
    """A claim of a run on another machine: only its signs of life tell of it."""
    return replace(make_lease(run_id, "backfill", "f1"), host="elsewhere", **changes)


def test_a_claim_is_there_while_it_is_held_and_gone_after(lake: Lake) -> None:
    board = LeaseStore(lake)
    with board.hold(make_lease("r1", "nightly", "f1"), lambda claim: replace(claim, ok=7)) as renew:
        (seen,) = board.read()
        assert (seen.claim.run_id, seen.claim.job, seen.claim.state, seen.is_alive) == ("r1", "nightly", "planning", True)
        renew(replace(seen.claim, state="running", wanted=9))
        (seen,) = board.read()
        assert (seen.claim.state, seen.claim.wanted, seen.claim.ok) == ("running", 9, 7)
    assert board.read() == []
    assert list(Path(str(lake.uri)).glob("claims/*")) == []


def test_a_claim_is_written_again_and_again(lake: Lake) -> None:
    board = LeaseStore(lake)
    with board.hold(make_lease("r1", "backfill", "f1"), lambda claim: claim):
        time.sleep(2 * LEASE_S)
        (seen,) = board.read()
        assert seen.is_alive
        assert seen.claim.beats >= 6


def test_a_run_whose_process_is_gone_is_dead_at_once(lake: Lake) -> None:
    board = LeaseStore(lake)
    script = "from dictalake.config.sections import Lake; from dictalake.lake.claims import LeaseStore, make_lease; "
    script += f"LeaseStore(Lake(uri={str(lake.uri)!r})).write(make_lease('r1', 'backfill', 'f1'))"
    subprocess.run([sys.executable, "-c", script], check=True)
    (seen,) = board.read()
    assert not seen.is_alive
    assert board.settle(make_lease("r2", "backfill", "f1")) == []
    assert board.read() == []


def test_a_claim_without_a_sign_of_life_runs_out(lake: Lake) -> None:
    board = LeaseStore(lake)
    board.write(foreign("r1", state="running"))
    started = time.monotonic()
    assert board.settle(make_lease("r2", "backfill", "f1")) == []
    assert LEASE_S / 2 < time.monotonic() - started < 4 * LEASE_S


def test_a_live_run_is_known_by_its_next_sign_of_life(lake: Lake) -> None:
    board = LeaseStore(lake)
    with board.hold(foreign("r1", state="running"), lambda claim: claim):
        (other,) = board.settle(make_lease("r2", "backfill", "f1"))
        assert other.run_id == "r1"
        assert board.settle(make_lease("r2", "backfill", "another model")) == []


def test_a_run_waits_for_one_that_was_planning_before_whatever_its_clock_says(lake: Lake) -> None:
    board = LeaseStore(lake)
    earlier = foreign("r1", ticket=1)
    said: list[str] = []
    with board.hold(earlier, lambda claim: claim) as renew:
        timer = threading.Timer(LEASE_S, lambda: renew(replace(earlier, state="running")))
        timer.start()
        assert [claim.run_id for claim in board.settle(make_lease("r2", "backfill", "f1"), say=said.append)] == ["r1"]
        timer.join()
    assert said == []  # it did not take long


def test_a_run_does_not_wait_for_one_with_a_later_ticket(lake: Lake) -> None:
    board, mine = LeaseStore(lake), make_lease("r2", "backfill", "f1")
    taken: list[int] = []
    with board.hold(foreign("r1"), lambda claim: claim) as renew:  # it has not looked yet

        def look(claim: Lease) -> None:
            taken.append(claim.ticket)
            renew(foreign("r1", ticket=claim.ticket + 1))

        assert board.settle(mine, look) == []
    assert taken == [1]


def test_of_many_that_plan_at_once_each_waits_for_those_before_it(lake: Lake) -> None:
    planning, most = [0], [0]
    lock = threading.Lock()

    def plan(number: int) -> None:
        board, claim = LeaseStore(lake), foreign(f"r{number}")
        with board.hold(claim, lambda claim: claim) as renew:
            board.settle(claim, renew)
            with lock:
                planning[0] += 1
                most[0] = max(most[0], planning[0])
            time.sleep(0.05)
            with lock:
                planning[0] -= 1
            renew(replace(claim, state="running"))

    threads = [threading.Thread(target=plan, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_clock_that_was_put_back_leaves_no_claim_for_hours(lake: Lake) -> None:
    board = LeaseStore(lake)
    board.write(foreign("r1", state="running"))
    later = time.time() + 7200
    os.utime(f"{lake.uri}/claims/r1.json", (later, later))
    (seen,) = board.read()
    assert not seen.is_alive
