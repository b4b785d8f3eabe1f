"""A cluster of three hosts and an object store, each in a network namespace of this machine, whose links are cut.

python -m tests.hosts --out hosts.json      as root, on Linux with `ip netns`; exit code 77 where the machine has no such thing

The hosts join by the commands of docs/clusters.md, with a token. While a run with two runners works off 300 recordings, one
worker host is killed and comes back, the other one is cut off for a minute and healed, and the driver's host loses the storage
for half a minute. Each host has two links: one to the other hosts, one to the storage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import fsspec
import yaml

from dictalake.config.sections import Archive
from jobs.benchmarks.__main__ import write_result
from tests.chaos_archive import expect_rows, verify, write_archive
from tests.commands import ROOT
from tests.emulators import ObjectStore
from tests.models import save_random_lasr
from tests.recordings import read_rows

NO_NAMESPACES = 77
HOSTS = {"driver": 1, "one": 2, "two": 3}  # and the last byte of their addresses
STORE, HERE = 4, 254
_CLUSTER_NET, _STORAGE_NET, _PREFIX = "10.77.0", "10.78.0", "dlh"
_PORT, _STORE_PORT = 6379, 9000
_PATIENCE_S = 1500.0
_CUT_OFF_S, _NO_STORAGE_S = 60.0, 30.0
_TRIES = 4
_STEPS = (0.1, 0.3, 0.6)  # shares of the recordings that are there before something happens
_WORKER = ["--num-cpus", "2", "--memory", "2000000000", "--object-store-memory", "120000000"]


class CannotMakeHosts(Exception):
    """This machine does not let us make network namespaces; the words say why."""


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMakeHosts(f"ip {' '.join(arguments[:3])}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def open_network() -> Iterator[None]:
    """The namespaces with their links. Raises CannotMakeHosts."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        raise CannotMakeHosts("it needs root and the command ip")
    with ExitStack() as ending:
        for number, net in enumerate((_CLUSTER_NET, _STORAGE_NET)):
            bridge = f"{_PREFIX}br{number}"
            ip("link", "add", bridge, "type", "bridge")
            ending.callback(ip, "link", "del", bridge)
            ip("link", "set", bridge, "up")
            if net == _STORAGE_NET:  # so that we see the lake
                ip("addr", "add", f"{net}.{HERE}/24", "dev", bridge)
        for host, last in {**HOSTS, "store": STORE}.items():
            space = f"{_PREFIX}-{host}"
            ip("netns", "add", space)
            ending.callback(_remove, space)
            ip("-n", space, "link", "set", "lo", "up")
            for number, net in enumerate((_CLUSTER_NET, _STORAGE_NET)):
                outside = f"{_PREFIX}{last}v{number}"
                ip("link", "add", outside, "type", "veth", "peer", "name", f"eth{number}", "netns", space)
                ip("link", "set", outside, "master", f"{_PREFIX}br{number}", "up")
                ip("-n", space, "addr", "add", f"{net}.{last}/24", "dev", f"eth{number}")
                ip("-n", space, "link", "set", f"eth{number}", "up")
        yield


def _remove(space: str) -> None:
    kill_host(space.removeprefix(f"{_PREFIX}-"))
    ip("netns", "del", space)


def kill_host(host: str) -> int:
    """SIGKILL for all processes of a host; how many there were."""
    killed: set[str] = set()
    while pids := ip("netns", "pids", f"{_PREFIX}-{host}").split():
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        killed |= set(pids)
        time.sleep(0.1)
    return len(killed)


def set_link(host: str, number: int, state: str) -> None:
    ip("-n", f"{_PREFIX}-{host}", "link", "set", f"eth{number}", state)


class Hosts:
    """The three hosts: each has a Ray folder of its own, and all have the token."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "token").write_text("a-token-for-tests-of-hosts-0123456789", encoding="ascii")
        (folder / "token").chmod(0o600)
        self._environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        self._environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT / "pipelines"), str(ROOT)]), "PYTHONUNBUFFERED": "1"}

    def start_head(self) -> None:
        self._start_ray("driver", "--head", "--port", str(_PORT), "--num-cpus", "0", "--include-dashboard", "false")

    def start_worker(self, host: str) -> None:
        self._start_ray(host, "--address", f"{_CLUSTER_NET}.{HOSTS['driver']}:{_PORT}", *_WORKER)

    def _start_ray(self, host: str, *arguments: str) -> None:
        own = self._folder / host
        own.mkdir(exist_ok=True)
        address = f"{_CLUSTER_NET}.{HOSTS[host]}"
        command = ["ray", "start", "--node-ip-address", address, *arguments, "--disable-usage-stats"]
        if "--head" in arguments:
            command += ["--temp-dir", str(self._folder / "r")]
        for _ in range(_TRIES):
            done = self.start(host, [str(Path(sys.executable).parent / command[0]), *command[1:]], own / "ray-start.txt")
            if done.wait() == 0:
                return
            kill_host(host)  # on a busy machine a start takes longer than the 30 s that Ray allows
        raise RuntimeError(f"ray start on {host}: {(own / 'ray-start.txt').read_text()[-500:]}")

    def start(self, host: str, command: list[str], output: Path) -> subprocess.Popen[bytes]:
        """``command`` on ``host``; what it prints goes to ``output``."""
        whole = ["ip", "netns", "exec", f"{_PREFIX}-{host}", *command]
        with output.open("wb") as stream:
            return subprocess.Popen(
                whole, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )


def open_store(hosts: Hosts, folder: Path) -> ObjectStore:
    """moto's S3 on the fourth host."""
    server = [str(Path(sys.executable).parent / "moto_server"), "-H", "0.0.0.0", "-p", str(_STORE_PORT)]
    hosts.start("store", server, folder / "store.txt")
    url = f"http://{_STORAGE_NET}.{STORE}:{_STORE_PORT}"
    options = {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", "aws_conditional_put": "etag"}
    options |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    store = ObjectStore("s3", url, options, {"endpoint_url": url, "key": "testing", "secret": "testing"})
    until = time.monotonic() + 90
    while True:
        try:
            store.make_bucket("archive")
            return store
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def write_config(folder: Path, archive: Mapping[str, Any], lake: Mapping[str, Any]) -> Path:
    memory = {"load_memory_mb": 300.0, "emit_memory_mb": 400.0, "decode_memory_mb": 200.0, "finish_memory_mb": 150.0}
    address = f"{_CLUSTER_NET}.{HOSTS['driver']}:{_PORT}"
    settings = {
        "archive": dict(archive),
        "lake": {**lake, "commit_every_s": 0.5},
        "acoustic": {"device": "cpu", "model": str(folder / "model")},
        "decoding": {"kind": "greedy"},
        "ray": {"address": address, "runners": 2, "block_rows": 5, "block_audio_s": 10.0, "stall_s": 20.0, **memory},
        "report": {"write": False},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder / "config.yaml"


class Story:
    """What happened and when; told at once and kept."""

    def __init__(self) -> None:
        self._began, self.lines = time.monotonic(), list[str]()

    def tell(self, sentence: str) -> None:
        self.lines.append(f"{time.monotonic() - self._began:6.1f} s  {sentence}")
        print(self.lines[-1], flush=True)


def wait_for_rows(run: subprocess.Popen[bytes], lake: str, options: dict[str, str], least: int) -> int:
    """How many rows are there once there are ``least``, or the run is over."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        rows = _count(lake, options)
        if rows >= least or run.poll() is not None:
            return rows
        time.sleep(1.0)
    raise RuntimeError("the run is stuck")


def _count(lake: str, options: dict[str, str]) -> int:
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        table = DeltaTable(f"{lake}/transcripts", storage_options=options)
    except TableNotFoundError:
        return 0
    return sum(file or 0 for file in table.get_add_actions(flatten=True)["num_records"].to_pylist())


def hurt(hosts: Hosts, run: subprocess.Popen[bytes], story: Story, wait: Any, total: int) -> None:
    """The three misfortunes."""
    story.tell(f"{wait(int(_STEPS[0] * total))} rows are there; host one is killed: {kill_host('one')} processes")
    time.sleep(5)
    hosts.start_worker("one")
    story.tell("host one is back")
    story.tell(f"{wait(int(_STEPS[1] * total))} rows are there; host two is cut off from the other hosts")
    set_link("two", 0, "down")
    time.sleep(_CUT_OFF_S)
    set_link("two", 0, "up")
    story.tell(f"the link of host two is healed; {kill_host('two')} processes of its Ray are ended, and it joins again")
    hosts.start_worker("two")
    story.tell(f"{wait(int(_STEPS[2] * total))} rows are there; the driver's host is cut off from the storage")
    set_link("driver", 1, "down")
    time.sleep(_NO_STORAGE_S)
    set_link("driver", 1, "up")
    story.tell(f"the driver's host has the storage again; the run is {'at work' if run.poll() is None else 'over'}")


def run_all(recordings: int) -> dict[str, Any]:
    """Raises CannotMakeHosts."""
    folder = Path(tempfile.mkdtemp(prefix="dlh-", dir="/tmp"))
    story = Story()
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        ending.enter_context(open_network())
        hosts = Hosts(folder)
        save_random_lasr(folder / "model")
        files = write_archive(folder / "archive", recordings)
        store = open_store(hosts, folder)
        filesystem = fsspec.filesystem("s3", **store.fsspec_options)
        for path in sorted(files.rglob("*.*")):
            filesystem.pipe_file(f"archive/{path.relative_to(files)}", path.read_bytes())
        archive = {"uri": "s3://archive", "storage_options": store.fsspec_options}
        lake, options = store.make_bucket("lake"), store.storage_options
        story.tell("the storage has the archive")
        hosts.start_head()
        for host in ("one", "two"):
            hosts.start_worker(host)
        story.tell("three hosts are joined")
        config = write_config(folder, archive, {"uri": lake, "storage_options": options})
        command = [sys.executable, "-m", "dictalake", "backfill", "--config", str(config)]
        run = hosts.start("driver", command, folder / "run.txt")
        hurt(hosts, run, story, lambda least: wait_for_rows(run, lake, options, least), recordings)
        code = run.wait(_PATIENCE_S)
        seen = [line for line in (folder / "run.txt").read_text(errors="replace").splitlines() if line.strip()]
        story.tell(f"the run ended with {code}")
        verdict = verify(read_rows(lake, options), expect_rows(Archive.model_validate(archive)))
        return {"code": code, "story": story.lines, "operator_saw": seen, "verdict": vars(verdict)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=300)
    parser.add_argument("--out", type=Path, help="JSON file for what happened")
    options = parser.parse_args()
    try:
        result = run_all(options.recordings)
    except CannotMakeHosts as error:
        print(f"this machine may not make network namespaces: {error}", file=sys.stderr)
        return NO_NAMESPACES
    print(json.dumps(result, indent=1))
    write_result({"benchmark": "hosts", "recordings": options.recordings, **result}, options.out)
    verdict = result["verdict"]
    return 0 if result["code"] in (0, 3) and not (verdict["lost"] or verdict["duplicated"] or verdict["wrong"]) else 1


if __name__ == "__main__":
    sys.exit(main())
