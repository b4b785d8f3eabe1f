"""What ``pip install`` puts into an environment: the package with all its data, and nothing else at top level."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from dictalake.config.locations import PACKAGE

ROOT = Path(__file__).parents[2]


def build(version: str, folder: Path) -> set[str]:
    """The files of a wheel, built without pip and without a network."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=[version])
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return build("standard", tmp_path_factory.mktemp("wheel"))


def test_only_dictalake_is_at_top_level(files: set[str]) -> None:
    tops = {name.split("/")[0] for name in files}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dictalake"}


def test_every_file_of_the_package_is_in_the_wheel(files: set[str]) -> None:
    expected = {
        f"dictalake/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"dictalake/pages.css", "dictalake/reporting/report.html", "dictalake/assets/medasr-mini/config.json"} <= expected
    assert expected <= files


def test_the_shipped_configurations_are_in_the_wheel(files: set[str]) -> None:
    assert {f"dictalake/conf/{path.name}" for path in (ROOT / "conf").iterdir()} <= files


def test_what_the_pages_link_to_is_in_the_source_distribution(tmp_path: Path) -> None:
    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(archive) as tar:
        there = {name.partition("/")[2] for name in tar.getnames()}
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            path = (page.parent / link).resolve().relative_to(ROOT).as_posix()
            assert any(name == path or name.startswith(f"{path}/") for name in there), f"{page.name}: {link}"


def test_neither_tests_nor_jobs_nor_compiled_files_are_in_the_wheel(files: set[str]) -> None:
    assert not [name for name in files if {"tests", "jobs", "infra", "__pycache__"} & set(name.split("/"))]


def test_an_editable_installation_puts_one_line_into_site_packages(tmp_path: Path) -> None:
    assert {name for name in build("editable", tmp_path) if ".dist-info/" not in name} == {"_dictalake.pth"}
