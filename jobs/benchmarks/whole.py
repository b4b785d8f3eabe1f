"""Measures whole jobs as users start them: ``dictalake backfill`` in a new process, greedy and with the language model.

A short and a long archive separate start-up from speed: the speed is the difference in audio divided by the difference in
seconds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dictalake.errors import RunError
from jobs.benchmarks.stages import MINI, write_archive

KINDS = {"job, greedy": "greedy", "job, with LM": "beam"}


def measure_jobs(
    model: Path, folder: Path, lengths_s: tuple[float, float], rounds: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """For each kind of job and round: × real time between the two lengths, and the seconds for start and end."""
    audio_s = {}
    for name, seconds in zip(("short", "long"), lengths_s, strict=True):
        audio_s[name] = write_archive(folder / name, seconds)
    more_s = audio_s["long"] - audio_s["short"]
    result: dict[str, Any] = {"audio_s": audio_s, "speed_x": {k: [] for k in KINDS}, "start_and_end_s": {k: [] for k in KINDS}}
    for turn in range(rounds):
        for kind in list(KINDS)[:: -1 if turn % 2 else 1]:
            took = {
                name: run_job(model, folder / name, folder / f"lake-{turn}-{KINDS[kind]}-{name}", KINDS[kind])
                for name in audio_s
            }
            if took["long"] <= took["short"]:
                raise RunError("the machine is too noisy to measure jobs: the longer one took less time; use longer archives")
            speed = more_s / (took["long"] - took["short"])
            result["speed_x"][kind].append(speed)
            result["start_and_end_s"][kind].append(took["short"] - audio_s["short"] / speed)
            tell(f"{kind}: {speed:.0f} × real time, round {turn + 1} of {rounds}")
    return result


def run_job(model: Path, archive: Path, lake: Path, kind: str) -> float:
    """Seconds from the start of the process to its end. Raises RunError if it does not transcribe everything."""
    settings: Mapping[str, str] = {
        "archive.uri": str(archive),
        "lake.uri": str(lake),
        "acoustic.model": str(model),
        "decoding.kind": kind,
        "decoding.lm": str(MINI / "lm_6.kenlm"),
        "report.write": "false",
    }
    command = [sys.executable, "-m", "dictalake", "backfill", *(f"--{key}={value}" for key, value in settings.items())]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(
            f"a measured job ended with exit code {done.returncode}: {(done.stderr.splitlines() or ['no output'])[-1]}"
        )
    return time.perf_counter() - started


def measure_start(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds from the start of a process to its first row, for the demo archive and for Ray Data with a trivial map."""
    took: dict[str, list[float]] = {"ours": [], "bare_ray": []}
    for turn in range(rounds):
        took["bare_ray"].append(_until_printed([sys.executable, "-c", _BARE_RAY]))
        lake = folder / f"lake-start-{turn}"
        took["ours"].append(until_written(lake))
    return {**took, "difference_s": [ours - bare for ours, bare in zip(took["ours"], took["bare_ray"], strict=True)]}


_BARE_RAY = """
import os
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray, ray.data
ray.init(address="local", include_dashboard=False, log_to_driver=False)
next(iter(ray.data.range(32).map_batches(lambda rows: rows).iter_batches(batch_size=None)))
print("first", flush=True)
"""


def _until_printed(command: list[str]) -> float:
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "first":
            raise RunError("Ray Data did not give a row: is Ray installed?")
        return time.perf_counter() - started


def until_written(
    lake: Path, keys: Sequence[str] = (), before: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> float:
    """Seconds until the first file of rows of the demo; then waits for the job to end. ``before`` starts the command."""
    command = [sys.executable, "-m", "dictalake", "backfill", "--config", "demo", f"--lake.uri={lake}", "--report.write=false"]
    started = time.perf_counter()
    with subprocess.Popen(
        [*before, *command, *keys], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and next((lake / "transcripts").rglob("*.parquet"), None) is None:
            time.sleep(0.02)
        taken = time.perf_counter() - started
        if process.wait() not in (0, 3):  # two of the demo's files are broken on purpose
            raise RunError(f"the demo ended with exit code {process.returncode}")
    return taken
