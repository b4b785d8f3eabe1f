"""What holds on this kernel, in words, and whether that is enough for ``sandbox.level``."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from typing import Literal

from dictalake.errors import ConfigError
from dictalake.sandbox import jail
from dictalake.sandbox.jail import Holds

Level = Literal["auto", "require"]
_PROBE_S = 60.0


@functools.cache
def probe() -> Holds:
    """What a sandboxed child gives up on this machine, as one tells that has tried it."""
    program = "from dictalake.sandbox.levels import tell; tell()"
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        told = subprocess.run(
            [sys.executable, "-P", "-c", program],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_S,
            check=True,
        )
        return Holds(**json.loads(told.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return Holds()


def tell() -> None:
    """The other side of ``probe``: confines itself, tries to break out, and prints what holds."""
    has_user_namespace = not jail.find_landlock() and jail.enter_user_namespace()
    holds = jail.apply([], os.getppid(), has_user_namespace=has_user_namespace)
    if _can_list_root():
        holds = holds._replace(landlock=0)
    if _can_open_socket():
        holds = holds._replace(seccomp=False)
    sys.stdout.write(json.dumps(holds._asdict()))


def describe(holds: Holds) -> str:
    """A few words for one line: what confines a decoder."""
    kernel = [f"Landlock {holds.landlock}"] if holds.landlock else []
    kernel += ["seccomp"] if holds.seccomp else []
    missing = find_missing(holds)
    words = f"decoders are confined by {', '.join([*kernel, 'resource limits'])}"
    return f"{words}; missing: {', '.join(missing)}" if missing else words


def describe_briefly(holds: Holds) -> str:
    """The same for the first line of a run: ``jail: Landlock 7, seccomp``."""
    landlock = f"Landlock {holds.landlock}" if holds.landlock else "no Landlock"
    if not holds.landlock and not holds.seccomp:
        return "jail: none, resource limits alone"
    return f"jail: {landlock}, {'seccomp' if holds.seccomp else 'no seccomp'}"


def find_missing(holds: Holds) -> list[str]:
    """What ``sandbox.level: require`` needs and this machine does not have, each with where it would come from."""
    if sys.platform != "linux":
        return ["Landlock and seccomp, which only Linux has"]
    missing = [] if holds.landlock else ["Landlock (Linux 5.13 or later, with landlock among its LSMs)"]
    return (
        missing if holds.seccomp else [*missing, "seccomp (x86-64 or aarch64, Linux 4.14 or later with CONFIG_SECCOMP_FILTER)"]
    )


def check_level(level: Level, holds: Holds) -> None:
    """Raises ConfigError where ``level`` is ``require`` and something is missing."""
    missing = find_missing(holds) if level == "require" else []
    if missing:
        raise ConfigError(
            f"sandbox.level = require: this machine cannot confine what decodes untrusted files; missing: "
            f"{', '.join(missing)}. Run on a kernel that has it, or set sandbox.level to auto"
        )


def require_level(level: Level) -> None:
    """``check_level`` for this machine. Tries nothing where the level is ``auto``."""
    if level == "require":
        check_level(level, probe())


def _can_list_root() -> bool:
    try:
        return bool(os.listdir("/"))
    except OSError:
        return False


def _can_open_socket() -> bool:
    try:
        with socket.socket():
            return True
    except OSError:
        return False
