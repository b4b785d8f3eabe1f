"""What keeps a Ray of this machine to the user who started it, on a machine with other users.

- Its processes listen on 127.0.0.1 alone. A process that wants to talk to them must show a token, which is new for each run.
- The token, Ray's logs, its sockets and what it spills lie in a folder that only its owner can enter. When the run ends, its
  logs stay for a day and all else goes. What a killed run left is removed with them.
- Ray's processes create files for their owner alone. A worker takes on the user's own umask before it writes to the lake.

The user's environment cannot turn any of it off. A cluster that was joined is as open as whoever started it left it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ray._private import ray_constants, services
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError

from dictalake.workflow import fork_server

_PREFIX, _LOCK = "dl-", "in-use"
_KEPT_S = 86_400.0
_OWNER_ONLY = 0o077
_LOOPBACK = "127.0.0.1"
_ANSWER_S = 5.0
_END_S = 1.0
_LONGEST_PARENT = 29  # bytes; 78 more lead to Ray's sockets, and the kernel takes 107


@contextmanager
def private_ray() -> Iterator[dict[str, Any]]:
    """What ``ray.init`` takes so that only this user reaches Ray, until the block ends. Raises OSError without a folder."""
    with _own_folder() as folder:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        with (
            _authentication(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token)),
            fork_server.fork_server(folder, services._site_flags()),
        ):
            # Ray opens its folders to everybody, again with each worker. So they lie inside of ours, where nobody gets to them.
            yield {
                "_temp_dir": str(folder / fork_server.RAYS_FOLDER),
                "_node_ip_address": _LOOPBACK,
                "dashboard_host": _LOOPBACK,
            }


@contextmanager
def private_processes(started: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Has ``ray.init`` inside the block start processes that listen on 127.0.0.1 and create files for their owner alone. They
    are added to ``started``.

    Ray's autoscaler, the server of its web page and the process that follows its logs are left out: one machine does not grow,
    and nobody looks at the others. They take a quarter of the processor time that Ray needs to start.
    """
    with ExitStack() as changes:

        def change(owner: Any, name: str, value: Any) -> None:
            changes.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        start_process = services.ConsolePopen

        def start_private(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
            # A signal to the whole process group, as timeout(1) and a terminal send it, would end Ray before the last commit.
            started.append(start_process(*arguments, umask=_OWNER_ONLY, process_group=0, **options))
            return started[-1]

        change(services, "ConsolePopen", start_private)
        # Else Ray takes 127.0.0.1 for a slip and listens on every address.
        change(ray_constants, "ENABLE_RAY_CLUSTER", False)
        for start in ("start_monitor", "start_log_monitor", "start_api_server"):
            change(Node, start, lambda *_, **__: None)
        change(ray_constants, "SETUP_WORKER_FILENAME", fork_server.__file__)  # an absolute path stays what it is
        yield


def end_processes(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends what ``ray.shutdown`` leaves: the processes of a start that was stopped half-way, of which Ray knows nothing yet."""
    left = [process for process in started if process.poll() is None]
    for process in left:
        process.terminate()  # a node ends its workers
    for process in left:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        process.kill()
        process.wait()


def is_open(address: str) -> bool | None:
    """Whether the cluster at ``address`` works for anybody who reaches it, without a token; None where nothing answers."""
    with _authentication(RAY_AUTH_MODE="disabled"):
        try:
            place = services.canonicalize_bootstrap_address(address) or "" if address == "auto" else address
            host, _, port = place.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()  # Ray itself would wait for 40 s
            GcsClient(address=place)  # asks for the cluster's id
        except AuthenticationError:
            return False
        except (RayError, OSError, ValueError):
            return None
        return True


@contextmanager
def _authentication(**variables: str) -> Iterator[None]:
    """Ray's authentication as ``variables`` say it, whatever the environment says, until the block ends."""
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(variables)
    _reread_authentication()
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)
        _reread_authentication()


def _reread_authentication() -> None:
    """In this order: a thread of Ray that reads a token which is no longer there, while the mode asks for one, aborts."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def find_parent() -> Path:
    """Where the folders of runs lie: RAY_TMPDIR, else the folder for temporary files, or /tmp where that has a long path."""
    if given := os.environ.get("RAY_TMPDIR"):
        return Path(given).absolute()
    usual = Path(tempfile.gettempdir()).absolute()
    return usual if len(os.fsencode(usual)) <= _LONGEST_PARENT else Path("/tmp")


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for one run. Its name is short, for Ray's sockets."""
    parent = find_parent()
    with suppress(FileExistsError):
        parent.mkdir(mode=0o700, parents=True)
    _remove_old(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    with ExitStack() as stack:
        new = folder / f"{_LOCK}.new"
        lock = stack.enter_context(new.open("x"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(folder / _LOCK)  # held before anybody can find it
        try:
            yield folder
        finally:
            _keep_logs(folder)


def _keep_logs(folder: Path) -> None:
    """Removes all else: the token, sockets, and what was spilled and Ray did not remove itself."""
    (folder / "token").unlink(missing_ok=True)
    for place in folder.glob(f"{fork_server.RAYS_FOLDER}/session_*/*"):
        if place.is_dir() and place.name != "logs":
            shutil.rmtree(place, ignore_errors=True)


def _remove_old(parent: Path) -> None:
    """Removes our own folders of runs that began more than a day ago and are over. Nothing of other users stops it."""
    with suppress(OSError), os.scandir(parent) as entries:  # a folder that cannot be listed may still take a new one
        for entry in entries:
            with suppress(OSError):  # another run clears up too
                if entry.name.startswith(_PREFIX) and _is_own_folder(entry):
                    _remove_if_over(Path(entry.path))


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    """Looks at the entry itself: a link may lead anywhere."""
    return entry.stat(follow_symlinks=False).st_uid == os.getuid() and entry.is_dir(follow_symlinks=False)


def _remove_if_over(folder: Path) -> None:
    with (folder / _LOCK).open() as held:
        if time.time() - os.fstat(held.fileno()).st_mtime >= _KEPT_S:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
