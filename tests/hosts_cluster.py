"""The hosts of ``tests.hosts`` with Ray on them, joined as docs/clusters.md says, and their object storage."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.commands import ROOT
from tests.emulators import ObjectStore, describe_s3
from tests.host_network import Host

PAGE = ROOT / "docs" / "clusters.md"
_TOKEN_IN_PAGE, _TOKEN = "/etc/ray-token", "/run/ray-token"
_STORE_NUMBER = 4


@dataclass(frozen=True)
class Commands:
    """What docs/clusters.md tells an operator to type."""

    token: str
    head: str
    worker: str
    leave: str
    backfill: str

    def for_worker(self, address: str) -> str:
        return re.sub(r"(--node-ip-address) \S+", rf"\1 {address}", self.worker)

    def for_run(self, archive: str, lake: str, config: Path) -> str:
        """The backfill with other places, and the configuration in the file ``config``."""
        words = shlex.split(self.backfill)
        places = {"gs://bucket/dictations": archive, "gs://lake/speech": lake}
        words = [places.get(word, word) for word in words]
        words[words.index("--config") + 1] = str(config)
        return shlex.join(words)


def read_commands(page: str) -> Commands:
    """The commands of the first section of the page on clusters."""
    lines = [line for block in re.findall(r"```\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]

    def find(start: str) -> str:
        return next(line for line in lines if line.startswith(start))

    return Commands(
        token=find("export RAY_AUTH_MODE=token").replace(_TOKEN_IN_PAGE, _TOKEN),
        head=find("ray start --head"),
        worker=find("ray start --node-ip-address"),
        leave=find("ray stop"),
        backfill=find("dictalake backfill"),
    )


@dataclass
class Story:
    """What happened and what was seen, in the order of time."""

    began: float = field(default_factory=time.monotonic)
    events: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rows: int = 0
    commits: list[tuple[float, int]] = field(default_factory=list)  # when there were so many rows for the first time

    @property
    def at_s(self) -> float:
        return round(time.monotonic() - self.began, 1)

    def count(self, rows: int) -> bool:
        """Notes how many rows there are; whether that are more than before."""
        has_more = rows != self.rows
        if has_more:
            self.rows = rows
            self.commits.append((self.at_s, rows))
        return has_more

    def tell(self, sentence: str, saw: str = "") -> None:
        at_s = self.at_s
        self.events.append({"at_s": at_s, "what": sentence, "rows": self.rows, **({"saw": saw} if saw else {})})
        print(f"{at_s:6.1f} s  {self.rows:4} rows  {sentence}", *saw.splitlines(), sep="\n            | ", flush=True)

    def complain(self, sentence: str, saw: str = "") -> None:
        self.problems.append(sentence)
        self.tell(f"PROBLEM: {sentence}", saw)


def read_tail(text: str, lines: int) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


class Cluster:
    """The hosts, by name, with Ray started as the page says."""

    def __init__(self, folder: Path, story: Story) -> None:
        self._folder, self._story = folder, story
        self.commands = read_commands(PAGE.read_text(encoding="utf-8"))
        self._secret = secrets.token_hex(32)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("DICTALAKE_", "RAY_"))}
        paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self.environment |= {"PATH": paths, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "TMPDIR": "/tmp"}
        self.head = self._add("head", 1)
        self.workers = {name: self._add(name, number) for name, number in (("worker-2", 2), ("worker-3", 3))}

    def start_ray(self) -> None:
        self._start(self.head, self.commands.head)
        for name in self.workers:
            self.join(name)

    def join(self, name: str) -> None:
        """The page's command on a worker."""
        host = self.workers[name]
        self._start(host, self.commands.for_worker(host.address("cluster")))

    def replace(self, name: str, by: str, number: int) -> None:
        """Another machine for one that is gone."""
        del self.workers[name]
        self.workers[by] = self._add(by, number)
        self.join(by)

    def refuse_without_token(self) -> None:
        """Whether the cluster asks for its token."""
        look = "python -c \"import ray; ray.init(address='10.0.0.1:6379', logging_level='ERROR', log_to_driver=False)\""
        code, saw = self.workers["worker-3"].call(f"export RAY_AUTH_MODE=disabled; {look}", self.environment, timeout_s=60)
        if code == 0:
            self._story.complain("a driver without the token joined the cluster")
        else:
            self._story.tell("a driver without the token is refused", read_tail(saw, 2))

    def on(self, host: Host, command: str, timeout_s: float = 120.0) -> tuple[int, str]:
        """A command on a host, with the token."""
        return host.call(f"{self.commands.token}\n{command}", self.environment, timeout_s)

    def is_counted_dead(self, name: str) -> bool:
        """Whether the head has given the worker up, as Ray's log there says."""
        logs = [path.read_text(errors="replace") for path in self._folder.glob("head/tmp/ray/session_2*/logs/gcs_server.out")]
        address = re.escape(self.workers[name].address("cluster"))
        return any(re.search(rf"address: {address} .*marked dead", log) for log in logs)

    def start_on_head(self, command: str, output: Path) -> subprocess.Popen[bytes]:
        return self.head.start(f"{self.commands.token}\nexec {command}", output, self.environment)

    def kill_all(self) -> None:
        for host in (self.head, *self.workers.values()):
            host.kill()

    def _add(self, name: str, number: int) -> Host:
        host = Host(name, number, self._folder / name)
        host.call(f"umask 077; echo {self._secret} > {_TOKEN}")
        return host

    def _start(self, host: Host, command: str) -> None:
        code, saw = self.on(host, command)
        if code:
            self._story.complain(f"{command} on {host.name} ended with {code}", read_tail(saw, 12))
            raise RuntimeError(f"{host.name} did not join")
        self._story.tell(f"{host.name}: {command}")


@contextmanager
def run_store(folder: Path, recording_s: float) -> Iterator[ObjectStore]:
    """moto's S3 on a host of its own, which serves one recording in ``recording_s`` seconds."""
    host, output = Host("storage", _STORE_NUMBER, folder / "storage"), folder / "storage.txt"
    command = shlex.join([sys.executable, "-m", "tests.emulators", "s3", host.address("storage"), str(recording_s)])
    # It ends when its standard input does.
    process = host.start(f"cd {shlex.quote(str(ROOT))}; sleep infinity | {command}", output)
    try:
        deadline = time.monotonic() + 60
        while not (address := output.read_text().partition("\n")[0]).startswith("http"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the storage did not start: {output.read_text()[-400:]}")
            time.sleep(0.1)
        yield describe_s3(address)
    finally:
        host.kill()
        process.wait()
