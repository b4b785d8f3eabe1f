"""Seconds until the first row of a run with our search and with pyctcdecode's, by the state of numba's cache.

    python -m jobs.benchmarks first-row --out infra/benchmarks/first_row.json
    python -m jobs.benchmarks first-row --rounds 5 --arms warm pyctcdecode

Each run is `dictalake backfill` over the demo archive in a new process. Its clock runs from the start of the process to the
first file of rows. One arm follows the other, and every second round goes the other way; the differences to pyctcdecode are
those within a round. The arms:

    pyctcdecode   the engine before, which compiles nothing
    warm          machine code of an earlier run
    read-only     the same in a folder that the run may only read, as in an image (as root on Linux)
    cold          no machine code yet
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dictalake.cli.tables import Column, print_table
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.whole import until_written

ARMS = ("pyctcdecode", "warm", "read-only", "cold")
# In a namespace of mounts of its own: nobody else sees the folder as read-only.
_READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks first-row", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="dictalake-bench-") as folder:
        result = measure(Path(folder), options.arms, options.rounds)
    rows = [
        (arm, *(f"{value:.1f}" for value in (statistics.median(took), min(took), max(took))))
        for arm, took in result["seconds"].items()
    ]
    print_table(["arm", *(Column(name, is_number=True) for name in ("median s", "min", "max"))], rows)
    for arm, later in result["later_than_pyctcdecode_s"].items():
        print(f"{arm}: {statistics.median(later):+.1f} s against pyctcdecode ({min(later):+.1f} to {max(later):+.1f})")
    write_result({"benchmark": "first-row", **result}, options.out)
    return 0


def measure(folder: Path, arms: list[str], rounds: int) -> dict[str, Any]:
    """Seconds by arm, and the differences to pyctcdecode within rounds."""
    warm = folder / "warm"
    subprocess.run(
        [sys.executable, "-m", "dictalake.decoding.native"], env=_environment(warm), check=True, stdout=subprocess.DEVNULL
    )
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(rounds):
        for arm in arms[:: -1 if turn % 2 else 1]:
            seconds[arm].append(_run(arm, folder, warm, turn))
            print(f"round {turn + 1}, {arm}: {seconds[arm][-1]:.1f} s", file=sys.stderr)
    later = {
        arm: [round(one - other, 2) for one, other in zip(took, seconds["pyctcdecode"], strict=True)]
        for arm, took in seconds.items()
        if "pyctcdecode" in seconds and arm != "pyctcdecode"
    }
    return {
        "seconds": {arm: [round(one, 2) for one in took] for arm, took in seconds.items()},
        "later_than_pyctcdecode_s": later,
    }


def _run(arm: str, folder: Path, warm: Path, turn: int) -> float:
    cache = warm if arm in ("warm", "read-only") else folder / f"{arm}-{turn}"
    engine = "pyctcdecode" if arm == "pyctcdecode" else "native"
    before = ["unshare", "--mount", "sh", "-c", _READ_ONLY, str(warm)] if arm == "read-only" else []
    return until_written(folder / f"lake-{arm}-{turn}", [f"--decoding.engine={engine}"], before, _environment(cache))


def _environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "NUMBA_CACHE_DIR": str(cache)}


if __name__ == "__main__":
    sys.exit(main())
