"""Finds KenLM's command line tools, or builds them from the ``kenlm`` source package on PyPI.

The source package holds the whole of KenLM. The wheels of ``ufal-kenlm``, which dictalake installs, hold only the reader.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dictalake.errors import ConfigError, RunError

SOURCE_VERSION = "0.3.0"
DEBIAN_PACKAGES = (
    "build-essential cmake libboost-program-options-dev libboost-system-dev libboost-thread-dev libboost-test-dev zlib1g-dev"
)
_NAMES = ("lmplz", "build_binary")
_BUILD_CORE_S = 200.0  # of one core; an estimate, not measured


@dataclass(frozen=True)
class KenlmTools:
    """Paths of the two programs that a language model needs."""

    lmplz: Path
    build_binary: Path


def default_cache() -> Path:
    """Where built tools are kept: ``$XDG_CACHE_HOME/dictalake``, else ``~/.cache/dictalake``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dictalake"


def find_or_build_tools(folder: Path | None, cache: Path, say: Callable[[str], None]) -> KenlmTools:
    """The tools in ``folder`` if given, else those on PATH, else those in ``cache``, which are built there on first use.

    Raises ConfigError if ``folder`` lacks them, RunError with the packages to install if they cannot be built.
    """
    if folder is not None:
        found = _find(str(folder))
        if found is None:
            raise ConfigError(f"--kenlm-bin {folder}: must hold the programs {' and '.join(_NAMES)}")
        return found
    home = cache / f"kenlm-{SOURCE_VERSION}"
    return _find(os.environ.get("PATH", "")) or _find(str(home)) or _build(home, say)


def _find(path: str) -> KenlmTools | None:
    lmplz, build_binary = (shutil.which(name, path=path) for name in _NAMES)
    return KenlmTools(Path(lmplz), Path(build_binary)) if lmplz and build_binary else None


def _build(home: Path, say: Callable[[str], None]) -> KenlmTools:
    if shutil.which("cmake") is None:
        raise RunError(f"lmplz is not on PATH and cannot be built without cmake. {_advice()}")
    cores = os.cpu_count() or 1
    say(
        f"lmplz is not on PATH: building KenLM {SOURCE_VERSION} from its source package into {home}, once; this takes perhaps "
        f"{max(1, round(_BUILD_CORE_S / cores / 60))} min on {cores} cores"
    )
    started = time.monotonic()
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".build-kenlm-") as temporary:
        work = Path(temporary)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "kenlm"]
        _run([*pip, "--dest", str(work), f"kenlm=={SOURCE_VERSION}"], "downloading the source package kenlm from PyPI")
        with tarfile.open(work / f"kenlm-{SOURCE_VERSION}.tar.gz") as archive:
            archive.extractall(work, filter="data")
        build = work / "build"
        configure = ["cmake", "-S", str(work / f"kenlm-{SOURCE_VERSION}"), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"]
        _run(configure, "configuring KenLM")
        compile_ = ["cmake", "--build", str(build), "--parallel", str(cores), "--target", *_NAMES]
        _run(compile_, "compiling KenLM")
        (work / "bin").mkdir()
        for name in _NAMES:
            shutil.copy2(build / "bin" / name, work / "bin" / name)
        if not home.exists():
            (work / "bin").rename(home)
    found = _find(str(home))
    if found is None:
        raise RunError(f"{home}: exists, but does not hold {' and '.join(_NAMES)}; remove that folder and try again")
    say(f"KenLM is built: {time.monotonic() - started:.0f} s")
    return found


def _run(command: Sequence[str], doing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
        raise RunError(f"{doing} failed{': ' + lines[0] if lines else ''}. {_advice()}")


def _advice() -> str:
    return (
        f"On Debian or Ubuntu install what it needs with: apt-get install {DEBIAN_PACKAGES}; "
        "or give --kenlm-bin, a folder that holds lmplz and build_binary"
    )
