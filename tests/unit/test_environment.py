"""What is installed, on which Python, and what `make env` keeps of an environment that is there. Nothing is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"]]
PYTHONS = [f"3.{minor}" for minor in range(11, 15)]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_one_tested_version_for_each_python(python: str) -> None:
    assert Version(python) in SpecifierSet(PROJECT["requires-python"])
    where = {"python_version": python, "extra": ""}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins: dict[str, list[Requirement]] = {}
    for pin in map(Requirement, (line for line in lines if not line.startswith("#"))):
        if pin.marker is None or pin.marker.evaluate(where):
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    for wanted in (one for one in REQUIREMENTS if one.marker is None or one.marker.evaluate(where)):
        (pin,) = pins[canonicalize_name(wanted.name)]
        (version,) = (clause.version for clause in pin.specifier)
        assert wanted.specifier.contains(version), f"{wanted} on Python {python}"
    assert "kenlm" not in pins, "it has the same module as ufal-kenlm, and no wheels"


INSTALLED = """echo "$*" >> calls
case "$*" in
  *sys.version_info*|*--version*) exit 0;;
  *sys.version*) echo BUILD;;
  *"show kenlm"*) exit ${KENLM:-1};;
esac"""
MAKES_ENVIRONMENT = """case "$1 $2" in
  *sys.version_info*) exit 0;;
  *sys.version*) echo BUILD;;
  *--version*) echo Python 3.12.9;;
  "-m venv") rm -rf "$4"; mkdir -p "$4/bin"; cp installed "$4/bin/python";;
esac"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """An empty checkout, where all Pythons of the path are programs of a test."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    write_program(tmp_path / "installed", INSTALLED.replace("BUILD", "3.12.9 of Debian"))
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        write_program(tmp_path / "programs" / name, "exit 1")
    return tmp_path


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def write_python(path: Path, build: str = "3.12.9 of Debian") -> None:
    write_program(path, MAKES_ENVIRONMENT.replace("BUILD", build))


def make(checkout: Path, *arguments: str, kenlm: bool = False) -> subprocess.CompletedProcess[str]:
    path = f"{checkout}/programs{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(checkout), "KENLM": "0" if kenlm else "1"}
    return subprocess.run(["make", *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_make_takes_a_python_that_runs_and_fits_and_says_which(checkout: Path) -> None:
    write_program(checkout / "programs/python3.13", "echo 'python3.13: command not found' >&2; exit 127")  # as pyenv's shims
    write_python(checkout / "programs/python3.12")
    done = make(checkout, "env")
    assert done.stdout.startswith(f".venv: Python 3.12.9, {checkout}/programs/python3.12\nenvironment for runs: ready after ")
    assert done.stderr == ""


def test_make_takes_the_next_python_where_one_has_no_venv(checkout: Path) -> None:
    no_venv = 'case "$2" in *ensurepip*) exit 1;; esac\n'
    write_program(checkout / "programs/python3", no_venv + MAKES_ENVIRONMENT)  # as Debian's without python3-venv
    write_python(checkout / "programs/python3.11")
    assert f"{checkout}/programs/python3.11\n" in make(checkout, "env").stdout


def test_make_says_which_pythons_it_tried_and_what_debian_calls_venv(checkout: Path) -> None:
    done = make(checkout, "env", f"PYTHON={checkout}/programs/python3")
    assert f"Python 3.11, 3.12 or 3.13 with venv is needed; tried: {checkout}/programs/python3." in done.stderr
    assert "python3-venv" in done.stderr
    assert done.returncode == 2
    assert not (checkout / ".venv").exists()


def test_an_environment_that_was_left_half_made_is_made_anew(checkout: Path) -> None:
    broken = 'case "$*" in *pip*) echo "No module named pip" >&2; exit 1;; esac'
    write_program(checkout / "half", broken)
    fails = MAKES_ENVIRONMENT.replace("cp installed", "cp half").replace('/bin/python";;', '/bin/python"; exit 1;;')
    write_program(checkout / "programs/python3", fails)
    assert make(checkout, "env").returncode == 2
    assert (checkout / ".venv/bin/python").exists()
    write_python(checkout / "programs/python3")
    done = make(checkout, "env")
    assert (done.returncode, done.stderr) == (0, "")
    assert "environment for runs: ready" in done.stdout


def test_an_environment_that_works_stays_and_loses_an_older_kenlm(checkout: Path) -> None:
    shutil.copytree(checkout / "programs", checkout / ".venv/bin")
    shutil.copy(checkout / "installed", checkout / ".venv/bin/python")
    done = make(checkout, "env", kenlm=True)  # no Python of the path would do
    assert (done.returncode, done.stderr) == (0, "")
    calls = (checkout / "calls").read_text(encoding="utf-8").splitlines()
    uninstalls = "-m pip uninstall --yes --quiet --quiet kenlm ufal-kenlm"  # both, as they share a file
    assert calls.index(uninstalls) < next(at for at, call in enumerate(calls) if "pip install" in call)
    (checkout / ".venv/.ready").unlink()
    (checkout / "calls").unlink()
    make(checkout, "env")
    assert "uninstall" not in (checkout / "calls").read_text(encoding="utf-8"), "there is no kenlm any more"


def test_another_python_makes_the_environment_anew_and_the_same_does_not(checkout: Path) -> None:
    write_python(checkout / "programs/python3")
    write_python(checkout / "programs/python3.12")
    write_python(checkout / "programs/python3.13", "3.13.1 of Debian")
    make(checkout, "env")
    assert "Nothing to be done" in make(checkout, "env", "PYTHON=python3.12").stdout, "python3 is 3.12"
    assert "programs/python3.13" in make(checkout, "env", "PYTHON=python3.13").stdout
    done = make(checkout, "env", "PYTHON=/nonexistent")
    assert done.returncode == 2
    assert "tried: /nonexistent." in done.stderr


def test_the_checks_of_infra_run_on_the_python_of_the_environment(checkout: Path) -> None:
    write_python(checkout / "programs/python3")
    make(checkout, "env")
    (checkout / "infra").mkdir()
    (checkout / "infra/requirements-lint.txt").touch()
    make(checkout, "lint-infra")
    assert "-m venv --clear .venv-infra" in (checkout / "calls").read_text(encoding="utf-8").splitlines()
