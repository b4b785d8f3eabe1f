"""Executes the Dockerfile in clean roots of Debian, without a container engine: `sudo python infra/try_image.py FOLDER`.

It needs root, debootstrap and a network. What it shows: each RUN line works with what the lines before it left, the finished
root runs the demo as the image's user, and how large each step is. What it cannot show: the base image is Debian's release of
the same name with Debian's own Python, and layers, registries and GPUs are not there.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

INFRA = Path(__file__).parent
PACKAGES = "ca-certificates,python-is-python3,python3-pip,python3-venv"
MOUNTS = {"proc": Path("/proc"), "dev": Path("/dev"), "dev/shm": Path("/dev/shm")}
PATHS = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"


@dataclass
class Stage:
    """A root, and what the instructions so far say about the commands in it."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATHS})
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    folder: str = "/"
    user: str = "0:0"

    def run(self, command: str) -> None:
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        start = ["chroot", f"--userspec={self.user}", str(self.root), "/usr/bin/env", "-i", *variables]
        subprocess.run([*start, *self.shell, f"cd {self.folder} && {command}"], check=True)

    def fill_in(self, text: str) -> str:
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self.environment.get(found[1], ""), text)


def read_instructions(dockerfile: Path) -> list[tuple[str, str]]:
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def begin(argument: str, stages: dict[str, Stage], roots: Path, given: dict[str, str]) -> Stage:
    """FROM: a new root, or a copy of the root of a stage."""
    source, _, name = argument.partition(" AS ")
    stage = Stage(roots / (name or "final"))
    shutil.rmtree(stage.root, ignore_errors=True)
    if source in stages:
        subprocess.run(["cp", "-a", stages[source].root, stage.root], check=True)
    else:
        release = source.rpartition("-")[2]
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, stage.root], check=True)
        for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(path, stage.root / path[1:])
    stage.environment |= given
    stages[name or "final"] = stage
    return stage


def copy(stage: Stage, argument: str, stages: dict[str, Stage]) -> None:
    """COPY, from another stage or of what Dockerfile.dockerignore lets through."""
    words = shlex.split(argument)
    options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    *sources, target = [word for word in words if not word.startswith("--")]
    source_root, kept = (stages[options["from"]].root, []) if "from" in options else (INFRA.parent, read_kept())
    for source in kept if sources == ["."] else sources:
        place = (source_root / source.strip("/")).resolve()
        to = stage.root / target.strip("/") if target.startswith("/") else stage.root / stage.folder.strip("/") / target
        if sources == ["."]:
            to = to / source
        if place.is_dir():
            shutil.copytree(place, to, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to = to / place.name if target.endswith("/") or to.is_dir() else to
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(place, to)
            to.chmod(int(options["chmod"], 8) if "chmod" in options else to.stat().st_mode)


def read_kept() -> list[str]:
    lines = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    return [line[1:].rstrip("/") for line in lines if line.startswith("!")]


def follow(stage: Stage, word: str, argument: str, given: dict[str, str]) -> None:
    if word == "RUN":
        started = time.monotonic()
        for name, source in MOUNTS.items():
            (stage.root / name).mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", source, stage.root / name], check=True)
        try:
            stage.run(argument)
        finally:
            for name in reversed(MOUNTS):
                subprocess.run(["umount", stage.root / name], check=True)
        print(
            f"{measure_mb(stage.root):6d} MB {time.monotonic() - started:6.0f} s  RUN {' '.join(argument.split())[:80]}",
            flush=True,
        )
    elif word in ("ARG", "ENV"):
        for pair in shlex.split(argument):
            name, _, value = pair.partition("=")
            if word == "ENV" or name not in given:
                stage.environment[name] = stage.fill_in(value)
    elif word == "SHELL":
        stage.shell = json.loads(argument)
    elif word == "WORKDIR":
        stage.folder = argument
        (stage.root / argument.strip("/")).mkdir(parents=True, exist_ok=True)
    elif word == "USER":
        stage.user = argument
    elif word not in ("ENTRYPOINT", "CMD"):
        sys.exit(f"infra/try_image.py does not know {word}")


def measure_mb(root: Path) -> int:
    return int(subprocess.run(["du", "-smx", root], capture_output=True, text=True, check=True).stdout.split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the roots are made; nothing else may be in it")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as docker build's")
    parser.add_argument(
        "--environment", action="append", default=[], metavar="NAME=VALUE", help="for pip: PIP_FIND_LINKS=/wheels"
    )
    parser.add_argument("--wheels", type=Path, help="a folder that the roots see as /wheels, to download less")
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in [*options.build_arg, *options.environment])
    if options.wheels:
        MOUNTS["wheels"] = options.wheels
    stages: dict[str, Stage] = {}
    stage = None
    for word, argument in read_instructions(INFRA / "Dockerfile"):
        if word == "FROM":
            stage = begin(argument, stages, options.folder, given)
            continue
        assert stage is not None
        if word == "COPY":
            copy(stage, argument, stages)
        else:
            follow(stage, word, argument, given)
    assert stage is not None
    follow(stage, "RUN", "dictalake --version && dictalake demo --lake.uri /tmp/demo-lake", given)


if __name__ == "__main__":
    main()
