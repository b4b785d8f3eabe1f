"""What tests of whole runs share: a lake that a run over the mixed archive wrote."""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Config
from dictalake.workflow import run as story
from dictalake.workflow.plan import Resources
from dictalake.workflow.run import RunSummary, transcribe
from tests.recordings import make_config, write_mixed_archive
from tests.stub_stages import StubDecode, StubEmit

IN_MAY = datetime(2025, 5, 17, 12, tzinfo=UTC)


@dataclass(frozen=True)
class FinishedRun:
    """A run that is over, and what it was asked to do."""

    config: Config
    summary: RunSummary
    archive: Path
    lake: Path


@pytest.fixture(scope="session")
def mixed_run(two_cpus: Resources, random_lasr: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The mixed archive in a lake. One of its files is of May 2025."""
    folder = tmp_path_factory.mktemp("mixed")
    archive, lake = write_mixed_archive(folder / "archive"), folder / "lake"
    os.utime(archive / "ward/tones.flac", (IN_MAY.timestamp(), IN_MAY.timestamp()))
    config = make_config(random_lasr, lake, archive={"uri": str(archive)}, report={"write": True})
    return FinishedRun(config, transcribe(config), archive, lake)


@pytest.fixture(scope="session")
def demo_lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled by the demo, whose exit status says that exactly the two broken files failed. Tests may write to it.

    The processes that run tests side by side share one demo, of which each has a copy.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "demo-lake").exists():
            request.getfixturevalue("two_cpus")
            assert run_command("demo", ["--lake.uri", str(shared / "demo-unfinished")]) == 0
            (shared / "demo-unfinished").rename(shared / "demo-lake")
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(shared / "demo-lake", folder / "untouched")
    return Path(shutil.copytree(shared / "demo-lake", folder / "lake"))


@pytest.fixture
def stub_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs recognise silence everywhere, without a model: for tests of what happens around it."""
    monkeypatch.setattr(story, "Emit", StubEmit)
    monkeypatch.setattr(story, "Decode", StubDecode)


@pytest.fixture
def untouched_demo_lake(demo_lake: Path, tmp_path: Path) -> Path:
    """A copy of it as the demo left it."""
    return Path(shutil.copytree(demo_lake.parent / "untouched", tmp_path / "demo-lake"))
