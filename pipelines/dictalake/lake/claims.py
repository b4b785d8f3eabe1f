"""Who is at work: a small object ``claims/<run_id>.json`` that a live run writes anew again and again.

A claim keeps other runs from doing the same work twice; that nothing is *written* twice does not rest on it but on the look at
the table before each commit. Age is told by the storage's own clock, so no machine's clock need be right. A run is alive when
its claim was written less than ``lake.lease_s`` ago; one that died on this very machine is known to be dead at once.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pyarrow import fs

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.storage import open_storage

FOLDER = "claims"
BEATS_PER_LEASE = 6
_SAID_EVERY_S = 60.0


@dataclass(frozen=True)
class Lease:
    """What a run says of itself. ``planning``: it is finding out what there is to do; ``running``: its manifest is written and
    claimed. ``ticket`` is its turn to plan, 0 until it has looked at those of others. ``boot_id``, ``pid`` and
    ``process_started`` (in ticks since the boot) name its process on its host."""

    run_id: str
    job: str
    fingerprint: str
    started_at: str
    state: Literal["planning", "running"] = "planning"
    host: str = ""
    boot_id: str = ""
    pid: int = 0
    process_started: int = 0
    ticket: int = 0
    beats: int = 0
    wanted: int = 0
    ok: int = 0
    failed: int = 0
    audio_hours: float = 0.0

    @property
    def turn(self) -> tuple[int, str]:
        """Of runs that plan at once, the least goes first."""
        return self.ticket, self.run_id

    @property
    def is_dead_here(self) -> bool:
        """Whether its process was of this machine and is no more."""
        if (self.host, self.boot_id) != (platform.node(), read_boot_id()) or not self.boot_id:
            return False
        return read_start_ticks(self.pid) != self.process_started


@dataclass(frozen=True)
class SeenLease:
    """A claim as it was found: ``age_s`` since it was last written, and whether that is recent enough."""

    claim: Lease
    age_s: float
    is_alive: bool


def make_lease(run_id: str, job: str, fingerprint: str) -> Lease:
    """The claim of a run of this process, from now on."""
    return Lease(
        run_id=run_id,
        job=job,
        fingerprint=fingerprint,
        started_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        host=platform.node(),
        boot_id=read_boot_id(),
        pid=os.getpid(),
        process_started=read_start_ticks(os.getpid()),
    )


def read_boot_id() -> str:
    """Tells machines, and containers, of one name apart; empty where the system has no such thing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def read_start_ticks(pid: int) -> int:
    """When a process of this machine started, in ticks since the boot (proc(5)): no clock that is set anew changes it. 0 if
    there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(status.rpartition(")")[2].split()[19])


class LeaseStore:
    """The claims of a lake. Methods raise RunError where the lake is out of reach."""

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, FOLDER)
        self._lease_s = lake.lease_s
        self._ahead_s, self._looked = 0.0, -float("inf")  # the storage's clock less the monotonic one, and when that was found

    @property
    def beat_s(self) -> float:
        """Seconds between two writings of a claim."""
        return self._lease_s / BEATS_PER_LEASE

    def write(self, claim: Lease) -> None:
        with self._errors("write to"):
            self._storage.write_bytes(f"{claim.run_id}.json", json.dumps(asdict(claim)).encode())

    def remove(self, run_id: str) -> None:
        with self._errors("write to"):
            self._delete(f"{run_id}.json")

    def read(self) -> list[SeenLease]:
        """Every claim, in order of start. A run whose claim was removed is not among them."""
        with self._errors("read"):
            if time.monotonic() - self._looked > self._lease_s:
                self._looked = time.monotonic()
                self._ahead_s = self._read_clock() - time.monotonic()
            now = self._ahead_s + time.monotonic()
            infos = self._storage.filesystem.get_file_info(fs.FileSelector("", allow_not_found=True))
            seen = []
            for info in infos:
                claim = self._read_one(info.path) if info.path.endswith(".json") else None
                if claim is not None:
                    age_s = now - _seconds(info)
                    # One from the future is of before the clock was put back: a live run would have written it anew since.
                    seen.append(SeenLease(claim, age_s, abs(age_s) < self._lease_s and not claim.is_dead_here))
            return sorted(seen, key=lambda one: (one.claim.started_at, one.claim.run_id))

    def settle(
        self,
        mine: Lease,
        renew: Callable[[Lease], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> list[Lease]:
        """The other live runs of this fingerprint, when it is sure that they live and what they have claimed.

        Each is watched until it writes its claim once more, or its lease is over: one that was killed a moment ago would
        otherwise keep its work from the run that takes it up. Runs plan one after the other, so that of two only one finds the
        same work: each takes a ticket greater than those it sees and waits for the lesser ones, and for who has none yet
        (Lamport's bakery: no clock and no lock in it). ``renew`` writes this one's ticket, ``say`` tells a person whom it waits
        for. Claims of the dead are removed.
        """
        first: dict[str, Lease] = {}
        planning = [seen.claim for seen in self.read() if seen.is_alive and seen.claim.state == "planning"]
        mine = replace(mine, ticket=1 + max((claim.ticket for claim in planning), default=0))
        if renew is not None:
            renew(mine)
        told = time.monotonic()
        while True:
            alive, waits_for = [], []
            for seen in self.read():
                other = seen.claim
                if other.run_id == mine.run_id:
                    continue
                if not seen.is_alive:
                    self.remove(other.run_id)
                    continue
                if other.fingerprint != mine.fingerprint:
                    continue
                alive.append(other)
                earlier = first.setdefault(other.run_id, other)
                unsure = earlier.beats == other.beats and earlier.state == other.state
                if unsure or (other.state == "planning" and (other.ticket == 0 or other.turn < mine.turn)):
                    waits_for.append(other.run_id)
            if not waits_for:
                return [claim for claim in alive if claim.state == "running"]
            if say is not None and time.monotonic() - told > _SAID_EVERY_S:
                told = time.monotonic()
                say(f"waiting for {', '.join(waits_for)} to find out what there is to do; dictalake runs shows who is at work")
            time.sleep(min(1.0, self.beat_s / 4))

    @contextmanager
    def hold(self, claim: Lease, progress: Callable[[Lease], Lease]) -> Iterator[Callable[[Lease], None]]:
        """Keeps ``claim`` fresh, and removes it at the end; gives a function that replaces it. ``progress`` puts the counts in.

        Beats that cannot be written are left out: what rests on them is only who does the work.
        """
        current = [claim]
        stop = threading.Event()
        lock = threading.Lock()

        def beat() -> None:
            with lock:
                current[0] = replace(progress(current[0]), beats=current[0].beats + 1)
                self.write(current[0])

        def keep_on() -> None:
            while not stop.wait(self.beat_s):
                try:
                    beat()
                except (RunError, OSError):
                    continue

        def change(to: Lease) -> None:
            with lock:
                current[0] = replace(to, beats=current[0].beats)
            beat()

        self.write(claim)
        thread = threading.Thread(target=keep_on, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield change
        finally:
            stop.set()
            thread.join()
            with suppress(RunError):  # it runs out by itself
                self.remove(claim.run_id)

    def _read_one(self, path: str) -> Lease | None:
        try:
            with self._storage.filesystem.open_input_stream(path) as stream:
                document: dict[str, Any] = json.loads(stream.read())
            return Lease(**document)
        except OSError:
            if self._is_gone(path):  # removed since; object stores say that in many ways
                return None
            raise
        except (TypeError, ValueError, KeyError):
            return None  # of another version of dictalake

    def _read_clock(self) -> float:
        """The storage's own time: when it says that an object was written that was written just now."""
        path = f"clock-{uuid.uuid4().hex}"
        try:
            self._storage.write_bytes(path, b"now")
            now = _seconds(self._storage.filesystem.get_file_info(path))
            self._delete(path)
        except OSError:
            return time.time()  # who may only read takes the machine's clock
        return now

    def _delete(self, path: str) -> None:
        try:
            self._storage.filesystem.delete_file(path)
        except OSError:
            if not self._is_gone(path):
                raise

    def _is_gone(self, path: str) -> bool:
        return bool(self._storage.filesystem.get_file_info(path).type == fs.FileType.NotFound)

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"cannot {action} the claims at {self._storage.uri}: {type(error).__name__}") from error


def _seconds(info: fs.FileInfo) -> float:
    return 0.0 if info.mtime_ns is None else info.mtime_ns / 1e9
