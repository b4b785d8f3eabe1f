"""Nights of a lake, and a model that predicts its views: arrivals, replacements, late and vanishing files, failures,
experiments, promotions, erasures, two runs at once, and runs that are killed before they write down what was replaced.

    python -m tests.truth_machine --nights 365 --seed 1

There two runs at once are those of ``tests/two_runs.py``, with real leases; and foreign writers double rows.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deltalake import DeltaTable, write_deltalake

from dictalake.lake.erase import Subjects, forget
from dictalake.lake.fingerprints import FingerprintLog, keep_what_counts, promote
from dictalake.lake.maintenance import compact
from dictalake.lake.query import connect, find_names
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.superseded import refresh_superseded
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from tests.truth_lake import FIRST_DAY, A, B, C, make_lake, make_version, name_recording
from tests.two_runs import Shared, run_two

URIS = ("file:///data/a", "file:///data/b", "file:///data/c", "gs://bucket/a", "gs://bucket/b", "gs://bucket/c")
FINGERPRINTS = (A, B, C)
Key = tuple[str, int, str]  # URI, version, fingerprint
Together = Literal["leased", "asleep"]  # asleep: each lease has run out
_GONE = {"stage": "load", "reason": "changed_during_read", "detail": "", "retryable": True}


@dataclass
class Model:
    """What there should be. ``rows``: each attempt's run and whether it was good. ``seen``: runs that tell of a version."""

    archive: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    rows: dict[Key, list[tuple[int, bool]]] = field(default_factory=dict)
    seen: dict[tuple[str, int], int] = field(default_factory=dict)
    counted: set[Key] = field(default_factory=set)  # rows that tell of a version
    promoted: list[frozenset[str]] = field(default_factory=list)  # the newest first
    erased: set[str] = field(default_factory=set)
    copies: dict[tuple[str, int, str, int], int] = field(default_factory=dict)  # of an attempt's row, where there are several

    def place(self, fingerprint: str) -> int | None:
        if not self.promoted:
            return 0
        return next((place for place, names in enumerate(self.promoted) if fingerprint in names), None)

    def promote(self, fingerprint: str) -> None:
        if self.promoted and self.promoted[0] == {fingerprint}:
            return
        left = [names - {fingerprint} for names in self.promoted]
        self.promoted = [frozenset({fingerprint}), *(names for names in left if names)]

    def order(self, uri: str, version: int) -> int:
        """Of the versions of a URI: an object store dates them, files count from when they came into the lake."""
        return version if uri.startswith("gs:") else self.seen[uri, version]

    def find_current(self) -> dict[str, int]:
        """URI → the newest version with a row that counts."""
        current: dict[str, int] = {}
        for uri, version, fingerprint in self.counted:
            if self.place(fingerprint) is not None:
                known = current.get(uri)
                if known is None or self.order(uri, version) > self.order(uri, known):
                    current[uri] = version
        return current

    def find_superseded(self) -> dict[str, str]:
        current = self.find_current()
        return {
            name_recording(uri, version): name_recording(uri, current[uri])
            for uri, version, _ in self.counted
            if uri in current and self.order(uri, version) < self.order(uri, current[uri])
        }

    def find_shown(self) -> dict[str, tuple[str, str]]:
        """As the view ``transcripts``: recording → version and fingerprint."""
        gone = self.find_superseded()
        best: dict[str, tuple[tuple[int, int], str, str]] = {}
        for (uri, version, fingerprint), attempts in self.rows.items():
            place, good = self.place(fingerprint), [run for run, is_good in attempts if is_good]
            name = name_recording(uri, version)
            if place is None or not good or name in gone:
                continue
            key = (-place, max(good))
            if name not in best or key > best[name][0]:
                best[name] = (key, str(version), fingerprint)
        return {name: (version, fingerprint) for name, (_, version, fingerprint) in best.items()}

    def find_recordings(self) -> dict[str, str]:
        """As the view ``recordings``: recording → status."""
        shown, gone = self.find_shown(), self.find_superseded()
        statuses = dict.fromkeys(shown, "ok")
        for uri, version, fingerprint in self.rows:
            name = name_recording(uri, version)
            if self.place(fingerprint) is not None and name not in gone and name not in shown:
                statuses[name] = "failed"
        return statuses


class Nights:
    """A lake in ``folder`` beside its model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake = make_lake(folder)
        self.model = Model()
        self.run_number = 0
        RunLog(self.lake)
        TranscriptTable(self.lake)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def arrive(self, uri: str) -> None:
        """A new object, or a new version of one."""
        self.model.versions[uri] = self.model.archive[uri] = self.model.versions.get(uri, 0) + 1

    def vanish(self, uri: str) -> None:
        self.model.archive.pop(uri, None)

    def run(
        self,
        fingerprint: str,
        uris: Sequence[str] = URIS,
        *,
        bad: str = "",
        gone: str = "",
        is_killed: bool = False,
        beside: bool = False,
        together: Together | None = None,
    ) -> None:
        """A run over ``uris``: all at night, a few in an experiment. ``beside`` is a second run that commits the same after it,
        ``together`` two runs at once, which look at each other's leases or not."""
        self.run_number += 1
        if any(self.model.rows):
            keep_what_counts(self.lake)
            if not self.model.promoted:
                self.model.promoted = [frozenset(name for _, _, name in self.model.rows)]
        rows, listed = [], []
        for uri, version in sorted(self.model.archive.items()):
            key = (uri, version, fingerprint)
            attempts = self.model.rows.get(key, [])
            if uri not in uris or uri in self.model.erased:
                continue
            listed.append(Recording(name_recording(uri, version), uri, str(version), 10, FIRST_DAY))
            if attempts and attempts[-1][1]:
                continue
            is_good = uri not in (bad, gone)
            changes: dict[str, Any] = {} if is_good else {"status": "failed"}
            changes |= {"error": _GONE} if uri == gone else {}
            # Files get any date, and objects that of their version.
            modified = version if uri.startswith("gs:") else (version * 7919) % 50
            changes |= {"modified": modified, "attempt": len(attempts)}
            rows.append(make_version(uri, version, day=self.run_number, fingerprint=fingerprint, **changes))
            self.model.rows.setdefault(key, []).append((self.run_number, is_good))
            self.model.seen.setdefault((uri, version), self.run_number)
            if uri != gone:
                self.model.counted.add(key)
        if together is not None:
            by_id = {row["recording_id"]: row for row in rows}
            shared = run_two(self.lake, fingerprint, listed, by_id, looks_at_leases=together == "leased")
            repeated = 0 if together == "leased" else len(rows)
            assert shared == Shared(len(rows) + repeated, len(rows) - repeated, len(rows), repeated)
        elif rows:
            writers = [TranscriptTable(self.lake) for _ in range(2 if beside else 1)]
            staged = [write_staged(make_transcripts(rows), self.lake) for _ in writers]
            for writer, files in zip(writers, staged, strict=True):
                writer.commit(files)
        if is_killed:
            return
        if any(name == fingerprint for _, _, name in self.model.rows):
            FingerprintLog(self.lake).promote_first(fingerprint, f"run-{self.run_number}")
            if not self.model.promoted:
                self.model.promote(fingerprint)
        refresh_superseded(self.lake)

    def promote(self, fingerprint: str) -> None:
        if any(name == fingerprint for _, _, name in self.model.rows):
            if not self.model.promoted:
                self.model.promoted = [frozenset(name for _, _, name in self.model.rows)]
            promote(self.lake, fingerprint)
            self.model.promote(fingerprint)

    def erase(self, uri: str) -> None:
        forget(self.lake, Subjects(uris=(uri,)), force=True)
        self.model.erased.add(uri)
        for key in [key for key in self.model.rows if key[0] == uri]:
            del self.model.rows[key]
            self.model.counted.discard(key)
        self.model.copies = {key: count for key, count in self.model.copies.items() if key[0] != uri}
        self.model.seen = {key: run for key, run in self.model.seen.items() if key[0] != uri}

    def compact(self) -> None:
        compact(self.lake)

    def double(self, fingerprint: str) -> None:
        """A foreign writer appends the rows of a fingerprint once more."""
        table = DeltaTable(f"{self.lake.uri}/transcripts")
        rows = table.to_pyarrow_table(filters=[("fingerprint", "=", fingerprint)])
        if rows.num_rows:
            write_deltalake(table, rows, mode="append")
        for (uri, version, name), attempts in self.model.rows.items():
            for attempt in range(len(attempts)) if name == fingerprint else ():
                key = (uri, version, name, attempt)
                self.model.copies[key] = 2 * self.model.copies.get(key, 1)

    def check(self) -> None:
        """Every view is as the model says."""
        model, gone = self.model, self.model.find_superseded()
        history = [
            (name, fingerprint, attempt, name not in gone, gone.get(name))
            for (uri, version, fingerprint), attempts in model.rows.items()
            for name in [name_recording(uri, version)]
            for attempt in range(len(attempts))
            for _ in range(model.copies.get((uri, version, fingerprint, attempt), 1))
        ]
        wanted = {
            "SELECT recording_id, source.version, fingerprint FROM transcripts": [
                (name, *row) for name, row in model.find_shown().items()
            ],
            "FROM superseded": list(gone.items()),
            "SELECT recording_id, fingerprint, attempt, is_current, superseded_by FROM history": history,
            "SELECT recording_id, status FROM recordings": list(model.find_recordings().items()),
            "SELECT fingerprint, place FROM promotions": [
                (name, place) for place, names in enumerate(model.promoted) for name in names
            ],
        }
        with connect(str(self.lake.uri), names=find_names(" ".join(wanted))) as database:
            for question, rows in wanted.items():
                assert sorted(database.sql(question).fetchall(), key=str) == sorted(rows, key=str), question


def live(nights: int, seed: int) -> None:
    """A year, or as many nights, of random events; every view is checked after each night."""
    chance = random.Random(seed)
    lake = Nights(Path(tempfile.mkdtemp(prefix="truth-")))
    production, events = A, Counter[str]()
    try:
        for night in range(1, nights + 1):
            for _ in range(chance.randrange(3)):
                lake.arrive(chance.choice(URIS))
            if chance.random() < 0.1:
                lake.vanish(chance.choice(URIS))
            bad, gone = (chance.choice(URIS) if chance.random() < 0.2 else "" for _ in range(2))
            together: Together | None = chance.choice(("leased", "asleep")) if chance.random() < 0.2 else None
            lake.run(production, bad=bad, gone=gone, is_killed=chance.random() < 0.1, together=together)
            events[together or "run"] += 1
            if chance.random() < 0.1:
                lake.run(chance.choice(FINGERPRINTS), chance.sample(URIS, 2))
                events["experiment"] += 1
            if chance.random() < 0.03:
                production = chance.choice(FINGERPRINTS)
                lake.run(production)
                lake.promote(production)
                events["promotion"] += 1
            if chance.random() < 0.01 and len(lake.model.erased) < len(URIS) - 2:
                lake.erase(chance.choice(URIS))
                events["erasure"] += 1
            if chance.random() < 0.01:
                lake.double(chance.choice(FINGERPRINTS))
                events["doubled by a foreign writer"] += 1
            if night % 30 == 0:
                lake.compact()
            lake.check()
            if night % 50 == 0:
                print(f"{night} nights, {sum(map(len, lake.model.rows.values()))} rows", flush=True)
        print(f"{nights} nights: every view was as the model says; {', '.join(f'{n} {what}' for what, n in events.items())}")
    finally:
        lake.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    live(given.nights, given.seed)
