"""What untrusted bytes can do to the process that reads them costs one row, never the caller or a neighbour."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dictalake.errors import CorruptAudio, DecoderCrashed, DecoderTimeout, InternalError, RunError, TooLarge
from dictalake.sandbox import pool
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import Sandbox
from dictalake.sandbox.process import ChildProcess
from tests.unit.sandbox.functions import behave


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    opened = Sandbox(behave, CallLimits(cpu_s=2.0, memory_mb=150.0))
    yield opened
    opened.close()


def test_result_and_samples_come_back_and_the_child_is_kept(sandbox: Sandbox) -> None:
    result, samples = sandbox.call(b"work", "r1", {"vad": "none"})
    assert result == {"said": "work", "settings": {"vad": "none"}}
    np.testing.assert_array_equal(samples, [[0, 1, 2], [3, 4, 5]])
    pids = {sandbox.call(b"pid", "r1", {})[0]["pid"] for _ in range(5)}
    assert len(pids) == 1
    assert os.getpid() not in pids


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_child_that_dies_twice_is_a_crash(sandbox: Sandbox, how: signal.Signals) -> None:
    with pytest.raises(DecoderCrashed, match=how.name) as caught:
        sandbox.call(f"die {how.value}".encode(), "r1", {})
    assert (caught.value.recording_id, caught.value.reason, caught.value.retryable) == ("r1", "decoder_crashed", False)
    assert caught.value.ended
    assert sandbox.call(b"work", "r2", {})[0]["said"] == "work"


def test_child_that_dies_once_costs_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """The kernel may kill the child whose memory it needs, or an operator the wrong process."""
    (tmp_path / "file").write_bytes(b"xy")
    with (tmp_path / "file").open("rb", buffering=0) as file:
        assert sandbox.call(b"die-once", "r1", {}, [file.fileno()])[0]["said"] == "die-once"
        assert file.tell() == 1


def test_the_second_try_is_in_a_child_that_has_read_nothing_else() -> None:
    sandbox = Sandbox(behave, CallLimits(cpu_s=5.0, memory_mb=150.0))
    for child in [sandbox._take_child(fresh=True) for _ in range(2)]:
        sandbox._put_back(child)
    with pytest.raises(DecoderCrashed):
        sandbox.call(b"die", "r1", {})
    assert len(sandbox._idle) == 1, "the other one was left alone"
    sandbox.close()


@pytest.mark.parametrize("what", ["sleep", "spin"])
def test_child_that_never_ends_is_a_timeout(sandbox: Sandbox, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bool] = []
    take = sandbox._take_child
    monkeypatch.setattr(sandbox, "_take_child", lambda *, fresh: tries.append(fresh) or take(fresh=fresh))
    with pytest.raises(DecoderTimeout, match=r"limits\.decode_s"):
        sandbox.call(what.encode(), "r1", {})
    assert tries == [False], "it has had all of its time"
    assert sandbox.call(b"work", "r2", {})[0]["said"] == "work"


def test_child_that_allocates_without_end_is_too_large(sandbox: Sandbox) -> None:
    with pytest.raises(TooLarge, match=r"150 MB of limits\.decode_mb"):
        sandbox.call(b"allocate", "r1", {})
    assert sandbox.call(b"work", "r2", {})[0]["said"] == "work"


@pytest.mark.skipif(sys.platform != "linux", reason="the caller sets the limits of another process")
class TestProcessorTime:
    def test_a_call_and_the_life_of_a_child_have_a_limit(self) -> None:
        sandbox = Sandbox(behave, CallLimits(cpu_s=100.0, memory_mb=150.0))
        sandbox.call(b"work", "r1", {})
        now, life = sandbox.call(b"limit", "r1", {})[0]["processor"]
        (child,) = sandbox._idle
        used = child._find_processor_s()
        assert used is not None
        assert 100 <= now <= used + 101
        assert 300 <= life <= used + 301
        sandbox.close()

    def test_a_child_that_ignores_its_signals_and_has_time_by_the_clock_is_ended_by_the_kernel(self) -> None:
        class Patient(CallLimits):
            clock_s = 600.0  # type: ignore[assignment]

        sandbox = Sandbox(behave, Patient(cpu_s=0.3, memory_mb=150.0))
        with pytest.raises(DecoderTimeout, match=r"limits\.decode_s"):
            sandbox.call(b"spin on", "r1", {})
        sandbox.close()

    def test_a_child_that_has_not_enough_left_for_another_call_is_replaced(self) -> None:
        sandbox = Sandbox(behave, CallLimits(cpu_s=100.0, memory_mb=150.0))
        first = sandbox.call(b"pid", "r1", {})[0]["pid"]
        (child,) = sandbox._idle
        child._limits = CallLimits(cpu_s=400.0, memory_mb=150.0)
        assert sandbox.call(b"pid", "r1", {})[0]["pid"] == first
        assert sandbox.call(b"pid", "r1", {})[0]["pid"] != first
        sandbox.close()


def test_neighbours_of_those_that_die_and_hang_are_unharmed() -> None:
    sandbox = Sandbox(behave, CallLimits(cpu_s=2.0, memory_mb=150.0), children=3)
    requests = [b"work", b"die", b"work", b"allocate", b"work", b"spin", b"work", b"fail"] * 2
    wanted = ["ok", "decoder_crashed", "ok", "too_large", "ok", "decoder_timeout", "ok", "corrupt_audio"] * 2

    def outcome(request: bytes) -> str:
        try:
            sandbox.call(request, "r1", {})
        except (DecoderCrashed, TooLarge, DecoderTimeout, CorruptAudio) as error:
            return error.reason
        return "ok"

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(outcome, requests)) == wanted
    sandbox.close()


def test_errors_of_the_function_arrive_as_they_are(sandbox: Sandbox) -> None:
    with pytest.raises(CorruptAudio, match="it is broken"):
        sandbox.call(b"fail", "r1", {})


def test_defect_tells_type_and_place_alone(sandbox: Sandbox) -> None:
    with pytest.raises(InternalError) as caught:
        sandbox.call(b"bug CANARY", "r1", {})
    assert caught.value.detail.startswith("ValueError in functions.py:")


def test_recursion_without_end_is_a_defect_of_one_recording(sandbox: Sandbox) -> None:
    with pytest.raises(InternalError, match="RecursionError"):
        sandbox.call(b"recurse", "r1", {})


def test_child_sees_no_secret_and_writes_no_file(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY")
    fresh = Sandbox(behave, CallLimits(cpu_s=2.0, memory_mb=150.0))
    assert "CANARY" not in str(fresh.call(b"environment", "r1", {}))
    with pytest.raises((InternalError, DecoderCrashed)):
        fresh.call(f"write {tmp_path / 'file'}".encode(), "r1", {})
    assert not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_size == 0
    fresh.close()


def test_children_go_when_their_caller_is_killed() -> None:
    script = (
        "from tests.unit.sandbox.functions import behave\n"
        "from dictalake.sandbox.messages import CallLimits\n"
        "from dictalake.sandbox.pool import Sandbox\n"
        "sandbox = Sandbox(behave, CallLimits(cpu_s=5.0, memory_mb=150.0))\n"
        "print(sandbox.call(b'pid', 'r1', {})[0]['pid'], flush=True)\n"
        "sandbox.call(b'sleep', 'r1', {})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ) as caller:
        assert caller.stdout is not None
        child = psutil.Process(int(caller.stdout.readline()))
        caller.kill()
    deadline = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_that_is_killed_while_it_starts_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not seen a byte yet: that says nothing of the recording."""
    real, started = ChildProcess._receive, []

    def receive(child: ChildProcess, deadline: float, *nonce: str) -> Any:
        if child.calls == 0:
            started.append(child._process.pid)
            if len(started) < 3:
                child._process.kill()
        return real(child, deadline, *nonce)

    monkeypatch.setattr(ChildProcess, "_receive", receive)
    sandbox = Sandbox(behave, CallLimits(cpu_s=2.0, memory_mb=150.0))
    assert sandbox.call(b"work", "r1", {})[0]["said"] == "work"
    assert len(started) == 3
    assert not any(psutil.pid_exists(pid) for pid in started[:2])
    sandbox.close()


@pytest.mark.skipif(sys.platform != "linux", reason="no prlimit")
@pytest.mark.parametrize("arguments", [2, 3])
def test_a_prlimit_that_is_refused_is_named(arguments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = resource.prlimit

    def refuse(*given: Any) -> Any:
        if len(given) == arguments:
            raise PermissionError(1, "Operation not permitted")
        return real(*given)

    monkeypatch.setattr(resource, "prlimit", refuse)
    monkeypatch.setattr(pool, "_START_PAUSE_S", 0.0)
    with pytest.raises(RunError, match=r"\(this machine refuses prlimit on the decoder's process: PermissionError 1\)"):
        Sandbox(behave, CallLimits(cpu_s=2.0, memory_mb=150.0)).call(b"work", "r1", {})


@pytest.mark.parametrize("program", ["/bin/false", "/not/there"])
def test_children_that_cannot_be_started_end_the_run_with_a_clear_error(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(behave, CallLimits(cpu_s=2.0, memory_mb=150.0))
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(RunError, match=r"no process could be started.*(status 1|FileNotFoundError 2)"):
        sandbox.call(b"work", "r1", {})
    with sandbox.session() as session, pytest.raises(RunError, match="no process could be started"):
        session.call(b"work", "r1", {})
    with pytest.raises(RunError):  # its place was given back
        sandbox.call(b"work", "r1", {})
