"""Measures the peak memory of each kind of process in a run, over one three-hour stereo recording and many short ones.

    python -m jobs.benchmarks memory --out memory.json

Each archive has its own whole run, with the embedded model on this machine. Ten times a second the benchmark reads the memory
that a process does not share: resident memory without Ray's object store and libraries. Other keys go to the run.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from rich.console import Console
from rich.table import Table

from dictalake.cli.options import make_parser, read_config
from dictalake.config.sections import Archive, Config, Lake
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow.run import RunSummary, transcribe
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.load import read_demo_speech

SHORT_S = 2.0
# Ray's names of its workers → ours; the decoders are plain Python processes below a load worker
KINDS = {"(Load)": "load", "(Emit)": "emit", "(Decode)": "decode", "(Finish)": "finish"}
ALTERNATIVES = ("sandboxed decoder", "driver", "ray")


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench memory", __doc__ or "")
    parser.add_argument("--hours", type=float, default=3.0, help="length of the long recording")
    parser.add_argument(
        "--short", type=int, nargs="+", default=[1_000, 20_000], help="numbers of short recordings, each in a run of its own"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse(argv)
    config = read_config(arguments, default="demo")
    speech = read_demo_speech()
    cases: dict[str, Callable[[Path], None]] = {
        f"one of {arguments.hours:g} h, stereo": lambda folder: write_long(folder, speech, arguments.hours),
    }
    for count in arguments.short:
        cases[f"{count} of {SHORT_S:g} s"] = partial(write_short, speech=speech, count=count)
    results: dict[str, dict[str, Any]] = {}
    for name, write in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "archive")
            peaks, summary = measure(config, Path(folder))
        results[name] = {"peak_mb": peaks, "ok": summary.ok, "failed": summary.failed, "wall_s": summary.wall_s}
        results[name]["speed"] = summary.audio_s / summary.wall_s
    columns = [*KINDS.values(), *ALTERNATIVES]
    table = Table("recordings", *columns, "rows", "speed", title="peak memory of the largest process of a kind, MB")
    for name, result in results.items():
        peaks = result["peak_mb"]
        cells = [f"{peaks.get(column, 0):.0f}" for column in columns]
        table.add_row(name, *cells, f"{result['ok']} ok, {result['failed']} failed", f"{result['speed']:.0f}x")
    Console().print(table)
    write_result({"benchmark": "memory", "results": results}, arguments.out)
    return 0


def write_long(folder: Path, speech: np.ndarray, hours: float) -> None:
    """Writes one FLAC at 16 kHz whose two channels have different words."""
    folder.mkdir()
    with soundfile.SoundFile(folder / "long.flac", "w", SAMPLE_RATE_HZ, 2, subtype="PCM_16") as file:
        left = int(hours * 3600 * SAMPLE_RATE_HZ)
        while left > 0:
            block = np.stack([speech, np.roll(speech, len(speech) // 2)], axis=1)[:left]
            file.write(block)
            left -= len(block)


def write_short(folder: Path, speech: np.ndarray, count: int) -> None:
    """16-bit WAV at 16 kHz."""
    folder.mkdir()
    size = int(SHORT_S * SAMPLE_RATE_HZ)
    for number in range(count):
        start = number * size * 3 // 7 % (len(speech) - size)
        soundfile.write(folder / f"{number:06}.wav", speech[start : start + size], SAMPLE_RATE_HZ)


def measure(config: Config, folder: Path) -> tuple[dict[str, float], RunSummary]:
    """The peaks in MB by kind of process, and the summary of the run."""
    archive = Archive.model_validate({"uri": str(folder / "archive")})
    config = config.model_copy(update={"archive": archive, "lake": Lake.model_validate({"uri": str(folder / "lake")})})
    with _watching() as peaks:
        summary = transcribe(config)
    return peaks, summary


@contextmanager
def _watching() -> Iterator[dict[str, float]]:
    peaks: dict[str, float] = {}
    done = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not done.wait(0.1):
            for process in [me, *me.children(recursive=True)]:
                try:
                    memory = process.memory_info()
                    title = " ".join(process.cmdline())
                except psutil.Error:
                    continue
                kind = next((name for mark, name in KINDS.items() if mark in title), None)
                if kind is None:
                    decoder = "dictalake.sandbox" in title
                    kind = "driver" if process.pid == me.pid else "sandboxed decoder" if decoder else "ray"
                peaks[kind] = max(peaks.get(kind, 0.0), (memory.rss - memory.shared) / 1e6)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
