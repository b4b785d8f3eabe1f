"""Times the pages of `dictalake review` over a lake of synthetic rows: seconds to the first byte, and memory of the server.

    python -m jobs.benchmarks review --out infra/benchmarks --rows 1000000

The lake is that of the benchmark `query`, without the words of the texts, which no list reads, unless --lake names one. The
server is a process of its own. Each page is asked for again and again by one client: p50 and p95 to the first byte, warm. Then
a run's commit of a thousand rows comes before the first request for the page, and the access log grows by each recording that
is opened. The processor time is the server's for one request: on a machine that others use too, the seconds are theirs as well.
The memory is the server's peak.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.runs import RunLog
from dictalake.lake.staged_files import write_staged
from dictalake.lake.superseded import refresh_superseded
from dictalake.lake.table import TranscriptTable
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.query import MONTHS, NEW, make_block, make_pool, make_runs, put, split

_FRESH = 1000  # rows of a commit


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks review", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=40, help="of each page")
    parser.add_argument("--out", type=Path, required=True, help="folder for review.json")
    parser.add_argument("--lake", type=Path, help="keep the synthetic lake here, or use the one that is there")
    options = parser.parse_args(argv)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="dictalake-bench-") as folder:
        place = options.lake or Path(folder) / "lake"
        if not place.exists():
            make_lean_lake(place, options.rows)
        lake = Lake.model_validate({"uri": str(place)})
        result = _measure(lake, options.requests)
    table = Table("page", title=f"{options.rows:,} rows; server {result['peak_mb']:,} MB, ready after {result['ready_s']} s")
    for name in ("p50 ms", "p95 ms", "processor ms", "first after a commit, s", "processor s"):
        table.add_column(name, justify="right")
    for one in result["pages"]:
        times = (f"{one[name]:.0f}" for name in ("p50_ms", "p95_ms", "busy_ms"))
        table.add_row(one["page"], *times, f"{one['after_commit_s']:.2f}", f"{one['after_commit_busy_s']:.2f}")
    console.print(table)
    write_result({"bench": "review", "rows": options.rows, **result}, options.out / "review.json")
    return 0


def _measure(lake: Lake, requests: int) -> dict[str, Any]:
    started = time.perf_counter()
    command = [sys.executable, "-m", "dictalake", "review", "--lake.uri", str(lake.uri), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            ready_s, ready_busy_s = round(time.perf_counter() - started, 1), round(_read_busy_s(server.pid), 1)
            client = Client(address)
            ids = client.list_recordings()
            pages = {
                "overview": lambda turn: "/",
                "recordings": lambda turn: "/recordings",
                "recordings, filtered": lambda turn: "/recordings?f=specialty~eq~radiology&f=confidence~lt~0.8&sort=newest",
                "recordings, a later page": lambda turn: f"/recordings?after={client.later}",
                "recording": lambda turn: f"/recordings/{ids[turn % len(ids)]}",
                "queue": lambda turn: "/queue",
                "queue, at random": lambda turn: "/queue?sampling=random",
            }
            measured, busy_s = {}, {}
            for name, find in pages.items():
                before_s = _read_busy_s(server.pid)
                measured[name] = [client.time(find(turn)) for turn in range(requests)]
                busy_s[name] = (_read_busy_s(server.pid) - before_s) / requests
            table, pool, rng = TranscriptTable(lake), make_pool(), np.random.default_rng()  # new ids in each run
            after, after_busy_s = {}, {}
            for name, find in pages.items():
                table.commit(write_staged(make_block(pool, rng, 59, _FRESH), lake))
                before_s = _read_busy_s(server.pid)
                after[name] = client.time(find(0))
                after_busy_s[name] = _read_busy_s(server.pid) - before_s
            status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
            peak_mb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024
        finally:
            server.terminate()
    shown = [
        {
            "page": name,
            "p50_ms": round(1000 * float(np.percentile(times, 50)), 1),
            "p95_ms": round(1000 * float(np.percentile(times, 95)), 1),
            "busy_ms": round(1000 * busy_s[name], 1),
            "after_commit_s": round(after[name], 2),
            "after_commit_busy_s": round(after_busy_s[name], 2),
        }
        for name, times in measured.items()
    ]
    return {"ready_s": ready_s, "ready_busy_s": ready_busy_s, "peak_mb": peak_mb, "load": os.getloadavg()[0], "pages": shown}


def _read_busy_s(pid: int) -> float:
    """Processor seconds that a process has taken (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_lean_lake(folder: Path, rows: int) -> None:
    """As ``query.make_lake``, of one model and without words."""
    lake = Lake.model_validate({"uri": str(folder)})
    table, pool, rng = TranscriptTable(lake), make_pool(), np.random.default_rng(0)
    pool = put(pool, "words", pa.array([[]] * pool.num_rows, pool.schema.field("words").type))
    table.committed(NEW)
    for month, share in enumerate(split(rows, MONTHS)):
        table.commit(write_staged(make_block(pool, rng, month, share), lake))
    RunLog(lake).append(*make_runs(rows // MONTHS))
    refresh_superseded(lake)


class Client:
    """One browser without pictures."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=120)
        self._headers: dict[str, str] = {}
        self.later = ""
        self._connection.request("GET", f"{parts.path}?{parts.query}")
        response = self._connection.getresponse()
        response.read()
        self._headers = {"Cookie": (response.getheader("set-cookie") or "").partition(";")[0]}

    def list_recordings(self) -> list[str]:
        """Ids of the first page; remembers where the second begins."""
        text = self.get("/recordings")[1].decode()
        self.later = text.partition("after=")[2].partition('"')[0]
        return [part[:32] for part in text.split('href="/recordings/')[1:]]

    def time(self, path: str) -> float:
        return self.get(path)[0]

    def get(self, path: str, **headers: str) -> tuple[float, bytes]:
        started = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers | headers)
        response = self._connection.getresponse()
        first_s = time.perf_counter() - started
        body = response.read()
        if response.status not in (200, 206):
            raise RunError(f"a page answered {response.status}: {json.dumps(path.partition('?')[0])}")
        return first_s, body


if __name__ == "__main__":
    sys.exit(main())
