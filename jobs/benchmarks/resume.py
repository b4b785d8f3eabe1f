"""Measures the time and memory of a run that finds nothing to do.

The archives have 1,000, 10,000 and 100,000 recordings, all of them done. The recordings are files of one byte and the rows are
synthetic, but the measured run is real.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.archive.manifest import scan_recordings
from dictalake.config.sections import Config
from dictalake.lake.maintenance import compact
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from dictalake.workflow.identity import identify
from jobs.benchmarks.__main__ import write_result

SIZES = (1_000, 10_000, 100_000)
_PER_FOLDER = 1000
_BLOCK, _FILES_A_COMMIT = 64, 64  # as a run writes them


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks resume", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="recordings in the archive")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the median is shown")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    results: list[dict[str, Any]] = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="bench-resume-") as folder:
            results += measure(size, Path(folder), options.runs)
            show(results, Console(width=110))
    write_result({"bench": "resume", "runs": options.runs, "results": results}, options.out)
    return 0


def measure(size: int, folder: Path, runs: int) -> Iterator[dict[str, Any]]:
    """Makes an archive and a lake in which all of it is done; then measures runs before and after ``compact``."""
    write_archive(folder / "archive", size)
    config = Config.model_validate({"archive": {"uri": str(folder / "archive")}, "lake": {"uri": str(folder / "lake")}})
    fill_lake(config)
    command = [sys.executable, "-m", "dictalake", "backfill"]
    command += [f"--archive.uri={config.archive.uri}", f"--lake.uri={config.lake.uri}"]
    for state in ("as written", "compacted"):
        if state == "compacted":
            compact(config.lake)
        measured = sorted(run_once(command) for _ in range(runs))
        files = len(list((folder / "lake/transcripts").rglob("*.parquet")))
        seconds, megabytes = measured[len(measured) // 2]
        worst_mb = max(memory for _, memory in measured)
        yield {
            "recordings": size,
            "lake": state,
            "files_on_disk": files,
            "seconds": round(seconds, 2),
            "peak_mb": round(megabytes),
            "peak_mb_worst": round(worst_mb),
        }


def write_archive(folder: Path, size: int) -> None:
    for number in range(size):
        if number % _PER_FOLDER == 0:
            (folder / f"{number // _PER_FOLDER:04}").mkdir(parents=True)
        (folder / f"{number // _PER_FOLDER:04}/{number:07}.wav").write_bytes(b"0")


def fill_lake(config: Config) -> None:
    """Writes a row for every recording, in files and commits as runs make them."""
    checkpoint = find_checkpoint(config.acoustic)
    fingerprint = identify(config, checkpoint).fingerprint
    table = TranscriptTable(config.lake)
    table.committed(fingerprint)
    recordings = scan_recordings(config.archive)
    while blocks := [block for _ in range(_FILES_A_COMMIT) if (block := list(islice(recordings, _BLOCK)))]:
        table.commit([file for block in blocks for file in write_staged(make_rows(block, fingerprint), config.lake)])


def make_rows(recordings: Sequence[Recording], fingerprint: str) -> Any:
    text = "No acute fracture of the left wrist. Lungs are clear. " * 10
    return make_transcripts(
        [
            {
                "recording_id": recording.recording_id,
                "status": "ok",
                "run_id": "made-up",
                "attempt": 0,
                "fingerprint": fingerprint,
                "recorded_month": "2026-03",
                "text": text,
                "text_raw": text.lower(),
                "source": {"uri": recording.uri, "version": recording.version, "size_bytes": recording.size_bytes},
                "provenance": {"fingerprint": fingerprint, "transcribed_at": datetime.now(UTC)},
            }
            for recording in recordings
        ]
    )


def run_once(command: Sequence[str]) -> tuple[float, float]:
    """The seconds of a run and its peak resident memory in MB. Raises RuntimeError if it had something to do."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        output.seek(0)
        printed = output.read().decode()
    if process.returncode != 0 or "nothing to do" not in printed:
        raise RuntimeError(f"the run should have found nothing to do; it ended with {process.returncode}: {printed[-500:]}")
    return seconds, usage.ru_maxrss / 1000


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="a run with nothing to do")
    for header in ("recordings", "lake", "files on disk", "seconds", "peak MB", "worst peak MB"):
        table.add_column(header, justify="right")
    for row in results:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
