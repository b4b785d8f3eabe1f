"""Sixteen writer processes on one lake, again and again: the real claims, the real search for work and the real commits, with
stub rows instead of transcripts.

    python -m tests.writers --rounds 100 --store all --out FILE.json

In every second round the writers look at no claims, as if each had slept through its lease: then all of them do the same work,
and only the look at the table before each commit keeps rows from being there twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from rich.console import Console
from rich.table import Table

from dictalake.config.sections import Config, Lake
from dictalake.lake.claims import Lease, LeaseStore, make_lease
from dictalake.lake.manifests import Manifests
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from dictalake.workflow import columns
from dictalake.workflow.worklist import CLAIMED, WorkList
from jobs.benchmarks.__main__ import describe_machine
from tests.emulators import run_gcs, run_s3
from tests.lake_rows import FINGERPRINT, done_ids, make_rows

WRITERS, EACH, BLOCK = 16, 12, 6
_APART = 3  # a writer begins so many recordings behind the one before it, so most are asked of four
STORES = ("local", "gcs", "s3")


def count_recordings(writers: int) -> int:
    return writers * _APART


def be_writer(number: int, count: int, start: Any, pipe: Connection) -> None:
    """A process: for each (lake, with or without claims) that it is sent does its share, and says what it committed."""
    while (task := pipe.recv()) is not None:
        values, looks_at_claims = task
        lake = Lake.model_validate(values)
        TranscriptTable(lake)
        start.wait(timeout=120)
        try:
            pipe.send(write_share(number, count, lake, looks_at_claims=looks_at_claims))
        except Exception as error:
            pipe.send(repr(error))


class TimedLeases(LeaseStore):
    """Leases that measure how long each one could have gone without being rewritten (``longest_s``), and name the runs that
    they took for dead (``buried``)."""

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake)
        self.longest_s, self._written = 0.0, time.monotonic()
        self.held, self.buried = "", list[str]()

    def write(self, lease: Lease) -> None:
        started, self.held = time.monotonic(), lease.run_id
        super().write(lease)
        self.longest_s, self._written = max(self.longest_s, time.monotonic() - self._written), started

    def remove(self, run_id: str) -> None:
        if run_id == self.held:
            self.longest_s = max(self.longest_s, time.monotonic() - self._written)
        else:
            self.buried.append(run_id)
        super().remove(run_id)


def write_share(number: int, count: int, lake: Lake, *, looks_at_claims: bool) -> Counter[str]:
    """What a run does without its middle: EACH recordings, of which most are other writers' too."""
    mine = [f"{(number * _APART + step) % count_recordings(count):032x}" for step in range(EACH)]
    found = [Recording(one, f"gs://a/{one}", "1", 10, datetime(2026, 3, 1, tzinfo=UTC)) for one in mine]
    config = Config.model_validate({"ray": {"block_rows": BLOCK}})
    table, board, manifests = TranscriptTable(lake), TimedLeases(lake), Manifests(lake)
    claim = make_lease(f"run-{number:02}", "backfill", FINGERPRINT)
    counts: Counter[str] = Counter()
    with board.hold(claim, lambda claim: claim) as renew, tempfile.TemporaryDirectory() as folder:
        others = board.await_peers(claim, renew) if looks_at_claims else []
        theirs = [other.run_id for other in others]
        work = WorkList(found, table.read_erasures(), config, Path(folder))
        work.refresh(lambda: table.committed(FINGERPRINT), lambda: manifests.find(theirs, CLAIMED))
        counts["claimed"], counts["skipped"] = work.counts.claimed, work.counts.skipped
        planned = list(work.blocks())
        parts = (columns.recordings_to_table(block) for block in planned)
        list(manifests.write(claim.run_id, parts, parts_schema()))
        renew(replace(claim, state="running"))
        for block in planned:
            result = table.commit(write_staged(make_rows([one.recording_id for one in block], run_id=claim.run_id), lake))
            counts.update(rows=result.rows, already_there=result.already_there, commits=result.files > 0)
    counts.update(expired=board.longest_s >= lake.lease_s, buried=len(board.buried))
    return counts


def parts_schema() -> Any:
    return columns.recordings_to_table([]).schema


@contextmanager
def writers(count: int = WRITERS) -> Iterator[list[Connection]]:
    """The processes, started once, and a pipe to each."""
    context = multiprocessing.get_context("forkserver")  # which imports once for all what each of them needs
    context.set_forkserver_preload([be_writer.__module__])
    start, pipes, processes = context.Barrier(count), [], []
    for number in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=be_writer, args=(number, count, start, theirs), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    yield pipes
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join(timeout=30)


def run_round(pipes: list[Connection], lake: Lake, *, looks_at_claims: bool) -> Counter[str]:
    """All writers at once on ``lake``; raises AssertionError where the table is not what arithmetic says."""
    TranscriptTable(lake)
    for pipe in pipes:
        pipe.send((lake.model_dump(), looks_at_claims))
    answers = [pipe.recv() for pipe in pipes]
    broken = [answer for answer in answers if isinstance(answer, str)]
    assert not broken, broken
    total: Counter[str] = sum(answers, Counter())
    recordings = count_recordings(len(pipes))
    there = done_ids(TranscriptTable(lake))
    assert there == [(f"{one:032x}", 0) for one in range(recordings)], f"{len(there)} rows"
    assert total["rows"] == recordings
    storage = open_storage(lake, TRANSCRIPTS_FOLDER)
    version = DeltaTable(storage.uri, storage_options=dict(storage.delta_options)).version()
    assert version == total["commits"], f"version {version} after {total['commits']} commits"
    planned = len(pipes) * EACH - total["claimed"] - total["skipped"]
    assert planned == total["rows"] + total["already_there"]
    return total


@contextmanager
def make_lakes(store: str) -> Iterator[Any]:
    """A function that makes a new lake on ``store``, each time another."""
    if store == "local":
        with tempfile.TemporaryDirectory() as folder:
            yield lambda: Lake.model_validate({"uri": tempfile.mkdtemp(dir=folder), "lease_s": 3})
    else:
        with run_gcs() if store == "gcs" else run_s3() as emulator:
            yield lambda: emulator.make_lake().model_copy(update={"lease_s": 18.0})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--store", choices=[*STORES, "all"], default="all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    results: dict[str, Any] = {}
    for store in STORES if options.store == "all" else (options.store,):
        started, total = time.monotonic(), Counter[str]()
        with make_lakes(store) as make_lake, writers() as pipes:
            for number in range(options.rounds):
                total.update(run_round(pipes, make_lake(), looks_at_claims=number % 2 == 0))
                if number % 10 == 9:
                    print(f"{store}: {number + 1} rounds, {time.monotonic() - started:.0f} s", flush=True)
        results[store] = {"rounds": options.rounds, "seconds": round(time.monotonic() - started), **total}
        show(results)
        if options.out is not None:
            asked = {"writers": WRITERS, "recordings": count_recordings(WRITERS)}
            document = {"machine": describe_machine(), **asked, "stores": results}
            options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def show(results: dict[str, Any]) -> None:
    names = ("rounds", "rows", "commits", "claimed", "skipped", "already_there", "expired", "buried", "seconds")
    table = Table("store", *names, title=f"{WRITERS} writers, {count_recordings(WRITERS)} recordings, {EACH} asked of each")
    for store, result in results.items():
        table.add_row(store, *(str(result.get(name, 0)) for name in names))
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
