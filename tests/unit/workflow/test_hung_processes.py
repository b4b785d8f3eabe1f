"""A process that hangs, rather than dies, holds up no others: a worker that asks for its start, and a runner."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pyarrow as pa
import pytest

from dictalake.config.sections import Config
from dictalake.workflow import fork_server, runners
from dictalake.workflow.crash_ledger import ClusterCrashLedger
from dictalake.workflow.plan import Resources, make_plan
from dictalake.workflow.runner import Answer
from dictalake.workflow.runners import RunnerPool
from dictalake.workflow.shares import ShareBook

import ray  # isort: skip

TWO = Config.model_validate({"ray": {"runners": 2}, "acoustic": {"device": "cpu"}})


@pytest.fixture
def signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("signals")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forks on Linux alone")
def test_a_worker_that_stops_in_the_middle_of_its_request_does_not_hold_up_the_fork_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    listener, stopped = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "fork"))
    listener.listen()
    stopped.connect(str(tmp_path / "fork"))
    socket.send_fds(stopped, [b"\0\0\1\0"], [0, 1, 2])  # and then never the 256 bytes that it speaks of
    receive = fork_server._receive

    def receive_and_end(connection: socket.socket) -> object:
        ours.close()
        assert connection.gettimeout() is not None, "this would wait for ever"
        return receive(connection)

    monkeypatch.setattr(fork_server, "_LONGEST_REQUEST_S", 0.01)
    monkeypatch.setattr(fork_server, "_receive", receive_and_end)
    with stopped:
        assert fork_server.serve(listener, theirs) is None


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> RunnerPool:
    """Two runners that are no processes. Each look takes as long as the driver counts at most."""
    now = iter(range(0, 10**6, 10))
    monkeypatch.setattr(runners, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"object_store_memory": 6e9})
    monkeypatch.setattr(ray, "kill", MagicMock())
    book = ShareBook(pa.table({"part": [0] * 3, "group": [0, 1, 2]}))
    pool = RunnerPool(MagicMock(), TWO, make_plan(TWO, Resources(cpus=2, gpus=0)), MagicMock(), book)
    pool._starts.clear()
    for place, name in enumerate(("hangs", "works")):
        pool._actors[name], pool._places[name], pool._polls[f"question to {name}"] = MagicMock(), place, name
    return pool


def test_a_runner_that_hangs_gives_its_shares_to_others_and_one_that_has_not_begun_is_waited_for(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool._book.take("hangs", 2)
    pool._take_in("hangs", Answer())
    looks = 0
    while "hangs" in pool._actors:
        assert looks < 10_000, "nobody sees that it hangs"
        pool._bury_silent()
        looks += 1
    assert looks >= runners._MOST_SILENCE_S / runners._MOST_COUNTED_S  # however long this process was held up meanwhile
    assert pool._book.waiting == 3
    assert [place for _, place in pool._starts] == [0]
    assert list(pool._polls.values()) == ["works"]


def test_nobody_waits_for_a_ledger_that_does_not_answer_when_a_runner_died(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ClusterCrashLedger.__new__(ClusterCrashLedger)
    ledger._actor = MagicMock()
    monkeypatch.setattr(ray, "get", MagicMock(side_effect=AssertionError("it waits")))
    ledger.forgive("r1")
    ledger._actor.forgive.remote.assert_called_once_with("r1")
