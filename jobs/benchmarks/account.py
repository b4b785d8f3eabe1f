"""What the account of a recording's time costs: the loader of this tree against that of an earlier commit, by turns.

    python -m jobs.benchmarks account --before 3103c48 --pairs 24 --out infra/benchmarks/account.json

Each side is a process of its own that is kept; only one works at a time. A turn loads all files of one coding: dictations of
the demo archive's speech, undamaged, as 16-bit WAV, FLAC, MP3 and Ogg Opus. The cost is the median ratio of
processor time over the pairs, with the interval that holds the true median with 95 %.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.load import LENGTHS_S, write_recordings

CODINGS = {"WAV": "wav-pcm16", "FLAC": "flac", "MP3": "mp3", "Opus": "ogg-opus"}
ROOT = Path(__file__).parents[2]
MOST_PERCENT = 5.0
# Runs in either tree: reads a pattern of file names from a line, answers with the milliseconds of the processor that loading
# took: on the clock, whatever else the machine does would be counted too.
_SIDE = """
import glob, sys, time
from dictalake.audio.load import load_audio, make_settings
from dictalake.config.sections import Config
settings = make_settings(Config.model_validate({"archive": {"uri": "."}}))
for line in sys.stdin:
    files = [open(path, "rb").read() for path in sorted(glob.glob(line.strip()))]
    started = time.process_time()
    for data in files:
        load_audio(data, "r1", settings)
    print(1000 * (time.process_time() - started) / len(files), flush=True)
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks account", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", default="3103c48", help="the commit to compare with: the last one without the account")
    parser.add_argument("--pairs", type=int, default=24, help="turns of each side")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        recordings, before = Path(folder) / "recordings", Path(folder) / "before"
        recordings.mkdir()
        write_recordings(recordings)
        unpack(options.before, before)
        results = measure({"before": before / "pipelines", "after": ROOT / "pipelines"}, recordings, options.pairs)
    title = f"processor time for a file of {LENGTHS_S['usual']:g} s"
    table = Table("coding", "before", "after", "cost, and where its median lies", title=title)
    for coding, found in results.items():
        low, high = found["interval_percent"]
        table.add_row(
            coding,
            f"{found['before_ms']:.1f} ms",
            f"{found['after_ms']:.1f} ms",
            f"{found['cost_percent']:+.1f} % ({low:+.1f} to {high:+.1f})",
        )
    Console().print(table)
    write_result({"benchmark": "account", "before": options.before, "pairs": options.pairs, "results": results}, options.out)
    return 0 if all(found["cost_percent"] <= MOST_PERCENT for found in results.values()) else 1


def unpack(commit: str, folder: Path) -> None:
    """The package as it was at ``commit``."""
    packed = subprocess.run(["git", "archive", commit, "pipelines"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def measure(trees: dict[str, Path], recordings: Path, pairs: int) -> dict[str, Any]:
    sides = {name: start_side(tree) for name, tree in trees.items()}
    took_ms: dict[str, dict[str, list[float]]] = {coding: {name: [] for name in sides} for coding in CODINGS}
    try:
        for turn in range(pairs + 1):
            for coding, suffix in CODINGS.items():
                for name in list(sides)[:: 1 if turn % 2 else -1]:
                    milliseconds = ask(sides[name], f"{recordings / 'usual'}/*.{suffix}")
                    if turn:  # the first one warms up
                        took_ms[coding][name].append(milliseconds)
    finally:
        for side in sides.values():
            side.communicate()
    return {coding: summarise(found["before"], found["after"]) for coding, found in took_ms.items()}


def start_side(tree: Path, program: str = _SIDE) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tree
    )


def ask(side: subprocess.Popen[str], question: str) -> float:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write(question + "\n")
    side.stdin.flush()
    return float(side.stdout.readline())


def summarise(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    ratios = sorted(new / old for old, new in zip(before, after, strict=True))
    # Of n values, those of these ranks hold the true median between them with 95 %: no shape is assumed.
    rank = int(binom.ppf(0.025, len(ratios), 0.5)) - 1
    low, high = ratios[max(rank, 0)], ratios[min(len(ratios) - 1 - rank, len(ratios) - 1)]
    return {
        "before_ms": round(statistics.median(before), 2),
        "after_ms": round(statistics.median(after), 2),
        "cost_percent": round(100 * (statistics.median(ratios) - 1), 2),
        "interval_percent": [round(100 * (low - 1), 2), round(100 * (high - 1), 2)],
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


if __name__ == "__main__":
    sys.exit(main())
