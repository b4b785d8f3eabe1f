"""What other users of the machine see of a run: no port but on 127.0.0.1, no folder, no token; of the lake what its user lets
them. The runs are processes of their own, with Ray's authentication turned off in their environment."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dictalake.workflow import fork_server
from tests.commands import ROOT, own_ray_folder

LOOK_AROUND = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from dictalake.config.sections import Config
from dictalake.workflow import cluster
import psutil, ray

def modes(folder):
    return {str(path.relative_to(folder)): path.lstat().st_mode for path in [folder, *folder.rglob("*")]}

folder, found = Path(os.environ["RAY_TMPDIR"]), []
before = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
for _ in range(2):
    with cluster.running_cluster(Config.model_validate({"ray": {"cpus": 1}})):
        @ray.remote
        def who():
            parent = psutil.Process().parent()
            return [name for name in os.environ if name == "RAY_AUTH_TOKEN"], [*parent.cmdline(), "", ""][1:3]
        kept, give_up = [ray.put(np.zeros(4_000_000)) for _ in range(3)], time.monotonic() + 60
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        in_environment, parent = ray.get(who.remote())
        while not list(session.rglob("ray_spilled_objects_*/*")) and time.monotonic() < give_up:
            time.sleep(0.05)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [one.net_connections("inet") for one in processes]
        open_ports = [(one.laddr.ip, one.type) for many in sockets for one in many if not one.raddr]
        found.append({
            "open_ports": open_ports, "modes": modes(folder), "token": next(folder.glob("*/token")).read_text(),
            "spilled": [str(path.relative_to(folder)) for path in session.rglob("ray_spilled_objects_*/*")],
            "address": ray.get_runtime_context().gcs_address, "in_environment": in_environment,
            "commands": [one.cmdline() for one in processes], "parent": parent,
        })
        if not found[1:]:
            code = "from dictalake.workflow.private_ray import is_open; print(is_open(%r))" % found[0]["address"]
            import subprocess
            found[0]["is_open"] = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
after = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
print(json.dumps({"runs": found, "left": modes(folder), "is_restored": before == after,
                  "has_token_at_home": (Path.home() / ".ray/auth_token").exists()}))
"""


@dataclass(frozen=True)
class Seen:
    """What the script above printed."""

    runs: list[dict[str, Any]]
    left: dict[str, int]
    is_restored: bool
    has_token_at_home: bool


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    with own_ray_folder() as folder:
        folder.chmod(0o755)
        environment = {**os.environ, "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "known" * 8}
        environment |= {"HOME": str(folder / "home")}
        environment |= {"RAY_object_spilling_threshold": "0.0001", "RAY_min_spilling_size": "1"}
        done = subprocess.run(
            [sys.executable, "-c", LOOK_AROUND],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            umask=0o022,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield Seen(**json.loads(done.stdout.splitlines()[-1]))


def test_a_local_ray_listens_on_the_loopback_address_alone(seen: Seen) -> None:
    for run in seen.runs:
        assert len(run["open_ports"]) >= 4  # the store of the cluster, the node and its workers
        assert {ip.removeprefix("::ffff:") for ip, _ in run["open_ports"]} == {"127.0.0.1"}


def test_a_local_ray_asks_for_a_token_that_is_new_each_time_whatever_the_environment_says(seen: Seen) -> None:
    tokens = [run["token"] for run in seen.runs]
    assert len({*tokens, "known" * 8}) == 3
    assert all(len(token) == 64 for token in tokens)
    assert seen.runs[0]["is_open"] == "False"
    assert seen.is_restored


def test_the_token_stands_in_no_command_and_in_no_environment(seen: Seen) -> None:
    for run in seen.runs:
        assert run["in_environment"] == []
        assert [command for command in run["commands"] if any(run["token"] in part for part in command)] == []


def test_the_workers_of_a_local_ray_are_forks_of_one_process(seen: Seen) -> None:
    for run in seen.runs:
        assert run["parent"] == [fork_server.__file__, "serve"]


def test_only_its_owner_gets_at_a_session_and_at_what_it_spills(seen: Seen) -> None:
    for run in seen.runs:
        ours = next(name for name in run["modes"] if f"{name}/token" in run["modes"])
        assert stat.S_IMODE(run["modes"][ours]) == 0o700, "Ray makes its folders for everybody: nobody gets past this one"
        assert stat.S_IMODE(run["modes"][f"{ours}/token"]) == 0o600
        spilled = run["spilled"]
        assert spilled
        assert {stat.S_IMODE(run["modes"][name]) for name in spilled} == {0o600}
        assert {stat.S_IMODE(run["modes"][str(Path(name).parent)]) for name in spilled} == {0o700}


def test_of_a_session_ray_s_logs_are_left_for_its_owner(seen: Seen) -> None:
    ours = [name for name in seen.left if name.startswith("dl-") and "/" not in name]
    assert len(ours) == 2
    assert {stat.S_IMODE(seen.left[name]) for name in ours} == {0o700}
    files = {name for name, mode in seen.left.items() if stat.S_ISREG(mode) and not name.endswith("/in-use")}
    assert [name for name in files if "/logs/" in name]
    assert [name for name in files if "token" in name or "spilled" in name] == []
    assert [name for name, mode in seen.left.items() if stat.S_ISSOCK(mode)] == []
    assert not seen.has_token_at_home
