"""Reads a lake again and again, each time as a newcomer, and holds what it sees against what it saw: nothing may be there
twice, vanish, change or be half there.

python -m tests.chaos_reader LAKE.json REPORT.json      until SIGTERM, or until who started it is gone

LAKE.json has ``uri`` and ``storage_options``; the report is written anew after each look.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.query import open_lake
from tests.commands import ROOT

_ABSENT = "there is no dictalake table"
_LEAST_PAUSE_S = 0.2  # and at least as long as the last look took: the run needs the processors too
_MOST_SENTENCES = 50
_END_S = 120.0


@dataclass
class Report:
    """What was seen. ``different`` counts looks that saw more rows than the one before."""

    reads: int = 0
    before_table: int = 0
    rows: int = 0
    different: int = 0
    violations: int = 0
    sentences: list[str] = field(default_factory=list)
    longest_read_s: float = 0.0
    ended: bool = False


class StallMonitor:
    """Holds each look at a lake against those before."""

    def __init__(self) -> None:
        self.report = Report()
        self._seen: dict[tuple[str, int, str], bytes] = {}
        self._table_was_there = False

    def look(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        """One look with all columns; whatever is wrong with it is counted."""
        started = time.monotonic()
        try:
            table = open_lake(uri, storage_options).to_table()
        except RunError as error:
            if not self._table_was_there and str(error).startswith(_ABSENT):
                self.report.before_table += 1
            else:
                self._complain(f"the table cannot be read: {error}")
        except Exception as error:  # whatever it is, a reader of the lake would have met it
            self._complain(f"the table cannot be read: {type(error).__name__}: {error}")
        else:
            self._table_was_there = True
            self.compare(table)
        self.report.reads += 1
        self.report.longest_read_s = max(self.report.longest_read_s, time.monotonic() - started)

    def compare(self, table: pa.Table) -> None:
        """One state of the table against all earlier ones."""
        rows = table.to_pylist()
        keys = [(row["recording_id"], row["attempt"], row["fingerprint"]) for row in rows]
        for key, times in Counter(keys).items():
            if times > 1:
                self._complain(f"{key[0]} is there {times} times")
        now = {key: blake2b(repr(row).encode(), digest_size=16).digest() for key, row in zip(keys, rows, strict=True)}
        for key, digest in self._seen.items():
            if key not in now:
                self._complain(f"{key[0]} was there and has vanished")
            elif now[key] != digest:
                self._complain(f"{key[0]} has changed")
        for row in rows:
            if not _is_whole(row):
                self._complain(f"{row['recording_id']} is {row['status']} and not whole")
        self.report.different += len(now) > self.report.rows
        self.report.rows = len(now)
        self._seen |= now

    def _complain(self, sentence: str) -> None:
        self.report.violations += 1
        if len(self.report.sentences) < _MOST_SENTENCES:
            self.report.sentences.append(sentence)


def _is_whole(row: Mapping[str, Any]) -> bool:
    if row["status"] == "ok":
        return None not in (row["text"], row["words"], row["quality"]) and row["error"] is None
    return row["status"] == "failed" and row["error"] is not None


class Reader:
    """Runs the reader as a separate process."""

    def __init__(self, lake: Lake, folder: Path) -> None:
        self._report = folder / "reader.json"
        where = folder / "lake.json"
        where.write_text(json.dumps({"uri": lake.uri, "storage_options": lake.storage_options}), encoding="utf-8")
        with (folder / "reader.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos_reader", str(where), str(self._report)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for who started it, who stops it then
            )

    def read_report(self) -> Report:
        """As of the last look."""
        if not self._report.exists():
            return Report()
        return Report(**json.loads(self._report.read_text(encoding="utf-8")))

    def stop(self) -> Report:
        """Lets it look once more, and says what it saw in all."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        finally:
            self.kill()
        return self.read_report()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def main(argv: list[str]) -> int:
    lake, out = json.loads(Path(argv[0]).read_text(encoding="utf-8")), Path(argv[1])
    stop, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    watch = StallMonitor()
    while not watch.report.ended:
        watch.report.ended = stop.is_set()  # the last look is after the signal
        started = time.monotonic()
        watch.look(lake["uri"], lake["storage_options"])
        unfinished = out.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(watch.report)), encoding="utf-8")
        unfinished.replace(out)
        if os.getppid() != parent:
            return 1
        stop.wait(max(_LEAST_PAUSE_S, time.monotonic() - started))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
