"""What the jail costs when loading: the loader of this tree against that of the last commit without a jail, by turns.

    python -m jobs.benchmarks jail --before 0a4e298 --pairs 24 --out infra/benchmarks/jail.json

Each side is a process of its own with one sandboxed decoder that is kept; only one works at a time. A turn loads the same
files as a run does: dictations of the demo archive's speech, short and usual ones, in five codings. The cost is the median
ratio over the pairs, with the interval that holds the true median with 95 %: of processor time, the caller's and the
decoder's together, and of the clock. Both sides must give the same waveforms.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.account import ROOT, start_side, summarise, unpack
from jobs.benchmarks.load import CODINGS, FILES, LENGTHS_S, write_recordings

MOST_PERCENT = 3.0
KINDS = ("processor", "clock")
# Runs in either tree: reads a folder from a line; answers with milliseconds of the processor and of the clock for a file, and
# a hash of all waveforms.
_SIDE = """
import glob, hashlib, subprocess, sys, time
from dictalake.audio.load import AudioLoader
from dictalake.config.sections import Config
from dictalake.records import Recording
loader = AudioLoader(Config.model_validate({"archive": {"uri": "."}}), children=1)

def processor_ms():
    pids = ["self", *open("/proc/thread-self/children").read().split()]
    for thread in glob.glob("/proc/self/task/*/children"):
        pids += open(thread).read().split()
    files = [file for pid in set(pids) for file in glob.glob(f"/proc/{pid}/task/*/schedstat")]
    return sum(int(open(file).read().split()[0]) for file in files) / 1e6

for line in sys.stdin:
    files = [open(path, "rb").read() for path in sorted(glob.glob(line.strip() + "/*"))]
    sound, used_ms, started = hashlib.sha256(), processor_ms(), time.perf_counter()
    for data in files:
        sound.update(loader.load(data, Recording("r1", "r1", "1", len(data))).waveforms)
    took_ms, used_ms = 1000 * (time.perf_counter() - started), processor_ms() - used_ms
    print(used_ms / len(files), took_ms / len(files), sound.hexdigest(), flush=True)
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks jail", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", default="0a4e298", help="the commit to compare with: the last one without a jail")
    parser.add_argument("--pairs", type=int, default=24, help="turns of each side")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        recordings, before = Path(folder) / "recordings", Path(folder) / "before"
        recordings.mkdir()
        write_recordings(recordings)
        unpack(options.before, before)
        results = measure({"before": before / "pipelines", "after": ROOT / "pipelines"}, recordings, options.pairs)
    table = Table(
        "dictations", "time of", "without a jail", "with it", "cost, and where its median lies", title="loading one file"
    )
    for length, found in results.items():
        for kind in KINDS:
            low, high = found[kind]["interval_percent"]
            table.add_row(
                f"{length}, {LENGTHS_S[length]:g} s",
                kind,
                f"{found[kind]['before_ms']:.2f} ms",
                f"{found[kind]['after_ms']:.2f} ms",
                f"{found[kind]['cost_percent']:+.1f} % ({low:+.1f} to {high:+.1f})",
            )
    Console().print(table)
    same = all(found["same_waveforms"] for found in results.values())
    files = FILES * len(CODINGS)
    write_result(
        {"benchmark": "jail", "before": options.before, "pairs": options.pairs, "files": files, "results": results}, options.out
    )
    return 0 if same and all(found["processor"]["cost_percent"] <= MOST_PERCENT for found in results.values()) else 1


def measure(trees: dict[str, Path], recordings: Path, pairs: int) -> dict[str, Any]:
    sides = {name: start_side(tree, _SIDE) for name, tree in trees.items()}
    took: dict[str, dict[str, list[tuple[tuple[float, float], str]]]]
    took = {length: {name: [] for name in sides} for length in LENGTHS_S}
    try:
        for turn in range(pairs + 1):
            for length in LENGTHS_S:
                for name in list(sides)[:: 1 if turn % 2 else -1]:
                    answer = ask(sides[name], str(recordings / length))
                    if turn:  # the first one warms up
                        took[length][name].append(answer)
    finally:
        for side in sides.values():
            side.communicate()
    return {
        length: {
            **{
                kind: summarise([times[at] for times, _ in found["before"]], [times[at] for times, _ in found["after"]])
                for at, kind in enumerate(KINDS)
            },
            "same_waveforms": len({sound for side in found.values() for _, sound in side}) == 1,
        }
        for length, found in took.items()
    }


def ask(side: subprocess.Popen[str], folder: str) -> tuple[tuple[float, float], str]:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write(folder + "\n")
    side.stdin.flush()
    processor, clock, sound = side.stdout.readline().split()
    return (float(processor), float(clock)), sound


if __name__ == "__main__":
    sys.exit(main())
