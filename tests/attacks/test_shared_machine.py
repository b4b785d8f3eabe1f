"""What other users of a machine could reach: the numbers of a run, its Ray's token and folder, an open cluster.

tests/pipeline/test_shared_machine.py has what needs a real Ray.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from ray._private import ray_constants, services

from dictalake.cli import doctor_checks
from dictalake.config.observability import Metrics
from dictalake.config.sections import Config
from dictalake.observers.prometheus import MetricsPublisher, serve_metrics
from dictalake.observers.stats import RunStats
from dictalake.workflow import private_ray
from dictalake.workflow.quarantine import QuarantiningStage, read_umask
from tests.unit.workflow.test_quarantine import Local

A_DAY_S = 86_400


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def umask() -> Iterator[None]:
    before = read_umask()
    yield
    os.umask(before)


# -- metrics -------------------------------------------------------------------------------------------------------------


def listening() -> set[tuple[str, int]]:
    return {(one.laddr.ip, one.laddr.port) for one in psutil.Process().net_connections("tcp") if one.status == "LISTEN"}


@pytest.mark.parametrize(("keys", "address"), [({}, "127.0.0.1"), ({"address": "0.0.0.0"}, "0.0.0.0")])
def test_metrics_are_for_this_machine_alone_unless_told_otherwise(keys: dict[str, str], address: str) -> None:
    before = listening()
    publisher = serve_metrics(Metrics.model_validate({"port": free_port(), **keys}), "backfill", RunStats())
    assert isinstance(publisher, MetricsPublisher)
    try:
        assert {ip for ip, _ in listening() - before} == {address}
    finally:
        publisher._server.close()


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# -- Ray's token ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "known"},
        {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/etc/known"},
    ],
)
def test_the_environment_neither_turns_the_token_off_nor_chooses_it(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    tokens = set()
    for _ in range(2):
        with private_ray.private_ray():
            assert os.environ["RAY_AUTH_MODE"] == "token"
            assert "RAY_AUTH_TOKEN" not in os.environ  # it would go before the file
            token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
            assert stat.S_IMODE(token.stat().st_mode) == 0o600
            assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
            tokens.add(token.read_text())
        assert {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")} == given
    assert len(tokens) == 2
    assert all(len(token) == 64 for token in tokens)


def test_ray_is_told_to_stay_on_this_machine_and_to_open_its_files_to_nobody(tmp_path: Path) -> None:
    start = services.ConsolePopen
    with private_ray.private_ray() as options, private_ray.private_processes([]):
        assert (options["_node_ip_address"], options["dashboard_host"]) == ("127.0.0.1", "127.0.0.1")
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1", "Ray replaces it by the machine's address"
        before = read_umask()
        made = tmp_path / "made"
        services.ConsolePopen(["touch", str(made)]).wait()
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        assert read_umask() == before, "other threads of the driver write to the lake meanwhile"
    assert services.ConsolePopen is start
    assert ray_constants.ENABLE_RAY_CLUSTER


# -- Ray's folder --------------------------------------------------------------------------------------------------------


def test_of_the_folder_of_a_run_the_logs_stay_also_after_a_failure(parent: Path) -> None:
    def fail() -> None:
        with private_ray.private_ray() as options:
            session = Path(options["_temp_dir"]) / "session_1"
            for name in ("logs", "sockets", "ray_spilled_objects_1"):
                (session / name).mkdir(parents=True)
                (session / name / "file").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (left,) = parent.glob("dl-*")
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    files = {str(path.relative_to(left)) for path in left.rglob("*") if path.is_file()}
    assert files == {"in-use", "r/session_1/logs/file"}


def leave_behind(parent: Path, name: str, age_s: float) -> Path:
    folder = parent / f"dl-{name}"
    (folder / "r").mkdir(parents=True)
    (folder / "r/spilled").write_bytes(b"sound")
    (folder / "in-use").touch()
    os.utime(folder / "in-use", (time.time() - age_s,) * 2)
    return folder


def test_what_killed_runs_left_is_removed_after_a_day_and_nothing_else(parent: Path) -> None:
    old, new = leave_behind(parent, "old", A_DAY_S + 60), leave_behind(parent, "new", 60)
    at_work, others = leave_behind(parent, "work", 2 * A_DAY_S), parent / "dl-of-somebody"
    others.mkdir()
    with (at_work / "in-use").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with private_ray.private_ray():
            assert {path.exists() for path in (new, at_work, others)} == {True}
            assert not old.exists()


@pytest.mark.parametrize("target", ["a" * 300, "dl-x", "/root/x", "/dev/zero", "/nowhere"], ids=lambda target: target[:9])
def test_a_link_of_another_user_neither_stops_a_run_nor_the_removal(parent: Path, target: str) -> None:
    old = leave_behind(parent, "old", A_DAY_S + 60)
    (parent / "dl-x").symlink_to(target)
    with private_ray.private_ray():
        assert not old.exists()
    assert (parent / "dl-x").is_symlink()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("a" * 300)], ids=["folder", "link"])
def test_an_odd_lock_in_a_folder_of_that_name_does_not_stop_a_run(parent: Path, make: Callable[[Path], None]) -> None:
    (parent / "dl-odd").mkdir()
    make(parent / "dl-odd/in-use")
    with private_ray.private_ray():
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_what_another_user_left_stays(parent: Path) -> None:
    theirs = leave_behind(parent, "theirs", 2 * A_DAY_S)
    os.chown(theirs, 65_534, -1)
    with private_ray.private_ray():
        pass
    assert (theirs / "r/spilled").exists()


def test_a_link_in_a_shared_folder_does_not_lead_the_removal_elsewhere(parent: Path) -> None:
    precious = leave_behind(parent / "elsewhere", "x", 2 * A_DAY_S)
    (parent / "dl-trap").symlink_to(precious)
    with private_ray.private_ray():
        pass
    assert (precious / "r/spilled").exists()


def test_a_folder_that_is_named_and_not_there_is_made_for_its_owner_alone(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(parent / "not" / "there"))
    with private_ray.private_ray() as options:
        assert Path(options["_temp_dir"]).is_relative_to(parent / "not/there")
        assert stat.S_IMODE((parent / "not/there").stat().st_mode) == 0o700


@pytest.mark.parametrize(("length", "is_taken"), [(29, True), (30, False), (38, False), (200, False)])
def test_a_folder_for_temporary_files_with_a_long_path_is_not_taken(
    length: int, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = "/tmp/".ljust(length, "x")
    monkeypatch.setattr(tempfile, "tempdir", usual)
    monkeypatch.delenv("RAY_TMPDIR")
    assert private_ray.find_parent() == Path(usual if is_taken else "/tmp")
    folder = private_ray.find_parent() / "dl-12345678"
    socket_path = folder / "r" / "session_2026-11-30_14-12-23_123456_4194304" / "sockets" / "plasma_store"
    assert len(str(socket_path)) <= 107


# -- files of a worker ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("of_user", [0o022, 0o077])
def test_a_worker_writes_to_the_lake_with_the_umask_of_the_user(of_user: int, tmp_path: Path) -> None:
    def write(table: pa.Table) -> pa.Table:
        (tmp_path / "file").touch()
        return table

    os.umask(of_user)
    stage = QuarantiningStage("finish", write, Local({"n1"}))
    os.umask(0o077 if of_user == 0o022 else 0o022)  # the worker's, from Ray
    list(stage(pa.table({"recording_id": ["a"]})))
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~of_user


# -- clusters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_open", "state", "what"),
    [
        (True, doctor_checks.WARN, "the cluster is open; it asks for no token"),
        (None, doctor_checks.FAIL, "no Ray cluster answers there"),
        (False, doctor_checks.OK, "the cluster asks for a token"),
    ],
)
def test_doctor_says_whether_a_cluster_is_open(
    is_open: bool | None, state: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_ray, "is_open", lambda address: is_open)
    config = Config.model_validate({"ray": {"address": "10.0.0.5:6379"}})
    try:
        found, found_state = doctor_checks.check_workers(config), doctor_checks.OK
    except doctor_checks.CheckFailed as failed:
        found, found_state = failed.what, failed.state
    assert found_state == state
    assert what in found


def test_of_a_cluster_behind_a_proxy_doctor_says_that_it_cannot_tell() -> None:
    config = Config.model_validate({"ray": {"address": "ray://10.0.0.5:10001"}})
    assert "cannot be told from here" in doctor_checks.check_workers(config)


def test_where_nothing_listens_no_cluster_answers() -> None:
    assert private_ray.is_open(f"127.0.0.1:{free_port()}") is None
    assert private_ray.is_open("no address") is None
