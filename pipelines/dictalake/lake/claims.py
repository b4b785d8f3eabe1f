"""Which runs are at work: each live run keeps rewriting its lease, a small object ``claims/<run_id>.json``.

A lease keeps other runs from doing the same work. It does not protect the table: what prevents that a row is written twice is
the look at the table before each commit. A run is alive if its lease was written less than ``lake.lease_s`` seconds ago by the
clock of the storage, so the clocks of the machines do not matter. A run that died on this machine is known to be dead at once.
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

from dictalake import retries
from dictalake.config.sections import Lake
from dictalake.errors import RunError, name_place
from dictalake.lake.places import CLAIMS_FOLDER
from dictalake.lake.storage import open_storage

BEATS_PER_LEASE = 6
_REPORT_EVERY_S = 60.0
_FIRST_TRIES = 4
CHOOSING = -1  # the ticket of a run at work that is about to take one, to plan more (turns.py); ticket n of such a run is -1-n


@dataclass(frozen=True)
class Lease:
    """What a run writes about itself.

    ``state`` is ``planning`` while it finds out what there is to do, and ``running`` once its manifest is written: other runs
    leave the recordings in the manifest alone. ``ticket`` is its turn to plan; 0 means that it has not looked at the tickets
    of others yet. It is negative while a run that is at work waits for its turn to plan more. ``host``, ``boot_id``, ``pid``
    and ``process_started`` (ticks since the boot) identify its process. ``beats`` counts how often the lease was written,
    ``wanted``, ``ok`` and ``failed`` count recordings.
    """

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
        """The order in which runs plan: the smallest first."""
        return (self.ticket if self.ticket >= 0 else -1 - self.ticket), self.run_id

    @property
    def is_planning(self) -> bool:
        """Whether it plans, or waits for its turn to do so."""
        return self.state == "planning" or self.ticket < 0

    @property
    def is_dead_here(self) -> bool:
        """Whether its process ran on this machine and has ended."""
        if (self.host, self.boot_id) != (platform.node(), read_boot_id()) or not self.boot_id:
            return False
        return read_start_ticks(self.pid) != self.process_started


@dataclass(frozen=True)
class SeenLease:
    """A lease as it was read: the seconds since it was last written (``age_s``), and whether its run is alive."""

    lease: Lease
    age_s: float
    is_alive: bool


def make_lease(run_id: str, job: str, fingerprint: str) -> Lease:
    """A new lease for a run of this process."""
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
    """An id that differs between machines and containers of the same name; empty if the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def read_start_ticks(pid: int) -> int:
    """When a process of this machine started, in ticks since the boot (proc(5)), which no change of the clock affects.

    0 if there is no such process.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(status.rpartition(")")[2].split()[19])


class LeaseStore:
    """The leases of a lake. The methods raise RunError when the lake cannot be reached."""

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, CLAIMS_FOLDER)
        self._lease_s = lake.lease_s
        # How far the storage's clock is ahead of the monotonic one, at least and at most, and when that was measured.
        self._ahead_s, self._measured_at = (0.0, 0.0), -float("inf")

    @property
    def lease_s(self) -> float:
        """The seconds after which a lease that nobody rewrites expires."""
        return self._lease_s

    @property
    def beat_s(self) -> float:
        """The seconds between two writes of a lease."""
        return self._lease_s / BEATS_PER_LEASE

    def write(self, lease: Lease) -> None:
        with self._errors("write to"):
            self._storage.write_bytes(f"{lease.run_id}.json", json.dumps(asdict(lease)).encode())

    def remove(self, run_id: str) -> None:
        with self._errors("write to"):
            self._delete(f"{run_id}.json")

    def read(self) -> list[SeenLease]:
        """Every lease, in the order in which the runs started. A lease that is removed meanwhile is left out."""
        with self._errors("read"):
            if time.monotonic() - self._measured_at > self._lease_s:
                self._measure_clock()
            # A storage under load takes long to answer, and leases are rewritten meanwhile: the time of the listing is known
            # only to lie between these two.
            earliest = self._ahead_s[0] + time.monotonic()
            infos = self._storage.filesystem.get_file_info(fs.FileSelector("", allow_not_found=True))
            latest = self._ahead_s[1] + time.monotonic()
            seen = []
            for info in infos:
                lease = self._read_one(info.path) if info.path.endswith(".json") else None
                if lease is not None:
                    written = _seconds(info)
                    is_fresh = earliest - written - _coarseness_s(info) < self._lease_s
                    # A lease from the future was written before the clock was put back; a live run would have rewritten it.
                    is_possible = written - latest < self._lease_s
                    seen.append(SeenLease(lease, earliest - written, is_fresh and is_possible and not lease.is_dead_here))
            return sorted(seen, key=lambda one: (one.lease.started_at, one.lease.run_id))

    def await_peers(
        self,
        mine: Lease,
        renew: Callable[[Lease], None] | None = None,
        report: Callable[[str], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> list[Lease]:
        """Waits until this run may plan; returns the leases of the other live runs of its fingerprint.

        Two conditions end the wait. First, every other run has rewritten its lease once, or its lease has expired: a run that
        was killed a moment ago must not keep its work from the one that takes it up. Second, it is this run's turn: runs plan
        one after the other, so that two of them never find the same work. Each run takes a ticket greater than those it sees,
        and waits for the smaller ones and for runs that have no ticket yet (Lamport's bakery algorithm, which needs neither a
        clock nor a lock). Leases of dead runs are removed.

        ``renew`` writes this run's lease with its ticket. ``report`` gets a sentence about the wait every minute. ``check`` is
        called again and again, and may raise to end the wait.
        """
        mine = self.take_ticket(mine, renew)
        first_seen: dict[str, Lease] = {}
        reported = time.monotonic()
        while True:
            check()
            peers = self.read_peers(mine)
            awaited = [peer.run_id for peer in peers if must_wait_for(peer, first_seen.setdefault(peer.run_id, peer), mine)]
            if not awaited:
                return [peer for peer in peers if peer.state == "running"]
            if report is not None and time.monotonic() - reported > _REPORT_EVERY_S:
                reported = time.monotonic()
                report(
                    f"waiting until {', '.join(awaited)} has planned its work; `dictalake runs` shows which runs are at work"
                )
            retries.pause(min(1.0, self.beat_s / 4))

    def take_ticket(self, mine: Lease, renew: Callable[[Lease], None] | None) -> Lease:
        """This run's lease with a ticket that is greater than those of all live runs that plan now."""
        planning = [seen.lease for seen in self.read() if seen.is_alive and seen.lease.is_planning]
        number = 1 + max((lease.turn[0] for lease in planning), default=0)
        mine = replace(mine, ticket=number if mine.state == "planning" else -1 - number)
        if renew is not None:
            renew(mine)
        return mine

    def read_peers(self, mine: Lease) -> list[Lease]:
        """The leases of the other live runs of this fingerprint; removes those of dead runs of any fingerprint."""
        peers = []
        for seen in self.read():
            if seen.lease.run_id == mine.run_id:
                continue
            if not seen.is_alive:
                self.remove(seen.lease.run_id)
            elif seen.lease.fingerprint == mine.fingerprint:
                peers.append(seen.lease)
        return peers

    @contextmanager
    def hold(self, lease: Lease, progress: Callable[[Lease], Lease]) -> Iterator[Heartbeat]:
        """Keeps rewriting ``lease`` while the context is open, and removes it at the end. ``progress`` fills in the current
        counts. The first write is tried a few times: nobody sees the run before it.
        """
        retries.call_with_retries(lambda: self.write(lease), _FIRST_TRIES, lambda error: isinstance(error, RunError))
        heartbeat = Heartbeat(self, lease, progress)
        heartbeat.start()
        try:
            yield heartbeat
        finally:
            heartbeat.stop()
            with suppress(RunError):  # it expires by itself
                self.remove(lease.run_id)

    def _read_one(self, path: str) -> Lease | None:
        try:
            with self._storage.filesystem.open_input_stream(path) as stream:
                document: dict[str, Any] = json.loads(stream.read())
            return Lease(**document)
        except OSError:
            if self._is_gone(path):  # removed meanwhile; object stores report that in many ways
                return None
            raise
        except (TypeError, ValueError, KeyError):
            return None  # another version of dictalake wrote it

    def _measure_clock(self) -> None:
        """Compares the storage's clock with the monotonic one: the modification time of an object that is written now."""
        path = f"clock-{uuid.uuid4().hex}"
        before = self._measured_at = time.monotonic()
        try:
            self._storage.write_bytes(path, b"now")
            info = self._storage.filesystem.get_file_info(path)
            self._delete(path)
            written, coarseness_s = _seconds(info), _coarseness_s(info)
        except OSError:
            written, coarseness_s = time.time(), 0.0  # without the right to write, take this machine's clock
        self._ahead_s = written - time.monotonic(), written + coarseness_s - before

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
            raise RunError(f"cannot {action} the leases at {self._storage.uri}: {type(error).__name__}") from error


class Heartbeat:
    """A thread that keeps rewriting a lease. Call it to replace the lease.

    A beat that cannot be written is made up for by the next one. A call tries again until the lease is written: a run may not
    plan before others see its ticket. It is over, and ``check`` raises RunError, when every write failed for ``lake.lease_s``
    seconds, whatever the error: a network share denies a right or a file for a moment too. Other runs would then take this one
    for dead and do its work too.
    """

    def __init__(self, store: LeaseStore, lease: Lease, progress: Callable[[Lease], Lease]) -> None:
        self._store, self._lease, self._progress = store, lease, progress
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._failing_since: float | None = None
        self._lost: RunError | None = None
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def __call__(self, lease: Lease) -> None:
        self.check()
        while not self._beat(lease):
            self.check()
            retries.pause(min(1.0, self._store.beat_s / 4))

    def check(self) -> None:
        """Raises RunError where the lease is lost."""
        if self._lost is not None:
            raise self._lost

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _keep_beating(self) -> None:
        while self._lost is None and not self._stopped.wait(self._store.beat_s):
            self._beat()

    def _beat(self, lease: Lease | None = None) -> bool:
        """Writes the lease, or ``lease`` in its place, once; returns whether that succeeded."""
        with self._lock:
            began = time.monotonic()
            lease = replace(lease or self._lease, beats=self._lease.beats)
            try:
                self._lease = lease
                self._lease = replace(self._progress(lease), beats=lease.beats + 1)
                self._store.write(self._lease)
                self._failing_since = None
                return True
            except Exception as error:  # whatever it is, the run must learn of it
                self._failing_since = began if self._failing_since is None else self._failing_since
                if time.monotonic() - self._failing_since >= self._store.lease_s:
                    self._lost = RunError(
                        f"the lease of this run could not be renewed ({_name_cause(error)}), and other runs will take over "
                        "its work: check that the lake can be written; what is committed stays, run the same command again to "
                        "resume"
                    )
                return False


def _name_cause(error: Exception) -> str:
    return type(error.__cause__).__name__ if isinstance(error.__cause__, OSError) else name_place(error)


def must_wait_for(peer: Lease, first_seen: Lease, mine: Lease) -> bool:
    """Whether it is not yet certain that ``peer`` is alive, or it plans before ``mine``."""
    is_certain = (peer.beats, peer.state) != (first_seen.beats, first_seen.state)
    # A run without a ticket has turn 0, before everyone: it may be about to take the same ticket.
    plans_before = peer.is_planning and peer.turn < mine.turn
    return not is_certain or plans_before


def _seconds(info: fs.FileInfo) -> float:
    return 0.0 if info.mtime_ns is None else info.mtime_ns / 1e9


def _coarseness_s(info: fs.FileInfo) -> float:
    """How much later than its modification time an object may have been written: S3 cuts the time to whole seconds."""
    return 0.0 if (info.mtime_ns or 0) % 1_000_000_000 else 1.0
