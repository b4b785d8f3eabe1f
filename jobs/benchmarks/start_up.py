"""Measures the processor seconds of each command's help, and of query and runs on a lake of one row.

    python -m jobs.benchmarks start-up [--out FILE.json]

Each process is started three times; the table shows the minimum.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from dictalake.cli.main import COMMANDS
from dictalake.cli.tables import Column, print_table
from dictalake.config.sections import Lake
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.table import TranscriptTable
from jobs.benchmarks.__main__ import write_result

_TIMES = 3


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmarks start-up", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        lake = make_lake(Path(folder) / "lake")
        calls = {f"{name} --help": [name, "--help"] for name in COMMANDS}
        calls |= {"runs LAKE": ["runs", lake], "query LAKE": ["query", lake, "SELECT count(*) FROM transcripts"]}
        seconds = {shown: min(measure(call) for _ in range(_TIMES)) for shown, call in calls.items()}
    rows = [(shown, f"{took:.2f}") for shown, took in seconds.items()]
    print_table(["command", Column("processor seconds", is_number=True)], rows)
    write_result({"processor_s": seconds}, arguments.out)
    return 0


def make_lake(folder: Path) -> str:
    """An empty lake with one run."""
    lake = Lake.model_validate({"uri": str(folder)})
    TranscriptTable(lake)
    RunLog(lake).append(RunRecord(run_id="r1", event="started", job="nightly", at=datetime.now(UTC), host="here"))
    return str(folder)


def measure(call: Sequence[str]) -> float:
    """User and system seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "dictalake", *call], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
