"""Who is at work: leases live while they are written, and die with their process or their lease."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.claims import Lease, LeaseStore, make_lease

LEASE_S = 1.2


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake"), "lease_s": LEASE_S})


def foreign(run_id: str, **changes: object) -> Lease:
    """A lease of a run on another machine, which is known only by its signs of life."""
    return replace(make_lease(run_id, "backfill", "f1"), host="elsewhere", **changes)


def test_a_lease_is_there_while_it_is_held_and_gone_after(lake: Lake) -> None:
    store = LeaseStore(lake)
    with store.hold(make_lease("r1", "nightly", "f1"), lambda lease: replace(lease, ok=7)) as renew:
        (seen,) = store.read()
        assert (seen.lease.run_id, seen.lease.job, seen.lease.state, seen.is_alive) == ("r1", "nightly", "planning", True)
        renew(replace(seen.lease, state="running", wanted=9))
        (seen,) = store.read()
        assert (seen.lease.state, seen.lease.wanted, seen.lease.ok) == ("running", 9, 7)
    assert store.read() == []
    assert list(Path(str(lake.uri)).glob("claims/*")) == []


def test_a_lease_is_written_again_and_again(lake: Lake) -> None:
    store = LeaseStore(lake)
    with store.hold(make_lease("r1", "backfill", "f1"), lambda lease: lease):
        time.sleep(2 * LEASE_S)
        (seen,) = store.read()
        assert seen.is_alive
        assert seen.lease.beats >= 6


def test_a_run_whose_process_is_gone_is_dead_at_once(lake: Lake) -> None:
    store = LeaseStore(lake)
    script = "from dictalake.config.sections import Lake; from dictalake.lake.claims import LeaseStore, make_lease; "
    script += f"LeaseStore(Lake(uri={str(lake.uri)!r})).write(make_lease('r1', 'backfill', 'f1'))"
    subprocess.run([sys.executable, "-c", script], check=True)
    (seen,) = store.read()
    assert not seen.is_alive
    assert store.await_peers(make_lease("r2", "backfill", "f1")) == []
    assert store.read() == []


def test_a_lease_without_a_sign_of_life_runs_out(lake: Lake) -> None:
    store = LeaseStore(lake)
    store.write(foreign("r1", state="running"))
    started = time.monotonic()
    assert store.await_peers(make_lease("r2", "backfill", "f1")) == []
    assert LEASE_S / 2 < time.monotonic() - started < 4 * LEASE_S


def test_a_live_run_is_known_by_its_next_sign_of_life(lake: Lake) -> None:
    store = LeaseStore(lake)
    with store.hold(foreign("r1", state="running"), lambda lease: lease):
        (other,) = store.await_peers(make_lease("r2", "backfill", "f1"))
        assert other.run_id == "r1"
        assert store.await_peers(make_lease("r2", "backfill", "another model")) == []


def test_a_run_waits_for_one_that_was_planning_before_whatever_its_clock_says(lake: Lake) -> None:
    store = LeaseStore(lake)
    earlier = foreign("r1", ticket=1)
    reports: list[str] = []
    with store.hold(earlier, lambda lease: lease) as renew:
        timer = threading.Timer(LEASE_S, lambda: renew(replace(earlier, state="running")))
        timer.start()
        assert [lease.run_id for lease in store.await_peers(make_lease("r2", "backfill", "f1"), report=reports.append)] == [
            "r1"
        ]
        timer.join()
    assert reports == []  # it did not take long


def test_a_run_does_not_wait_for_one_with_a_later_ticket(lake: Lake) -> None:
    store, mine = LeaseStore(lake), make_lease("r2", "backfill", "f1")
    taken: list[int] = []
    with store.hold(foreign("r1"), lambda lease: lease) as renew:  # it has not looked yet

        def look(lease: Lease) -> None:
            taken.append(lease.ticket)
            renew(foreign("r1", ticket=lease.ticket + 1))

        assert store.await_peers(mine, look) == []
    assert taken == [1]


def test_a_run_takes_a_ticket_after_those_of_others(lake: Lake) -> None:
    store, taken = LeaseStore(lake), list[int]()
    store.write(foreign("r1", ticket=4))

    def look(lease: Lease) -> None:
        taken.append(lease.ticket)
        store.remove("r1")

    assert store.await_peers(make_lease("r2", "backfill", "f1"), look) == []
    assert taken == [5]


REFUSALS = [RunError("503"), PermissionError("no"), FileNotFoundError("gone"), ValueError("a defect")]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_beat_that_cannot_be_written_is_made_up_for_by_the_next(
    error: Exception, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network share denies a right, or knows no file, for a moment too."""
    store, written = LeaseStore(lake.model_copy(update={"lease_s": 0.06})), threading.Event()
    monkeypatch.setattr(LeaseStore, "lease_s", float("inf"))
    real, failed = LeaseStore.write, list[int]()

    def fail_once(self: LeaseStore, lease: Lease) -> None:
        if lease.beats and not failed:
            failed.append(lease.beats)
            raise make_refusal(error) if isinstance(error, OSError) else error
        real(self, lease)
        if failed:
            written.set()

    monkeypatch.setattr(LeaseStore, "write", fail_once)
    with store.hold(make_lease("r1", "backfill", "f1"), lambda lease: lease) as heartbeat:
        assert written.wait(timeout=60)
        heartbeat.check()
    assert failed == [1]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_ticket_that_cannot_be_written_is_made_up_for_by_the_next_beat(
    error: Exception, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that plans tolerates what one at work tolerates."""
    store, written, failed = LeaseStore(lake), threading.Event(), list[int]()
    real = LeaseStore.write

    def fail_once(self: LeaseStore, lease: Lease) -> None:
        if lease.ticket == 7 and not failed:
            failed.append(lease.beats)
            raise make_refusal(error) if isinstance(error, OSError) else error
        real(self, lease)
        if failed and lease.ticket == 7:
            written.set()

    monkeypatch.setattr(LeaseStore, "write", fail_once)
    mine = make_lease("r1", "backfill", "f1")
    with store.hold(mine, lambda lease: lease) as heartbeat:
        heartbeat(replace(mine, ticket=7))
        assert failed
        assert written.wait(timeout=60)
        heartbeat.check()


def test_a_run_plans_only_once_others_see_its_ticket(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next run would take the same ticket, and both would do the same work."""
    store, real, failed = LeaseStore(lake.model_copy(update={"lease_s": 600.0})), LeaseStore.write, list[int]()

    def fail_twice(self: LeaseStore, lease: Lease) -> None:
        if lease.ticket and len(failed) < 2:
            failed.append(lease.ticket)
            raise RunError("503")
        real(self, lease)

    monkeypatch.setattr("dictalake.retries.pause", lambda _: None)
    monkeypatch.setattr(LeaseStore, "write", fail_twice)
    mine = make_lease("r1", "backfill", "f1")
    with store.hold(mine, lambda lease: lease) as renew:
        assert store.await_peers(mine, renew) == []
        assert [seen.lease.ticket for seen in store.read()] == [1]
    assert failed == [1, 1]


def test_a_lease_that_is_refused_at_its_first_write_is_written_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real, failed = LeaseStore(lake), LeaseStore.write, list[int]()

    def fail_twice(self: LeaseStore, lease: Lease) -> None:
        if len(failed) < 2:
            failed.append(lease.beats)
            raise RunError("503")
        real(self, lease)

    monkeypatch.setattr("dictalake.retries.pause", lambda _: None)
    monkeypatch.setattr(LeaseStore, "write", fail_twice)
    with store.hold(make_lease("r1", "backfill", "f1"), lambda lease: lease):
        assert [seen.lease.run_id for seen in store.read()] == ["r1"]
    assert failed == [0, 0]


def lose(lake: Lake, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run none of whose beats can be written, until it learns of that."""
    store, real = LeaseStore(lake), LeaseStore.write

    def fail(self: LeaseStore, lease: Lease) -> None:
        if lease.beats:
            raise error
        real(self, lease)

    monkeypatch.setattr(LeaseStore, "write", fail)
    with store.hold(make_lease("r1", "backfill", "f1"), lambda lease: lease) as heartbeat:
        heartbeat._thread.join(timeout=60)
        heartbeat.check()


def make_refusal(cause: OSError) -> RunError:
    error = RunError("cannot write")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("name", ["TimeoutError", "PermissionError"])
def test_a_lease_that_the_storage_refuses_for_its_whole_life_ends_the_run(
    name: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, cause = lake.model_copy(update={"lease_s": 0.06}), {"TimeoutError": TimeoutError, "PermissionError": PermissionError}
    with pytest.raises(RunError, match=rf"could not be renewed \({name}\).* run the same command again to resume"):
        lose(short, make_refusal(cause[name]("503")), monkeypatch)


def test_a_run_waits_for_one_that_has_no_ticket_yet(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have looked before this run's ticket was written, and take the same one."""
    store, waits = LeaseStore(lake), [0]
    store.write(foreign("r9"))

    def let_the_other_live(_: float) -> None:
        waits[0] += 1
        has_looked = waits[0] == 3
        store.write(foreign("r9", beats=waits[0], ticket=2 if has_looked else 0))

    monkeypatch.setattr("dictalake.retries.pause", let_the_other_live)
    assert store.await_peers(make_lease("r2", "backfill", "f1")) == []
    assert waits == [3]


def test_a_lease_that_is_lost_while_a_run_waits_ends_the_wait(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    store, waits = LeaseStore(lake), list[float]()
    store.write(foreign("r9", ticket=1))
    monkeypatch.setattr("dictalake.retries.pause", waits.append)

    def be_lost() -> None:
        if len(waits) == 2:
            raise RunError("the lease is lost")
        assert len(waits) < 2

    with pytest.raises(RunError, match="the lease is lost"):
        store.await_peers(foreign("r2"), check=be_lost)


def test_of_many_that_plan_at_once_each_waits_for_those_before_it(lake: Lake) -> None:
    planning, most = [0], [0]
    lock = threading.Lock()

    def plan(number: int) -> None:
        store, lease = LeaseStore(lake), foreign(f"r{number}")
        with store.hold(lease, lambda lease: lease) as renew:
            store.await_peers(lease, renew)
            with lock:
                planning[0] += 1
                most[0] = max(most[0], planning[0])
            time.sleep(0.05)
            with lock:
                planning[0] -= 1
            renew(replace(lease, state="running"))

    threads = [threading.Thread(target=plan, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


class SlowFiles:
    """A file system of pyarrow whose listings and looks at a file answer late, with what was true in between."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_file_info(self, selector: Any) -> Any:
        time.sleep(1.2 * LEASE_S)
        found = self._real.get_file_info(selector)
        time.sleep(1.2 * LEASE_S)
        return found


def test_a_storage_that_answers_late_makes_no_live_run_dead(lake: Lake) -> None:
    store = LeaseStore(lake)
    with LeaseStore(lake).hold(foreign("r1"), lambda lease: lease):
        vars(store._storage)["filesystem"] = SlowFiles(store._storage.filesystem)
        (seen,) = store.read()
        assert seen.is_alive


def test_a_clock_that_was_put_back_leaves_no_lease_for_hours(lake: Lake) -> None:
    store = LeaseStore(lake)
    store.write(foreign("r1", state="running"))
    later = time.time() + 7200
    os.utime(f"{lake.uri}/claims/r1.json", (later, later))
    (seen,) = store.read()
    assert not seen.is_alive
