"""One lake, from nothing to finished: runs that are killed at random moments and started again, and a reader all the while."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dictalake.config.sections import Config
from tests import chaos_victims
from tests.chaos_archive import Verdict, expect_rows, verify
from tests.chaos_cluster import NodeCluster
from tests.chaos_reader import Reader, Report
from tests.commands import own_ray_folder, start
from tests.recordings import read_rows

FINISHED = (0, 3)  # exit codes; 0 where the broken recordings were committed by an earlier run
STARTING_S = 14.0  # a run takes about so long until it commits for the first time
_SETTLED_S = 4.0  # until then workers and commits that are seen may be of the run that was killed before
_WHILE_STARTING = 0.25  # share of the kills of a fresh run that do not wait for it to commit anything
_PATIENCE_S, _BLIND_KILLS = 8.0, 3  # a kill waits so long for a commit since the last one, and so many need not wait for ever
_MOST_DELAY_S = 1.5
_VICTIM_S = 5.0
_STUCK_S = 600.0
_MOST_FAILURES = 6  # runs in a row that end by themselves with an error
_POLL_S = 0.02


@dataclass
class CycleReport:
    """What happened to one lake. ``failures`` are runs that ended by themselves with an error: allowed, since the same command
    goes on, but counted; ``violations`` are not allowed."""

    store: str
    mode: str
    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    failures: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    verdict: Verdict | None = None
    reader: Report = field(default_factory=Report)
    took_s: float = 0.0


STOPS = {"terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
_ENDS_WITHIN_S = 60.0  # on a busy machine


class _StuckError(Exception):
    """A run that commits nothing any more, and does not end."""


class Cycle:
    """``deck`` is what is to be killed, last first; what could not be done is left on it. ``settings`` are those of the run,
    ``tell`` takes a line for each kill."""

    def __init__(
        self,
        report: CycleReport,
        settings: Mapping[str, Mapping[str, Any]],
        deck: list[str],
        random_numbers: random.Random,
        tell: Callable[[str], None],
    ) -> None:
        self.report, self._deck, self._random, self._tell = report, deck, random_numbers, tell
        self._settings = {section: dict(keys) for section, keys in settings.items()}
        self._config = Config.model_validate(self._settings)
        self._cluster: NodeCluster | None = None
        self._rows = 0  # that the reader saw last
        self._changed_at = self._struck_at = 0.0
        self._blind = 0  # kills since a commit was seen
        self._struck_this_run = 0

    def run(self, folder: Path) -> CycleReport:
        """Runs, kills and resumes until a run ends by itself, then looks whether all is there."""
        started = time.monotonic()
        expected = expect_rows(self._config.archive)
        self._reader = Reader(self._config.lake, folder)
        try:
            with self._own_cluster(folder):
                failures = 0
                while (code := self._run_once(folder)) not in FINISHED:
                    failures = 0 if code is None else failures + 1
                    if failures == _MOST_FAILURES:
                        self.report.violations.append(f"{failures} runs in a row failed")
                        break
            self.report.reader = self._reader.stop()
        finally:
            self._reader.kill()
        rows = read_rows(str(self._config.lake.uri), dict(self._config.lake.storage_options))
        self.report.verdict = verify(rows, expected)
        self._judge_reader(len(rows))
        self.report.took_s = time.monotonic() - started
        return self.report

    @contextmanager
    def _own_cluster(self, folder: Path) -> Iterator[None]:
        """The simulated nodes of a cycle of mode ``nodes``."""
        with own_ray_folder() as self._ray_folder:
            if self.report.mode == "nodes":
                self._cluster = NodeCluster(self._ray_folder, folder / "cluster.txt")
                self._settings["ray"] = {**self._settings["ray"], "address": self._cluster.address, "cpus": None}
            (folder / "config.yaml").write_text(yaml.safe_dump(self._settings), encoding="utf-8")
            try:
                yield
            finally:
                if self._cluster is not None:
                    self._cluster.close()

    def _run_once(self, folder: Path) -> int | None:
        """The command once; its exit code, None if it was killed."""
        self.report.runs += 1
        output = folder / f"run-{self.report.runs}.txt"
        with own_ray_folder() as own:
            ray_folder = own if self._cluster is None else self._ray_folder
            run = start(["backfill", "--config", str(folder / "config.yaml")], ray_folder, output)
            self._changed_at = self._struck_at = time.monotonic()
            self._blind = self._struck_this_run = 0
            try:
                while self._deck and run.poll() is None:
                    if self._strike(run) in ("driver", *STOPS):
                        return None
                while run.poll() is None:
                    self._watch()
            except _StuckError:
                self._complain(f"a run is stuck after {self._struck_this_run} kills in it", output)
                return None
            finally:
                chaos_victims.kill_family(run.pid)
                run.wait()
        if run.returncode not in FINISHED:
            self._note_failure(run.returncode, output)
        return run.returncode

    def _note_failure(self, code: int, output: Path) -> None:
        last = _last_line(output)
        self.report.failures.append(last)
        self._tell(f"a run ended with {code}: {last}")
        if not self._struck_this_run:
            self._complain(f"a run ended with {code} though nothing was killed in it", output)

    def _strike(self, run: subprocess.Popen[bytes]) -> str | None:
        """Waits for a moment and kills what is on top of the deck; what was killed, None if nothing was."""
        kind = self._deck[-1]
        if not self._wait_for_moment(run, kind):
            return None
        killed = self._kill(run, kind)
        if killed is None:  # nobody there: something else first
            self._deck.insert(0, self._deck.pop())
            return None
        self._deck.pop()
        self.report.kills[kind] += 1
        self._struck_this_run += 1
        self._blind += 1
        self._struck_at = time.monotonic()
        self._tell(f"{kind} killed ({killed}), {self._rows} rows committed")
        return kind

    def _wait_for_moment(self, run: subprocess.Popen[bytes], kind: str) -> bool:
        """False if the run is over before."""
        fresh = not self._struck_this_run
        if fresh and self._random.random() < _WHILE_STARTING:
            return self._wait(run, self._random.uniform(0.0, STARTING_S) if kind in ("driver", *STOPS) else _SETTLED_S)
        while self._changed_at <= self._struck_at + (_SETTLED_S if fresh else 0.0):
            if not fresh and self._blind < _BLIND_KILLS and time.monotonic() - self._struck_at > _PATIENCE_S:
                break
            if not self._wait(run, 0.0):
                return False
        return self._wait(run, self._random.uniform(0.0, _MOST_DELAY_S))

    def _wait(self, run: subprocess.Popen[bytes], seconds: float) -> bool:
        """Whether the run still works after this long."""
        until = time.monotonic() + seconds
        while run.poll() is None:
            self._watch()
            if time.monotonic() >= until:
                return True
        return False

    def _watch(self) -> None:
        """A look at what the reader saw. Raises _StuckError."""
        time.sleep(_POLL_S)
        rows = self._reader.read_report().rows
        if rows != self._rows:
            self._rows, self._changed_at, self._blind = rows, time.monotonic(), 0
        if time.monotonic() - self._changed_at > _STUCK_S:
            raise _StuckError

    def _kill(self, run: subprocess.Popen[bytes], kind: str) -> str | None:
        """Kills one of ``kind``, and says more of what it was; None if there was none for some seconds."""
        if kind == "driver":
            processes = chaos_victims.kill_family(run.pid)
            return f"{processes} processes" if run.wait() == -signal.SIGKILL else None  # None: it was just over
        if kind in STOPS:
            return self._stop(run, STOPS[kind])
        if kind == "node":
            assert self._cluster is not None
            killed = self._cluster.kill_node()
            self._wait(run, self._random.uniform(0.0, 2.0))
            self._cluster.add_node()
            return killed
        session = run.pid if self._cluster is None else self._cluster.session
        until = time.monotonic() + _VICTIM_S + (STARTING_S if not self._struck_this_run else 0.0)
        while run.poll() is None and time.monotonic() < until:
            if victims := chaos_victims.find_victims(kind, session):
                victim = self._random.choice(victims)
                stage = chaos_victims.find_stage(victim)
                if chaos_victims.kill(victim):
                    return stage or kind
            time.sleep(_POLL_S)
        return None

    def _stop(self, run: subprocess.Popen[bytes], by: signal.Signals) -> str | None:
        """As a terminal or an operator stops a run, which ends by itself then; None if it was just over."""
        os.killpg(run.pid, by)
        try:
            code = run.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.report.violations.append(f"a run did not end within {_ENDS_WITHIN_S:g} s of {by.name}")
            return by.name
        if code in FINISHED:
            return None
        if code != 128 + by:
            self.report.violations.append(f"a run that {by.name} stopped ended with {code}")
        return by.name

    def _judge_reader(self, rows: int) -> None:
        seen = self.report.reader
        self.report.violations += [f"reader: {sentence}" for sentence in seen.sentences]
        if not seen.ended:
            self.report.violations.append("reader: it did not last until the end")
        if seen.rows != rows:
            self.report.violations.append(f"reader: it saw {seen.rows} rows in the end, {rows} are there")

    def _complain(self, sentence: str, output: Path) -> None:
        self.report.violations.append(f"{sentence}: {_last_line(output)}")
        self._tell(self.report.violations[-1])


def _last_line(output: Path) -> str:
    lines = [line for line in output.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:400] if lines else "no output"
