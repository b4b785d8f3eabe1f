"""A cluster of several hosts, for real: one is killed, one is cut off and healed, and the driver's is cut off from storage.

python -m tests.hosts --out infra/benchmarks/hosts.json

Three hosts in network namespaces (see ``tests.host_network``) are joined by the commands of docs/clusters.md, with a token. The
archive and the lake are on moto's S3, on a fourth host. The model is a small one with random weights; all else is real. After
the end it counts what was lost or written twice, and it keeps what an operator saw meanwhile. It needs root; where namespaces
cannot be made it says so and ends with 0.
Exit code 1 if anything was lost, written twice or wrong, or if a command of the page did not work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import yaml

from dictalake.config.sections import Archive
from dictalake.errors import RunError
from jobs.benchmarks.__main__ import write_result
from tests.chaos_archive import Verdict, expect_rows, verify, write_archive
from tests.emulators import ObjectStore
from tests.host_network import can_make_hosts, enter, run_network
from tests.hosts_cluster import Cluster, Story, read_tail, run_store
from tests.models import save_random_lasr
from tests.recordings import read_rows

_INSIDE = "DICTALAKE_TESTS_HOSTS"  # in the environment of the process that is in the namespaces
FINISHED = (0, 3)
_LOOK_S = 1.0
_STUCK_S = 600.0  # a run may stand still for seven minutes after a machine was lost
_AFTER_S = 8.0  # of a fault, until an operator looks
# Small blocks and often a commit: each fault finds work at all stages.
_SETTINGS: dict[str, dict[str, Any]] = {
    "acoustic": {"device": "cpu", "dtype": "float32"},
    "decoding": {"kind": "greedy"},
    "report": {"write": True},
    "ray": {
        "block_rows": 4,
        "block_audio_s": 30.0,
        "load_memory_mb": 400.0,
        "emit_memory_mb": 500.0,
        "decode_memory_mb": 300.0,
        "finish_memory_mb": 200.0,
    },
}


def passed(verdict: Verdict | None, problems: Sequence[str]) -> bool:
    """Whether the lake holds each recording once, as it should be, and nothing else went wrong."""
    if verdict is None or problems:
        return False
    return not (verdict.lost or verdict.duplicated or verdict.crashed or verdict.wrong) and verdict.there == verdict.expected


def choose_newest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last attempt of each recording."""
    newest: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["attempt"]):
        newest[row["recording_id"]] = row
    return list(newest.values())


class Scenario:
    """One run, and what is done to its hosts."""

    def __init__(self, cluster: Cluster, store: ObjectStore, folder: Path, story: Story) -> None:
        self._cluster, self._store, self._folder, self._story = cluster, store, folder, story
        self._output = folder / "backfill.txt"
        self._seen_output = 0
        self._run: subprocess.Popen[bytes] | None = None

    def prepare(self, model: Path, files: Path, runners: int | None) -> dict[str, str | None]:
        """Puts the archive on the storage; which rows it has to give."""
        bucket, self._lake = self._store.make_bucket("archive"), f"{self._store.make_bucket('lake')}/speech"
        filesystem = fsspec.filesystem("s3", **self._store.fsspec_options)
        for path in sorted(files.rglob("*.*")):
            filesystem.pipe_file(f"{bucket}/dictations/{path.relative_to(files)}", path.read_bytes())
        self._archive = f"{bucket}/dictations"
        settings = {section: dict(keys) for section, keys in _SETTINGS.items()}
        settings["acoustic"]["model"] = str(model)
        settings["archive"] = {"storage_options": self._store.fsspec_options}
        settings["lake"] = {"storage_options": self._store.storage_options}
        if runners is not None:
            settings["ray"]["runners"] = runners
        self._config = self._folder / "hosts.yaml"
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return expect_rows(Archive.model_validate({"uri": self._archive, "storage_options": self._store.fsspec_options}))

    def begin(self) -> None:
        command = self._cluster.commands.for_run(self._archive, self._lake, self._config)
        self._story.tell(f"head: {self._cluster.commands.backfill}")
        self._run = self._cluster.start_on_head(command, self._output)

    def read(self) -> list[dict[str, Any]]:
        return read_rows(self._lake, self._store.storage_options)

    def wait(self, what: str, is_there: Callable[[], bool], most_s: float = _STUCK_S) -> bool:
        """Whether it came while the run was alive. Looks at the lake all the while."""
        began = changed = time.monotonic()
        while not is_there():
            assert self._run is not None
            if self._run.poll() is not None:
                self._count()
                return is_there()
            if time.monotonic() - began > most_s:
                return False
            if time.monotonic() - changed > _STUCK_S:
                self._story.complain(f"{what}: nothing was committed for {_STUCK_S:g} s", self.read_output())
                return False
            time.sleep(_LOOK_S)
            if self._count():
                changed = time.monotonic()
        return True

    def wait_for_rows(self, more: int) -> None:
        wanted = self._story.rows + more
        if not self.wait(f"waiting for {more} more rows", lambda: self._story.rows >= wanted):
            self._story.complain(f"{self._story.rows} rows, and no {wanted} before the run ended or stood still")

    def pause(self, seconds: float) -> None:
        self.wait("", lambda: False, seconds)

    def look(self, when: str) -> None:
        """What an operator sees who asks now, on the driver's host."""
        self._story.tell(f"{when}: the run's output", self.read_output())
        code, saw = self._cluster.on(self._cluster.head, f"dictalake runs --lake.uri {self._lake} --config {self._config}")
        self._story.tell(f"{when}: dictalake runs (exit code {code})", read_tail(saw, 12))
        code, saw = self._cluster.on(self._cluster.head, "ray status")
        self._story.tell(f"{when}: ray status (exit code {code})", saw.partition("Resources")[0].strip())

    def read_output(self) -> str:
        """What the run has printed since the last time."""
        if not self._output.exists():
            return "(not started)"
        text = self._output.read_text(encoding="utf-8", errors="replace")
        new, self._seen_output = text[self._seen_output :].strip(), len(text)
        return new or "(nothing new)"

    def end(self) -> int | None:
        self.wait("waiting for the end", lambda: self._run is not None and self._run.poll() is not None)
        assert self._run is not None
        return self._run.poll()

    def retry(self) -> None:
        """The command that failures.md gives for recordings that the storage did not give."""
        command = self._cluster.commands.for_run(self._archive, self._lake, self._config) + " --retry-failed"
        code, saw = self._cluster.on(self._cluster.head, command, timeout_s=_STUCK_S)
        self._story.tell(f"head: {self._cluster.commands.backfill} --retry-failed (exit code {code})", read_tail(saw, 14))

    def _count(self) -> bool:
        """Looks at the lake; whether there is more than before."""
        try:
            rows = len(read_rows(self._lake, self._store.storage_options))
        except (RunError, OSError):  # not made yet
            return False
        return self._story.count(rows)


def strike(cluster: Cluster, scenario: Scenario, story: Story, worker_s: float, storage_s: float) -> None:
    """The three faults, each with work before and after it."""
    scenario.wait_for_rows(20)
    cluster.workers["worker-3"].kill()
    story.tell("worker-3 loses its power")
    scenario.pause(_AFTER_S)
    scenario.look("after the death of worker-3")
    cluster.replace("worker-3", "worker-5", 5)
    scenario.wait_for_rows(30)
    scenario.look("some rows later")

    name = "worker-2"
    cluster.workers[name].cut()
    story.tell(f"{name} is cut off from everything for {worker_s:g} s")
    scenario.pause(worker_s - 5)
    scenario.look(f"{name} is cut off")
    scenario.pause(5)
    cluster.workers[name].heal()
    story.tell(f"{name} is healed")
    scenario.pause(5)
    if cluster.is_counted_dead(name):
        story.tell(f"{name}: Ray counts it as dead, so the page's commands join it again")
        cluster.on(cluster.workers[name], cluster.commands.leave)
        cluster.join(name)
    else:
        story.tell(f"{name}: its Ray went on")
    scenario.wait_for_rows(30)
    scenario.look("some rows later")

    cluster.head.cut("storage")
    story.tell(f"the driver's host is cut off from storage for {storage_s:g} s")
    scenario.pause(storage_s)
    cluster.head.heal("storage")
    story.tell("the driver's host reaches the storage again")
    scenario.wait_for_rows(20)
    scenario.look("some rows later")


def run(folder: Path, options: argparse.Namespace, story: Story) -> dict[str, Any]:
    """Everything, in namespaces that are there; the figures."""
    verdict, code, withheld = None, None, 0
    model = save_random_lasr(folder / "model")
    files = write_archive(folder / "archive", options.recordings)
    with run_network(), run_store(folder, options.recording_s) as store:
        cluster = Cluster(folder, story)
        try:
            scenario = Scenario(cluster, store, folder, story)
            expected = scenario.prepare(model, files, options.runners)
            cluster.start_ray()
            cluster.refuse_without_token()
            scenario.begin()
            strike(cluster, scenario, story, options.worker_s, options.storage_s)
            code = scenario.end()
            story.tell(f"the run ended with {code}", scenario.read_output())
            if code not in FINISHED:
                story.complain(f"the run ended with {code}")
            first = verify(scenario.read(), expected)
            withheld = len(first.wrong)
            if withheld:  # failed rows that may pass: a worker that is cut off cannot read
                scenario.retry()
            rows = scenario.read()
            verdict = replace(first, wrong=verify(choose_newest(rows), expected).wrong)
            scenario.look("after the end")
        except Exception as error:  # what was seen until then is worth having
            story.complain(f"broke off: {type(error).__name__}: {error}", scenario.read_output())
        finally:
            cluster.kill_all()
    figures = {"exit code": code, "made again by --retry-failed": withheld, "verdict": verdict and vars(verdict)}
    return {**figures, "passed": passed(verdict, story.problems)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=300)
    parser.add_argument("--recording-s", type=float, default=0.7, help="seconds in which the storage serves one recording")
    parser.add_argument("--worker-s", type=float, default=60.0, help="seconds for which a worker's host is cut off")
    parser.add_argument("--storage-s", type=float, default=30.0, help="seconds without storage for the driver's host")
    parser.add_argument("--runners", type=int, help="ray.runners, in place of auto")
    parser.add_argument("--keep", type=Path, help="folder that keeps all files")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(arguments)
    if (why := can_make_hosts()) is not None and _INSIDE not in os.environ:
        print(f"skipped: hosts in network namespaces cannot be made here: {why}")
        return 0
    if _INSIDE not in os.environ:
        return enter("tests.hosts", arguments, _INSIDE)
    story = Story()
    # Not below /tmp: each host has its own.
    with tempfile.TemporaryDirectory(prefix="hosts-", dir="/var/tmp") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        figures = run(folder, options, story)
    asked = {name: getattr(options, name) for name in ("recordings", "recording_s", "worker_s", "storage_s", "runners")}
    story_of_it = {"problems": story.problems, "events": story.events, "commits": story.commits}
    result = {"benchmark": "hosts", "asked": asked, **figures, **story_of_it}
    write_result(result, options.out)
    print(json.dumps(figures, indent=1))
    return 0 if figures["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
