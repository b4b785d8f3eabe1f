"""Measures what loading costs: a core's time for each format, and that of the sandbox.

    python -m jobs.benchmarks load --runs 7 --out load.json

The recordings are made from the demo archive's speech: short (10 s) and usual (90 s) dictations, as 16-bit WAV, µ-law WAV
at 8 kHz, FLAC, MP3 and Ogg Opus, at 16 kHz and at higher rates. Both sides load one file at a time, with all steps: fetch,
decode, resample, find speech. The cost of a format is the processor time of this process and of the decoders together.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import soxr
from rich.console import Console
from rich.table import Table

from dictalake.archive.fetch import fetch
from dictalake.archive.listing import list_recordings
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.load import AudioLoader, load_audio, make_settings
from dictalake.audio.resample import resample_blocks
from dictalake.config.locations import ASSETS
from dictalake.config.sections import Archive, Config
from dictalake.errors import TranscriptionError
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import Sandbox
from jobs.benchmarks.__main__ import write_result

LENGTHS_S = {"short": 10.0, "usual": 90.0}
CODINGS = {
    "wav-pcm16": ("WAV", "PCM_16", 16_000),
    "wav-pcm16-44k": ("WAV", "PCM_16", 44_100),
    "wav-mulaw": ("WAV", "ULAW", 8_000),
    "flac": ("FLAC", "PCM_16", 16_000),
    "mp3": ("MP3", "MPEG_LAYER_III", 16_000),
    "mp3-44k": ("MP3", "MPEG_LAYER_III", 44_100),
    "ogg-opus": ("OGG", "OPUS", 16_000),
    "ogg-opus-48k": ("OGG", "OPUS", 48_000),
}
FILES = 8  # for each coding and length


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7, help="turns of each side")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder))
        results = {length: measure(Path(folder) / length, options.runs) for length in LENGTHS_S}
        formats = measure_formats(Path(folder) / "usual", options.runs)
    table = Table("dictations", "in this process", "sandboxed", "sandbox costs (median, least, most)", title="loading one file")
    for length, result in results.items():
        costs = [100 * (ratio - 1) for ratio in result["ratios"]]
        table.add_row(
            f"{length}, {LENGTHS_S[length]:g} s",
            f"{result['direct_ms']:.1f} ms",
            f"{result['sandboxed_ms']:.1f} ms",
            f"{statistics.median(costs):+.1f} % ({min(costs):+.1f}, {max(costs):+.1f})",
        )
    Console().print(table)
    costs_table = Table("format", "µs of a core for a second of audio", title="loading, decoders included")
    for coding, cost in formats.items():
        costs_table.add_row(coding, f"{cost:.0f}")
    Console().print(costs_table)
    counts = {"files": FILES * len(CODINGS), "runs": options.runs}
    write_result({"benchmark": "load", **counts, "results": results, "core_us_per_audio_s": formats}, options.out)
    return 0


def write_recordings(folder: Path) -> None:
    """Cuts the demo archive's joined speech into files of each length and coding."""
    speech = read_demo_speech()
    for length, seconds in LENGTHS_S.items():
        (folder / length).mkdir()
        for coding, (container, subtype, rate_hz) in CODINGS.items():
            for number in range(FILES):
                size = int(seconds * SAMPLE_RATE_HZ)
                piece = np.resize(np.roll(speech, -number * size), size)
                if rate_hz != SAMPLE_RATE_HZ:
                    resampled = soxr.resample(piece.astype(np.float32), SAMPLE_RATE_HZ, rate_hz)
                    piece = np.clip(np.rint(resampled), -32_768, 32_767).astype(np.int16)
                soundfile.write(folder / length / f"{number}.{coding}", piece, rate_hz, format=container, subtype=subtype)


def read_demo_speech() -> np.ndarray:
    """int16 ``(samples,)`` at 16 kHz: all readable recordings of the demo archive, one after the other."""
    archive = Archive.model_validate({"uri": str(ASSETS / "demo-archive/recordings")})
    found = []
    for recording in list_recordings(archive):
        try:
            audio = read_audio(bytes(fetch(recording, archive)), recording.recording_id, consume=resample_blocks)
        except TranscriptionError:  # two are broken on purpose
            continue
        found.append(audio.samples[0])
    return np.concatenate(found)


def measure_formats(folder: Path, runs: int) -> dict[str, float]:
    """For each coding the least microseconds of a core for a second of audio: this process and its decoders."""
    config = Config.model_validate({"archive": {"uri": str(folder)}})
    loader, costs = AudioLoader(config), dict.fromkeys(CODINGS, float("inf"))
    by_coding = {
        coding: [one for one in list_recordings(config.archive) if one.uri.endswith(f".{coding}")] for coding in CODINGS
    }
    for turn in range(runs + 1):
        for coding, recordings in by_coding.items():
            before_s = count_processor_s()
            audio_s = sum(loader.load(fetch(one, config.archive), one).duration_s for one in recordings)
            if turn:  # the first one starts the decoders
                costs[coding] = min(costs[coding], 1e6 * (count_processor_s() - before_s) / audio_s)
    return costs


def count_processor_s() -> float:
    """The seconds of a core that this process and its children, the living ones too, have taken."""
    children = psutil.Process().children(recursive=True)
    living = [times.user + times.system for times in (child.cpu_times() for child in children)]
    return time.process_time() + sum(os.times()[2:4]) + sum(living)


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Milliseconds per file on both sides (median over runs), and the ratio of each turn."""
    config = Config.model_validate({"archive": {"uri": str(folder)}})
    recordings = list(list_recordings(config.archive))
    settings = make_settings(config)
    sandbox = Sandbox(load_audio, CallLimits(config.limits.decode_s, config.limits.decode_mb), children=1)
    calls = {"direct": load_audio, "sandboxed": sandbox.call}
    took_ms: dict[str, list[float]] = {side: [] for side in calls}
    for turn in range(runs + 1):
        for side in list(calls)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            for recording in recordings:
                calls[side](bytes(fetch(recording, config.archive)), recording.recording_id, settings)
            if turn:  # the first one warms up
                took_ms[side].append(1000 * (time.perf_counter() - started) / len(recordings))
    sandbox.close()
    ratios = [sandboxed / direct for direct, sandboxed in zip(took_ms["direct"], took_ms["sandboxed"], strict=True)]
    medians = {f"{side}_ms": statistics.median(values) for side, values in took_ms.items()}
    return {**medians, "ratios": ratios, "ratio_median": statistics.median(ratios)}


if __name__ == "__main__":
    sys.exit(main())
