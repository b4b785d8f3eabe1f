"""Ray's workers start as forks of one process, each with what Ray gave to it; where there is none, as Ray starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dictalake.workflow import fork_server

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forks on Linux alone")

WORKER = """
import gc, json, os, sys
umask = os.umask(0o077)
print(json.dumps({
    "arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ), "umask": umask, "parent": os.getppid(),
    "is_leader": os.getpgid(0) == os.getpid(), "has_imported": ["colorsys" in sys.modules, "wave" in sys.modules],
    "oom_score_adj": open("/proc/self/oom_score_adj").read().strip(),
    "frozen": gc.get_freeze_count() > 0,
    "has_own_code": any("dictalake" in name for name in sys.modules), "path": sys.path, "input": sys.stdin.read(),
}))
print("a line", file=sys.stderr)
sys.exit(3)
"""
OF_RAY = {"RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": "17"}


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """A script in the place of Ray's, and beside it one in the place of ``setup_worker.py``."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/setup_worker.py").write_text("import sys; print('set up', sys.argv[1:])")
    script = tmp_path / "ray/default_worker.py"
    script.write_text(WORKER)
    return script


@pytest.fixture
def server(tmp_path: Path) -> Iterator[None]:
    """A fork server that has imported two small modules, one of them with the first worker."""
    with fork_server.fork_server(tmp_path, soon=["colorsys"], later=["wave"]):
        yield


def arguments(script: Path) -> list[str]:
    return [str(script), f"--temp-dir={script.parent.parent / fork_server.RAYS_FOLDER}", "--worker-id=5"]


def start(
    script: Path, *more: str, language: str = "PYTHON", oom_score_adj: int | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """As Ray's node starts a worker. A pipe stays open as long as a process holds its other end: also that of a fork."""
    set_score = (
        [] if oom_score_adj is None else ["sh", "-c", f'echo {oom_score_adj} > /proc/self/oom_score_adj; exec "$@"', "sh"]
    )
    return subprocess.run(
        [*set_score, sys.executable, fork_server.__file__, *arguments(script), *more, f"--language={language}"],
        env={**os.environ, **OF_RAY, **variables},
        cwd=script.parent,
        input="of its own",
        capture_output=True,
        text=True,
        umask=0o027,
        timeout=60,
        check=False,
    )


def read(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_worker_is_a_fork_with_the_arguments_and_surroundings_that_ray_gave_to_it(server: None, worker: Path) -> None:
    done = start(worker, "--serialized-runtime-env-context={}", OF_THIS_ONE="yes")
    seen = read(done)
    assert seen["arguments"] == arguments(worker)
    assert (seen["has_imported"], seen["frozen"]) == ([True, True], True)
    assert (seen["folder"], seen["umask"], seen["is_leader"]) == (str(worker.parent), 0o027, True)
    assert seen["environment"]["OF_THIS_ONE"] == "yes"
    assert {name: seen["environment"][name] for name in OF_RAY} == OF_RAY
    assert ("OPENBLAS_NUM_THREADS" in seen["environment"]) == ("OPENBLAS_NUM_THREADS" in os.environ)
    assert (seen["input"], done.stderr) == ("of its own", "a line\n")
    assert seen["parent"] == read(start(worker))["parent"]  # the server


ENDING = """
import atexit

class Held:
    def __del__(self):
        print("taken down", flush=True)

held = Held()
atexit.register(print, "said at the end")
if {wrong!r}:
    raise ValueError("of the worker")
raise SystemExit({status!r})
"""


def test_a_forked_worker_says_what_it_must_and_ends_without_taking_down_what_is_shared(server: None, worker: Path) -> None:
    worker.write_text(ENDING.format(wrong=False, status=None))
    assert start(worker).stdout.split("\n") == ["said at the end", ""]
    assert start(worker, RAY_JOB_ID="02000000").stdout.split("\n") == ["said at the end", "taken down", ""]


@pytest.mark.parametrize(("wrong", "status", "ended"), [(False, None, 0), (False, 7, 7), (False, "why", 1), (True, None, 1)])
def test_a_worker_ends_with_the_status_of_its_script(worker: Path, wrong: bool, status: Any, ended: int) -> None:
    worker.write_text(ENDING.format(wrong=wrong, status=status))
    code = (
        f"import os, runpy; own = runpy.run_path({fork_server.__file__!r}); own['become_worker'](own['_Request']("
        f"[{str(worker)!r}], dict(os.environ), '/', 0o077, '0', tuple(os.dup(number) for number in range(3))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (ended, "said at the end\n")
    assert ("ValueError: of the worker" in done.stderr) == wrong


def test_where_memory_is_short_the_kernel_ends_a_forked_worker_before_the_driver(server: None, worker: Path) -> None:
    seen = read(start(worker, oom_score_adj=1000))
    assert (seen["has_imported"], seen["oom_score_adj"]) == ([True, True], "1000")


@pytest.mark.parametrize("half", [b"", b"\0\0", b"\0\0\1\0{"])
def test_a_request_that_ends_half_way_does_not_end_the_server(server: None, worker: Path, tmp_path: Path, half: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "fork"))
        if half:
            socket.send_fds(connection, [half], [0, 1, 2])
    assert read(start(worker))["has_imported"] == [True, True]


def test_a_worker_finds_modules_where_one_of_rays_own_would(server: None, worker: Path) -> None:
    forked, own = read(start(worker)), read(start(worker, RAY_JOB_ID="02000000"))
    assert forked["path"] == own["path"]
    assert forked["path"][0] == str(worker.parent)
    assert not forked["has_own_code"], "which dictalake a worker imports is its own business"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has no safe path")
def test_a_worker_finds_all_of_a_users_folders_where_scripts_bring_none(
    worker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "theirs"))
    with fork_server.fork_server(tmp_path, soon=["colorsys"], later=["wave"]):
        forked, own = read(start(worker)), read(start(worker, RAY_JOB_ID="02000000"))
    assert forked["has_imported"] == [True, True]
    assert forked["path"] == own["path"]
    assert str(tmp_path / "theirs") in forked["path"]


def test_a_worker_of_another_job_is_no_fork_as_ray_has_read_its_variables_already(server: None, worker: Path) -> None:
    assert read(start(worker))["has_imported"] == [True, True]
    other = start(worker, RAY_JOB_ID="02000000")
    assert (read(other)["has_imported"], other.returncode) == ([False, False], 3)
    assert read(other)["environment"]["RAY_JOB_ID"] == "02000000"


@pytest.mark.parametrize("job", ["", "ffffffff"])
def test_a_worker_of_no_job_comes_first_and_the_next_one_is_a_fork_all_the_same(server: None, worker: Path, job: str) -> None:
    assert read(start(worker, RAY_JOB_ID=job))["has_imported"] == [False, False]
    assert read(start(worker))["has_imported"] == [True, True]


def test_without_a_server_a_worker_starts_as_ray_starts_it(worker: Path, tmp_path: Path) -> None:
    def require_own_start() -> None:
        done = start(worker)
        assert (read(done)["arguments"], done.returncode) == (arguments(worker), 3)
        assert read(done)["has_imported"] == [False, False]

    require_own_start()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "fork"))
    require_own_start()


def test_a_worker_that_was_given_up_is_not_started_a_second_time(server: None, worker: Path, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("open('started', 'w')")
    request = {
        "command": [str(tmp_path / "late.py")],
        "environment": {**os.environ, **OF_RAY},
        "folder": str(tmp_path),
        "umask": 0,
        "oom_score_adj": "0",
    }
    body = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "fork"))
        socket.send_fds(connection, [len(body).to_bytes(4, "big") + body], [0, 1, 2])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"\1"
    assert read(start(worker))["has_imported"] == [True, True]  # the server takes one after another
    assert not (tmp_path / "started").exists()


def test_no_two_workers_choose_the_same_ids(worker: Path, tmp_path: Path) -> None:
    """Ray's core draws them from random numbers of which forks must not inherit the state."""
    worker.write_text("import ray, sys; print(ray.ObjectID.from_random().hex(), 'ray.data' in sys.modules)")
    with fork_server.fork_server(tmp_path):
        first, second = (start(worker).stdout.split() for _ in range(2))
    assert (first[1], second[1]) == ("True", "True")
    assert first[0] != second[0]


def test_what_ray_has_to_set_up_for_a_worker_is_left_to_ray(server: None, worker: Path) -> None:
    context = '--serialized-runtime-env-context={"env_vars": {"A": "b"}}'
    assert start(worker, context).stdout == f"set up {[*arguments(worker), context, '--language=PYTHON']}\n"
    assert start(worker, language="JAVA").stdout.startswith("set up")


def test_a_server_ends_with_its_driver_and_leaves_nothing(tmp_path: Path) -> None:
    with fork_server.fork_server(tmp_path, soon=[], later=[]):
        assert [path.name for path in tmp_path.iterdir()] == ["fork"]
    assert list(tmp_path.iterdir()) == []
    listener, ours, theirs = socket.socket(socket.AF_UNIX), *socket.socketpair()
    with listener, theirs:
        listener.bind(str(tmp_path / "fork"))
        listener.listen()
        ours.close()  # as when the driver is killed
        assert fork_server.serve(listener, theirs) is None
