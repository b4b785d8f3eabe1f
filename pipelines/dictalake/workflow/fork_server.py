"""Starts Ray's workers on this machine as forks of one process that has imported Ray Data already.

Ray starts each worker as a new Python, which imports Ray twice and Ray Data once. On a small machine the seven workers of a
run took most of the time until its first row. Here one process imports them once, and a worker is a fork of it.

Ray runs this file in place of its own ``setup_worker.py``, once for each worker. It asks the fork server, and starts the
worker as Ray does wherever it gets no answer. The file imports the standard library alone, and never dictalake: which one a
worker imports is decided in the worker, and ``package_hash`` looks at it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

_SOCKET, RAYS_FOLDER = "fork", "r"  # side by side
SOON = ("pandas", "pyarrow.compute", "pyarrow.dataset", "requests", "jsonschema", "asyncio")
WITH_FIRST_WORKER = ("ray", "ray.data", "ray._private.node", "ray._private.parameter", "ray._private.runtime_env.setup_hook")
_SERVE, _YES, _NO = "serve", b"\1", b"\0"
_LENGTH, _STREAMS = struct.Struct("!I"), 3  # standard input, output and error
_OWNER_ONLY = 0o077
_MOST_WAITING = 64
_LONGEST_START_S = 60.0
_LONGEST_REQUEST_S = 10.0  # between two parts of a request: whoever stops in the middle of one holds up all others
# Ray writes the name of what a worker does over its arguments, and takes no more room than they have.
_ROOM_FOR_NAME = "-" * 200
_JOB = "RAY_JOB_ID"
# Where memory is short, the kernel ends the process with the highest score. Ray raises it in each process that it starts as a
# worker, so that its own processes and the driver live on.
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_CONTEXT, _LANGUAGE, _FOLDER = "--serialized-runtime-env-context=", "--language=", "--temp-dir="


class _Request(NamedTuple):
    """A worker to be: its script and arguments, and what it inherits."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    umask: int
    oom_score_adj: str
    descriptors: tuple[int, ...]

    @property
    def ray_variables(self) -> dict[str, str]:
        return {name: value for name, value in self.environment.items() if name.startswith("RAY_")}


@contextmanager
def fork_server(
    folder: Path, flags: Sequence[str] = (), *, soon: Sequence[str] | None = None, later: Sequence[str] = WITH_FIRST_WORKER
) -> Iterator[None]:
    """Runs one until the block ends, with its socket in ``folder`` beside Ray's own folder. ``flags`` go to Python.

    It imports ``soon``, or ``SOON``, while Ray starts, and ``later`` with the first worker, whose variables Ray reads then.
    """
    if not sys.platform.startswith("linux"):  # elsewhere system libraries do not survive a fork
        yield
        return
    address = folder / _SOCKET
    ours, theirs = socket.socketpair()  # closed with the driver, however it ends
    with ours:
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(_MOST_WAITING)
            descriptors = listener.fileno(), theirs.fileno()
            names = [",".join(names) for names in (SOON if soon is None else soon, later)]
            command = [sys.executable, *flags, __file__, _SERVE, *map(str, descriptors), *names]
            server = subprocess.Popen(
                [*command, _ROOM_FOR_NAME],
                pass_fds=descriptors,
                # A library that starts threads when it is imported would lose them by the fork.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                umask=_OWNER_ONLY,
                process_group=0,  # a signal to the group of the run does not reach Ray, nor this
            )
        try:
            yield
        finally:
            address.unlink(missing_ok=True)
            server.kill()  # it has nothing to put away
            server.wait()


def serve(
    listener: socket.socket, driver: socket.socket, soon: Iterable[str] = (), later: Iterable[str] = ()
) -> _Request | None:
    """Forks a worker for each request, until the driver is gone. Returns in each worker too, with its request."""
    _import(soon)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a worker that ends leaves no zombie
    known: dict[str, str] | None = None
    with listener, driver, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(driver, selectors.EVENT_READ)
        while driver not in {key.fileobj for key, _ in selector.select()}:
            connection, _ = listener.accept()
            with connection, suppress(OSError, ValueError):
                connection.settimeout(_LONGEST_REQUEST_S)
                request = _receive(connection)
                if known is None:
                    # Ray reads them once, when it is imported; they name the job and the node that a worker belongs to.
                    known = request.ray_variables
                    os.environ.update(known)
                    _import(later)
                    gc.collect()
                    gc.freeze()  # a collection in a fork would else write to, and so copy, all that was imported here
                if _is_wanted(connection, known == request.ray_variables) and _fork() == 0:
                    return request
                for descriptor in request.descriptors:
                    os.close(descriptor)
    return None


def _is_wanted(connection: socket.socket, can_fork: bool) -> bool:
    """Says whether this server can start the worker. Whoever waited too long for that has started it without us."""
    with suppress(OSError):
        connection.sendall(_YES if can_fork else _NO)
        return connection.recv(1) == _YES
    return False


def _fork() -> int:
    """As ``os.fork``; -1 where the system has no room. Ray starts another worker in place of one that does not come."""
    with suppress(OSError):
        return os.fork()
    return -1


@contextmanager
def own_class_ids() -> Iterator[None]:
    """Gives the actors' classes of Ray Data their ids, which else come from the random numbers of Ray's core.

    Forks would inherit the state of those, and choose the same ids for their objects.
    """
    actor: Any = sys.modules.get("ray.actor")
    if actor is None:
        yield
        return
    kind = actor.ActorClassID

    class ClassIds:
        @staticmethod
        def from_random() -> Any:
            return kind(os.urandom(kind.size()))

    actor.ActorClassID = ClassIds
    try:
        yield
    finally:
        actor.ActorClassID = kind


def _import(names: Iterable[str]) -> None:
    for name in names:
        with own_class_ids():
            importlib.import_module(name)


def become_worker(request: _Request) -> None:
    """Runs Ray's own script for workers in this process, which is a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    for target, descriptor in enumerate(request.descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    os.umask(request.umask)
    with suppress(OSError):
        _OOM_SCORE.write_text(request.oom_score_adj)
    sys.argv[:] = request.command
    if not _is_path_safe():
        sys.path.insert(0, str(Path(request.command[0]).parent))
    status = 1
    try:
        runpy.run_path(request.command[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    finally:
        if (error := sys.exc_info()[1]) is not None:
            traceback.print_exception(error)
        _end(status)


def _end(status: int) -> NoReturn:
    """Python would take down each module at the end, and copy for it all that the forks share: half a second of a core."""
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _receive(connection: socket.socket) -> _Request:
    """Raises OSError, ValueError for half a request, of a process that was killed."""
    head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, _STREAMS)
    try:
        with connection.makefile("rb") as body:
            if len(head) != _LENGTH.size:
                raise ValueError
            return _Request(**json.loads(body.read(*_LENGTH.unpack(head))), descriptors=tuple(descriptors))
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _read_oom_score() -> str:
    """Empty on a kernel that tells none."""
    with suppress(OSError):
        return _OOM_SCORE.read_text()
    return ""


def _ask(address: Path, command: Sequence[str]) -> bool:
    """Whether the fork server starts a worker with ``command``."""
    umask = os.umask(_OWNER_ONLY)
    os.umask(umask)
    request = {
        "command": command,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": umask,
        "oom_score_adj": _read_oom_score(),
    }
    body = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(_LONGEST_START_S)
        connection.connect(str(address))
        socket.send_fds(connection, [_LENGTH.pack(len(body))], range(_STREAMS))
        connection.sendall(body)
        if connection.recv(1) == _YES:
            connection.sendall(_YES)
            return True
    return False


def start_worker(arguments: Sequence[str]) -> None:
    """What Ray's ``setup_worker.py`` does with its ``arguments``."""
    command = [one for one in arguments if not one.startswith((_CONTEXT, _LANGUAGE))]
    contexts = [one.removeprefix(_CONTEXT) for one in arguments if one.startswith(_CONTEXT)]
    script = next(index for index, one in enumerate(command) if not one.startswith("-"))
    if any(context not in ("", "{}") for context in contexts) or f"{_LANGUAGE}PYTHON" not in arguments:
        setup = Path(command[script]).with_name("setup_worker.py")
        os.execv(sys.executable, [sys.executable, str(setup), *arguments])
    addresses = [Path(one.removeprefix(_FOLDER)).with_name(_SOCKET) for one in command if one.startswith(_FOLDER)]
    if not os.environ.get(_JOB, "").strip("f"):  # one that spills objects to disk belongs to no job
        addresses = []
    if not any(_ask(address, command[script:]) for address in addresses):
        os.execv(sys.executable, [sys.executable, *command])


def _is_path_safe() -> bool:
    """Whether Python leaves the folder of a script out of its path, as PYTHONSAFEPATH asks for."""
    return bool(getattr(sys.flags, "safe_path", False))


def main() -> None:
    if not _is_path_safe():
        del sys.path[0]  # this file's folder, which has no place on the path of a worker
    if sys.argv[1] != _SERVE:
        start_worker(sys.argv[1:])
        return
    listener, driver = (socket.socket(fileno=int(number)) for number in sys.argv[2:4])
    if (request := serve(listener, driver, *(filter(None, names.split(",")) for names in sys.argv[4:6]))) is not None:
        become_worker(request)


if __name__ == "__main__":
    main()
