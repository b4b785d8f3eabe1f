"""How a run starts Ray: what SIGTERM does, and what a refusal says. Ray itself is not started here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ray._private import services

from dictalake import stops
from dictalake.config.sections import Config
from dictalake.errors import RunError
from dictalake.workflow import cluster


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    stops.forget()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ExitStack]:
    """Ends what was started. Ray's folder lies in one of this test."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with ExitStack() as ending:
        yield ending


def ray_installs_its_own(**_: Any) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: None)


@pytest.mark.usefixtures("sigterm")
def test_a_script_without_a_handler_is_stopped_and_not_killed_while_ray_runs(
    monkeypatch: pytest.MonkeyPatch, ending: ExitStack
) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(cluster.ray, "init", ray_installs_its_own)
    cluster._start(Config(), ending)
    with pytest.raises(SystemExit, match="143"):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("sigterm")
def test_the_handler_of_a_command_stays_in_place(monkeypatch: pytest.MonkeyPatch, ending: ExitStack) -> None:
    def stop(number: int, frame: FrameType | None) -> None: ...

    signal.signal(signal.SIGTERM, stop)
    monkeypatch.setattr(cluster.ray, "init", ray_installs_its_own)
    cluster._start(Config(), ending)
    assert signal.getsignal(signal.SIGTERM) is stop


@pytest.mark.usefixtures("sigterm")
def test_a_start_that_is_stopped_half_way_is_a_stop_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, ending: ExitStack
) -> None:
    """Ray's node installs a handler first, and starts processes that Ray does not know of yet."""
    started: list[subprocess.Popen[bytes]] = []

    def be_stopped(**_: Any) -> None:
        cluster.ray._private.utils.set_sigterm_handler(lambda number, frame: None)
        started.append(services.ConsolePopen(["sleep", "600"]))
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(cluster.ray, "init", be_stopped)
    with pytest.raises(SystemExit, match="143"):
        cluster._start(Config(), ending)
    assert os.getpgid(started[0].pid) != os.getpgid(0)  # a signal to the group of the run does not reach Ray
    ending.close()
    assert started[0].poll() is not None
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    stops.check()  # the request is forgotten with the run


@pytest.mark.usefixtures("sigterm")
def test_a_stop_while_rays_core_starts_is_not_followed_by_the_alarm_that_aborts(
    monkeypatch: pytest.MonkeyPatch, ending: ExitStack
) -> None:
    def make_core() -> None:
        ours = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        signal.alarm(3600)
        assert callable(ours)
        ours(signal.SIGTERM, None)

    monkeypatch.setattr(cluster.ray._raylet, "CoreWorker", make_core)
    monkeypatch.setattr(cluster.ray, "init", lambda **_: cluster.ray._raylet.CoreWorker())  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(SystemExit, match="143"):
        cluster._start(Config(), ending)
    assert signal.alarm(0) == 0
    assert signal.getsignal(signal.SIGTERM) is stops.handle
    assert cluster.ray._raylet.CoreWorker is make_core  # type: ignore[attr-defined]


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize("slow_starts", [1, 2])
def test_a_start_that_was_too_slow_is_tried_once_more(
    slow_starts: int, monkeypatch: pytest.MonkeyPatch, ending: ExitStack, tmp_path: Path
) -> None:
    folders = list[str]()

    def be_slow(*, _temp_dir: str, **_: Any) -> None:
        folders.append(_temp_dir)
        if len(folders) <= slow_starts:
            raise Exception("The current node timed out during startup. This could happen because some of the raylet failed")

    monkeypatch.setattr(cluster.ray, "init", be_slow)
    if slow_starts == 1:
        cluster._start(Config(), ending)
    else:
        with pytest.raises(RunError, match="Ray cannot start on this machine"):
            cluster._start(Config(), ending)
    assert len({*folders}) == 2
    assert len(list(tmp_path.glob("dl-*/token"))) == 1, "of the first start nothing is left"


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
@pytest.mark.parametrize("words", ["The current node timed out during startup", "The raylet died"])
def test_a_stop_that_ray_turns_into_an_error_of_its_own_is_followed_by_no_second_start(
    words: str, address: str | None, monkeypatch: pytest.MonkeyPatch, ending: ExitStack
) -> None:
    starts = list[int]()

    def lose_the_stop(**_: Any) -> None:
        starts.append(len(starts))
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise Exception(words) from None

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(cluster.ray, "init", lose_the_stop)
    with pytest.raises(SystemExit, match="143"):
        cluster._start(Config.model_validate({"ray": {"address": address}}), ending)
    assert starts == [0]


def test_a_cluster_that_refuses_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch, ending: ExitStack) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with Python 3.12\nand more")

    monkeypatch.setattr(cluster.ray, "init", refuse)
    config = Config.model_validate({"ray": {"address": "10.0.0.1:6379"}})
    with pytest.raises(RunError, match=r"^ray\.address = 10\.0\.0\.1:6379: .*Version mismatch: .*Python 3\.12$"):
        cluster._start(config, ending)


@pytest.mark.parametrize(
    ("given", "usual", "named"),
    [
        ("{}/x", "/tmp/y", "RAY_TMPDIR = {}/x"),
        (None, "/tmp/y", "/tmp/y, as RAY_TMPDIR is not set"),
        (None, "/tmp/" + "y" * 40, "/tmp, as RAY_TMPDIR is not set"),
    ],
)
def test_a_ray_that_cannot_start_names_the_folder_that_was_used(
    given: str | None, usual: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", usual)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    if given is not None:
        monkeypatch.setenv("RAY_TMPDIR", given.format(tmp_path))
    assert f"({named.format(tmp_path)})" in cluster._explain_no_start("OSError")


def test_a_plan_is_made_without_ray() -> None:
    """So that doctor can say at once whether a configuration fits."""
    listing = "import sys, dictalake.workflow.plan; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert "dictalake.workflow.plan" in done.stdout.split()
    assert "ray" not in done.stdout.split()
