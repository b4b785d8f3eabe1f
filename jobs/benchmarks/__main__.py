"""Measures this machine, with all alternatives in one run; timings live here and never in tests.

    python -m jobs.benchmarks --out DIR [--quick]   transformers' pipeline, a plain loop, our stage and whole jobs, in turns

    python -m jobs.benchmarks NAME:
      account    the cost of the account of time: this tree's loader and an earlier commit's, by turns
      decode     the beam search against pyctcdecode: speed, hotwords, memory and start of workers, same texts
      driver     the driver's own work for each recording and each block
      first-row  seconds until the first row of a run, with our search and with pyctcdecode's, by the state of numba's cache
      holes      word times behind holes: 1,000 recordings of the demo's kinds, whole and with a hole
      jail       the cost of the kernel's jail around a decoder: this tree's loader and an earlier commit's, by turns
      lake-costs what a lake costs as it grows: a commit, a start, an erasure, a compaction, with up to ten million recordings
      load       the cost of the sandbox: the same bytes are decoded in it and outside it, by turns
      long-sound  an hour of MP3 in `dictalake review`: seconds until it can be heard, and until a word of it is
      meaning    search by meaning over 100,000 transcripts: seconds, memory, and ten questions
      memory     peak memory of each kind of process, over a three-hour stereo recording and 10,000 short ones
      node-memory  peak memory of a node while 16 hostile DICOM objects are decoded at once, against what was declared
      query      the questions of infra/queries over a million synthetic rows: seconds and memory
      seams      word errors of long recordings near the seams of their windows, against other ways to cut them
      simulate   ten million recordings on 1 to 64 GPUs, from measured figures: how fast, what limits it, and a sizing table
      start-up   processor seconds until each command shows its help, and of query and runs on a small lake
      review     the pages of `dictalake review` over a million synthetic rows: first byte and memory
      waiting    how busy a GPU is kept by its actor: the real stage with a stand-in device
      windows    word errors of dictations and of conversations by window length, and the signs by which they differ
      words      word errors of our search and pyctcdecode's in pairs, and hotwords found and invented
      resume     a run with nothing left to do: seconds and memory, with 1,000 to 100,000 recordings done

Each prints a table. With --out FILE.json it also writes its figures and the machine's name.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dictalake.errors import ConfigError

BENCHMARKS = (
    "suite",
    "account",
    "decode",
    "driver",
    "first-row",
    "holes",
    "jail",
    "lake-costs",
    "long-sound",
    "load",
    "meaning",
    "memory",
    "node-memory",
    "query",
    "resume",
    "review",
    "seams",
    "simulate",
    "start-up",
    "waiting",
    "windows",
    "words",
)


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    if arguments[0].startswith("--"):
        arguments = ["suite", *arguments]
    if arguments[0] not in BENCHMARKS:
        raise ConfigError(f"{arguments[0]}: no such benchmark; there are {', '.join(BENCHMARKS)}")
    return int(importlib.import_module(f"jobs.benchmarks.{arguments[0].replace('-', '_')}").main(arguments[1:]))


def describe_machine() -> dict[str, Any]:
    """The machine behind a figure: processor, cores, memory, Python."""
    names = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_result(result: Mapping[str, Any], out: Path | None) -> None:
    """Writes ``result`` and the machine as JSON."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"machine": describe_machine(), **result}, indent=1) + "\n", encoding="utf-8")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConfigError as refusal:
        sys.exit(f"jobs.benchmarks: {refusal}")
