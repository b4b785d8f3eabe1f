"""Two processes with two copies of the package: they work together only if their code is the same."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dictalake.config.locations import PACKAGE
from dictalake.errors import ConfigError
from dictalake.workflow.package_hash import Package, hash_package, read_own_package, require_same_package

# What a worker does with a stage that a driver sent: unpickle it, and call it with a block.
WORKER = """
import pickle, sys
import pyarrow as pa
from dictalake.errors import ConfigError
stage = pickle.load(sys.stdin.buffer)
try:
    print([part.num_rows for part in stage(pa.table({"recording_id": ["a", "b"]}))])
except ConfigError as error:
    print(f"ConfigError: {error}")
"""
# The driver sends an instance of a stage, or, for an actor, only the class: that is what Ray Data does too.
DRIVER = """
import sys
import ray.cloudpickle as cloudpickle
from dictalake.workflow.quarantine import QuarantiningActor, QuarantiningStage, with_display_name

class Ledger:
    begin = lambda self, stage, key, recordings: 0
    end = lambda self, stage, key: None

def open_stage():
    return lambda table: table

class Worker:  # makes the actor where it is called
    def __init__(self, kind):
        self.kind = kind
    def __call__(self, table):
        return self.kind("emit", Ledger(), open_stage)(table)

kind = with_display_name("Emit", QuarantiningActor)
stage = Worker(kind) if sys.argv[1] == "actor" else QuarantiningStage("load", open_stage(), Ledger())
sys.stdout.buffer.write(cloudpickle.dumps(stage))
"""


def copy_package(folder: Path, change: bool) -> Path:
    """A folder to import a copy of dictalake from, with one line altered if ``change``; without the heavy assets."""
    copy = shutil.copytree(PACKAGE, folder / "dictalake", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    if change:
        with (copy / "workflow/columns.py").open("a", encoding="utf-8") as file:
            file.write("# another line\n")
    return folder


def run_python(code: str, *arguments: str, imports_from: Path, stdin: bytes = b"") -> bytes:
    environment = {**os.environ, "PYTHONPATH": str(imports_from)}
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, input=stdin, env=environment, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A stage and an actor's class as a driver sends them."""
    return {kind: run_python(DRIVER, kind, imports_from=PACKAGE.parent) for kind in ("stage", "actor")}


@pytest.mark.parametrize("kind", ["stage", "actor"])
def test_a_worker_with_a_copy_of_the_drivers_code_works(sent: dict[str, bytes], kind: str, tmp_path: Path) -> None:
    copy = copy_package(tmp_path, change=False)
    assert run_python(WORKER, imports_from=copy, stdin=sent[kind]) == b"[2]\n"


@pytest.mark.parametrize("kind", ["stage", "actor"])
def test_a_worker_with_other_code_is_refused_and_both_are_named(sent: dict[str, bytes], kind: str, tmp_path: Path) -> None:
    copy = copy_package(tmp_path, change=True)
    told = run_python(WORKER, imports_from=copy, stdin=sent[kind]).decode()
    assert told.startswith("ConfigError: a worker runs other code than the driver")
    for folder in (PACKAGE, copy / "dictalake"):
        assert str(folder) in told
        assert hash_package(folder) in told


def test_the_hash_depends_on_paths_and_bytes_of_python_files_and_on_nothing_else(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "room").mkdir(parents=True)
    (package / "a.py").write_text("1\n", encoding="utf-8")
    (package / "room/b.py").write_text("2\n", encoding="utf-8")
    before = hash_package(package)
    (package / "room/__pycache__").mkdir()
    (package / "room/__pycache__/b.cpython-311.pyc").write_bytes(b"compiled")
    (package / "data.json").write_text("{}", encoding="utf-8")
    (package / ".#a.py").symlink_to("nowhere")  # as an editor locks a file
    assert hash_package(shutil.copytree(package, tmp_path / "elsewhere", symlinks=True)) == before
    (package / "room/b.py").rename(package / "room/c.py")
    renamed = hash_package(package)
    (package / "room/c.py").write_text("3\n", encoding="utf-8")
    assert len({before, renamed, hash_package(package)}) == 3


def test_the_message_says_what_to_do() -> None:
    own = read_own_package()
    require_same_package(own._replace(machine="elsewhere", folder="/opt/dictalake"))
    for driver, advice in (
        (own._replace(hash="0"), "changed while the run was at work"),
        (own._replace(hash="0", folder="/opt/dictalake"), "start the run in another directory"),
        (Package("elsewhere", "/opt/dictalake", "0"), "install the same dictalake on all machines"),
    ):
        with pytest.raises(ConfigError, match=advice):
            require_same_package(driver)


def test_the_package_travels_between_processes() -> None:
    assert pickle.loads(pickle.dumps(read_own_package())) == read_own_package()
