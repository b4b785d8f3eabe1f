"""What tests of whole runs share: a lake that a run over the mixed archive wrote."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Config
from dictalake.workflow.plan import Resources
from dictalake.workflow.run import RunSummary, transcribe
from tests.recordings import make_config, write_mixed_archive

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
    config = make_config(random_lasr, lake, archive={"uri": str(archive)})
    return FinishedRun(config, transcribe(config), archive, lake)


@pytest.fixture(scope="session")
def demo_lake(two_cpus: Resources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled by the demo, whose exit status says that exactly the two broken files failed. Tests may write to it."""
    lake = tmp_path_factory.mktemp("demo") / "lake"
    assert run_command("demo", ["--lake.uri", str(lake)]) == 0
    shutil.copytree(lake, lake.parent / "untouched")
    return lake


@pytest.fixture
def untouched_demo_lake(demo_lake: Path, tmp_path: Path) -> Path:
    """A copy of it as the demo left it."""
    return Path(shutil.copytree(demo_lake.parent / "untouched", tmp_path / "demo-lake"))
