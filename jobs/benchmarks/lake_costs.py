"""Measures what a lake costs as it grows: the seconds and the peak memory of a commit, an erasure, a start, and so on.

    python -m jobs.benchmarks lake-costs --out FILE.json [--recordings 1000,100000,1000000,10000000] [--only commit,forget]

Two lakes of each size: ``written`` has a file for each block of 64 recordings, as runs leave them, and ``compacted`` files of
50,000 rows, as ``dictalake compact`` makes them. Most files are hard links to a few real ones, so a lake of ten million
recordings takes no room; their contents are read all the same. Each measure is a process of its own.

- commit: the median of 40 commits of 4 files, after the run has looked at the table; and the longest, with a checkpoint
- start: opening the table and reading the key of every row that is done, as a run with nothing to do does
- forget: erasing one recording, by its URI
- compact: a day's 2,000 recordings in their own month, with all upkeep of the table
- runs: reading the records of 2,000 runs
- count: ``SELECT count(*) FROM history``
- search: bringing the index up to date, and one search (up to 100,000 recordings)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from deltalake import DeltaTable
from rich.console import Console

from dictalake.cli.tables import Column, print_table
from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.log_tail import LogTail
from dictalake.lake.maintenance import compact
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.query import connect
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import make_transcripts
from dictalake.lake.search import TextIndex
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.query import NEW, make_block, make_pool, put

_BLOCK, _COMPACTED = 64, 50_000  # rows of a file
_MONTHS, _RUNS, _DAY, _COMMITS = 60, 2_000, 2_000, 40
_KINDS = ("written", "compacted")
_MOST_FOR_SEARCH = 100_000
_ADDS = 5_000  # in a commit of the synthetic log
_FORGOTTEN = "gs://archive/forgotten.wav"
_DONE = "done"  # a file beside a lake that is complete


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks lake-costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", default="1000,100000,1000000,10000000")
    parser.add_argument("--kinds", default=",".join(_KINDS), help="written, compacted or both")
    parser.add_argument("--only", help="some of the measures")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures; those that it has already stay")
    parser.add_argument("--folder", type=Path, help="keep the lakes here, and use those that are there")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "LAKE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        return measure(*options.measure)
    results: list[dict[str, Any]] = []
    if options.out is not None and options.out.exists():
        results = json.loads(options.out.read_text(encoding="utf-8"))["costs"]
    with tempfile.TemporaryDirectory(prefix="dictalake-bench-") as temporary:
        folder = options.folder or Path(temporary)
        for recordings in map(int, options.recordings.split(",")):
            for kind in options.kinds.split(","):
                lake = make_lake(folder, recordings, kind)
                for name in options.only.split(",") if options.only else MEASURES:
                    if name != "search" or recordings <= _MOST_FOR_SEARCH:
                        found = run(name, lake) | {"recordings": recordings, "lake": kind, "measure": name}
                        results = [one for one in results if key(one) != key(found)] + [found]
                        show(results)
                        write_result({"bench": "lake-costs", "costs": results}, options.out)
    return 0


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    return result["measure"], result["lake"], result["recordings"]


def run(name: str, lake: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "jobs.benchmarks.lake_costs", "--measure", name, str(lake)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RunError(f"the measure {name} ended with exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(results: list[dict[str, Any]]) -> None:
    sizes = sorted({one["recordings"] for one in results})
    table = {(one["measure"], one["lake"], one["recordings"]): one for one in results}
    rows = []
    for name in MEASURES:
        for kind in _KINDS:
            cells = [table.get((name, kind, size)) for size in sizes]
            if any(cells):
                rows.append(
                    (name, kind, *("" if one is None else f"{one['seconds']:.3g} s, {one['peak_mb']} MB" for one in cells))
                )
    Console().rule()
    print_table(["measure", "lake", *(Column(f"{size:,}", is_number=True) for size in sizes)], rows)


def describe(cell: dict[str, Any] | None) -> str:
    return "" if cell is None else f"{cell['seconds']:.3g} s, {cell['peak_mb']} MB"


def make_lake(folder: Path, recordings: int, kind: str) -> Path:
    """The lake of one size, with a log that names all its files."""
    root = folder / f"{kind}-{recordings}"
    if (root / _DONE).exists():
        return root
    lake = Lake.model_validate({"uri": str(root)})
    rows = _BLOCK if kind == "written" else min(_COMPACTED, recordings)
    table, storage = TranscriptTable(lake), open_storage(lake, TRANSCRIPTS_FOLDER)
    log = LogTail(storage, DeltaTable(storage.uri))
    pool = make_pool()
    originals = [file for number in range(4) for file in write_staged(make_rows(pool, number, rows), lake)]
    for version, adds in enumerate(batched(link(root, originals, recordings // rows), _ADDS)):
        if not log.append([file.to_add() for file in adds], {NEW: version}):
            raise RunError("somebody else writes to the synthetic lake")
        log.advance(1)
    DeltaTable(storage.uri).create_checkpoint()
    log_of_runs = RunLog(lake)
    start = datetime(2021, 1, 1, tzinfo=UTC)
    for numbers in batched(range(_RUNS), 100):
        log_of_runs.append(
            *(RunRecord(run_id=f"r{n}", event="finished", at=start + timedelta(hours=n), ok=1000) for n in numbers)
        )
    table.committed(NEW)  # else the commit would read every key
    table.commit(write_staged(make_forgotten(), lake))
    (root / _DONE).touch()
    return root


def make_rows(pool: Any, seed: int, rows: int, month: int = 0) -> Any:
    return make_block(pool, np.random.default_rng(seed), month, rows)


def batched(values: Iterable[Any], count: int) -> Iterator[list[Any]]:
    iterator = iter(values)
    while batch := list(islice(iterator, count)):
        yield batch


def make_forgotten() -> Any:
    row = {"recording_id": uuid.uuid4().hex, "status": "ok", "run_id": "r", "attempt": 0, "source": {"uri": _FORGOTTEN}}
    return make_transcripts([{**row, "fingerprint": NEW, "recorded_month": "2020-01"}])


def link(root: Path, originals: list[StagedFile], count: int) -> Iterator[StagedFile]:
    """``count`` files over the months, each a hard link to one of ``originals``."""
    for number in range(count):
        month = f"{2021 + number * 5 // max(count, 1)}-{number % 12 + 1:02}"
        original = originals[number % len(originals)]
        path = f"fingerprint={NEW}/recorded_month={month}/part-{uuid.uuid4().hex}.zstd.parquet"
        target = root / TRANSCRIPTS_FOLDER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(root / TRANSCRIPTS_FOLDER / original.path, target)
        yield replace(original, path=path, recorded_month=month)


def measure(name: str, folder: str) -> int:
    lake = Lake.model_validate({"uri": folder})
    started = time.perf_counter()
    found = MEASURES[name](lake)
    found.setdefault("seconds", time.perf_counter() - started)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({name: round(value, 5) for name, value in found.items()} | {"peak_mb": peak_kb // 1024}))
    return 0


def commit_some(lake: Lake) -> dict[str, float]:
    table, pool = TranscriptTable(lake), make_pool().slice(0, 200)
    table.committed(NEW)
    staged = [
        [file for part in range(4) for file in write_staged(make_rows(pool, 10 + 4 * number + part, 16, month=3), lake)]
        for number in range(_COMMITS)
    ]
    seconds = []
    for files in staged:
        started = time.perf_counter()
        table.commit(files)
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "longest": max(seconds), "mean": statistics.fmean(seconds)}


def start(lake: Lake) -> dict[str, float]:
    rows = TranscriptTable(lake).committed(NEW).scanner(cache_metadata=False)
    return {"rows": sum(batch.num_rows for batch in rows.to_batches())}


def forget_one(lake: Lake) -> dict[str, float]:
    receipt = forget(lake, Subjects(uris=(_FORGOTTEN,)))
    TranscriptTable(lake).commit([])
    return {"rows": sum(receipt.rows.values())}


def compact_a_day(lake: Lake) -> dict[str, float]:
    table, pool = TranscriptTable(lake), make_pool()
    for number in range(_DAY // _BLOCK):
        day = put(make_rows(pool, 1_000 + number, _BLOCK), "recorded_month", [["2026-01"] * _BLOCK])
        table.commit(write_staged(day, lake))
    started = time.perf_counter()
    compact(lake.model_copy(update={"file_mb": 4}))
    return {"seconds": time.perf_counter() - started}


def read_runs(lake: Lake) -> dict[str, float]:
    return {"rows": RunLog(lake, must_exist=True).read().num_rows}


def count(lake: Lake) -> dict[str, float]:
    (row,) = connect(str(lake.uri)).execute("SELECT count(*) FROM history").fetchall()
    return {"rows": row[0]}


def search(lake: Lake) -> dict[str, float]:
    index = TextIndex(lake, Path(str(lake.uri)) / "index")
    started = time.perf_counter()
    index.refresh()
    refreshed = time.perf_counter()
    index.search("fracture", 10)
    return {"seconds": time.perf_counter() - refreshed, "refresh": refreshed - started}


MEASURES: dict[str, Callable[[Lake], dict[str, float]]] = {
    "commit": commit_some,
    "start": start,
    "forget": forget_one,
    "runs": read_runs,
    "count": count,
    "search": search,
    "compact": compact_a_day,
}

if __name__ == "__main__":
    sys.exit(main())
