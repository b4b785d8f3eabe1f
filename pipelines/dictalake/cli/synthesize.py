"""Reads texts aloud: draws voice, speed, level and pauses, writes the WAV files and their manifest."""

from __future__ import annotations

import argparse
import csv
import itertools
import multiprocessing
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import soundfile

from dictalake.errors import ConfigError
from dictalake.training.voices import SAMPLE_RATE_HZ, VOICES, SynthesisError, Voice, spoken, synthesize, synthesize_many

VOICE_BY_NAME = {voice.name: voice for voice in VOICES}
CHUNK_TEXTS = 16
PROGRESS_EVERY_S = 30.0


@dataclass(frozen=True)
class Reading:
    """One text with all that chance decided about it: ``words`` is what the voice reads, ``peak_dbfs`` how loud."""

    id: str
    text: str
    specialty: str
    voice: Voice
    words: str
    speed: float
    peak_dbfs: float

    @property
    def uri(self) -> str:
        """Named by all that decides the samples, so that a changed text or voice is never paired with an old file."""
        drawn = f"{self.voice.name}\n{self.words}\n{self.speed}\n{self.peak_dbfs}"
        return f"audio/{self.id}-{blake2b(drawn.encode(), digest_size=4).hexdigest()}.wav"


@dataclass(frozen=True)
class Outcome:
    reading: Reading
    duration_s: float = 0.0
    error: str | None = None


def read_texts_aloud(options: argparse.Namespace) -> int:
    """Makes what is missing in the folder ``options.out``; 1 where a voice could not read some text. Raises ConfigError."""
    options.voices = _weights(options.voices) if options.voices else {voice: 1.0 for voice in VOICES if not voice.held_out}
    readings = _plan(options)
    (options.out / "audio").mkdir(parents=True, exist_ok=True)
    missing = [reading for reading in readings if not (options.out / reading.uri).exists()]
    print(f"{len(readings)} texts, {len(readings) - len(missing)} already read", flush=True)

    failed = _read_aloud(missing, options.out, options.workers)
    written = _write_manifest(readings, options.out)
    print(f"{options.out / 'manifest.csv'}: {written} files")
    for outcome in failed:
        print(f"failed: {outcome.reading.id}: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


def _weights(given: str) -> dict[Voice, float]:
    weights = {}
    for part in given.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            weights[_voice(name)] = float(weight or 1)
        except ValueError as error:
            raise ConfigError(f"--voices {part.strip()}: {error}") from None
    return weights


def _voice(name: str) -> Voice:
    if name not in VOICE_BY_NAME:
        raise ValueError(f"no voice is called {name!r}; there are {', '.join(VOICE_BY_NAME)}")
    return VOICE_BY_NAME[name]


def _plan(options: argparse.Namespace) -> list[Reading]:
    """Every text with its voice, speed, level and words, all drawn from ``seed`` and ``id``."""
    readings = {}
    with options.texts.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            where = f"{options.texts}, row {line}"
            if not re.fullmatch(r"\w[\w.-]*", row["id"]):
                raise ConfigError(f"{where}: the id {row['id']!r} cannot name a file: use letters, digits, _ . -")
            if row["id"] in readings:
                raise ConfigError(f"{where}: the id {row['id']!r} comes twice")
            rng = random.Random(f"{options.seed}:{row['id']}")
            voice = rng.choices(list(options.voices), weights=list(options.voices.values()))[0]
            try:
                voice = _voice(row["voice"]) if row.get("voice") else voice
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from error
            readings[row["id"]] = Reading(
                id=row["id"],
                text=row["text"],
                specialty=row["specialty"],
                voice=voice,
                speed=rng.uniform(options.speed_min, options.speed_max),
                peak_dbfs=rng.uniform(-20.0, -3.0),
                words=spoken(row["text"], rng),
            )
    if len({reading.voice.held_out for reading in readings.values()}) > 1:
        raise ConfigError("training and held-out voices in one run: make the evaluation set in a run of its own")
    return list(readings.values())


def _chunks(readings: list[Reading]) -> list[tuple[Reading, ...]]:
    """Chunks of one voice each, the voices taking turns so that no slow one is left for the end."""
    by_voice: dict[str, list[Reading]] = {}
    for reading in readings:
        by_voice.setdefault(reading.voice.name, []).append(reading)
    turns = itertools.zip_longest(*(_split(of_voice) for of_voice in by_voice.values()))
    return [chunk for turn in turns for chunk in turn if chunk]


def _split(readings: list[Reading]) -> Iterator[tuple[Reading, ...]]:
    for start in range(0, len(readings), CHUNK_TEXTS):
        yield tuple(readings[start : start + CHUNK_TEXTS])


def _read_aloud(readings: list[Reading], out: Path, workers: int) -> list[Outcome]:
    """Writes the missing WAV files; returns what failed."""
    failed: list[Outcome] = []
    files, speech_s, started = 0, 0.0, time.monotonic()
    reported = started

    def report() -> None:
        took_s = time.monotonic() - started
        progress = f"{files} of {len(readings)} files, {speech_s / 3600:.2f} h"
        print(f"{progress}, {speech_s / max(took_s, 1e-3):.0f} x real time, {len(failed)} failed", flush=True)

    with multiprocessing.Pool(workers) as pool:
        jobs = [(chunk, out) for chunk in _chunks(readings)]
        for outcomes in pool.imap_unordered(_read_chunk, jobs):
            failed += [outcome for outcome in outcomes if outcome.error]
            files += sum(not outcome.error for outcome in outcomes)
            speech_s += sum(outcome.duration_s for outcome in outcomes)
            if time.monotonic() - reported >= PROGRESS_EVERY_S:
                reported = time.monotonic()
                report()
    if readings:
        report()
    return failed


def _read_chunk(job: tuple[tuple[Reading, ...], Path]) -> list[Outcome]:
    readings, out = job
    try:
        texts, speeds = [reading.words for reading in readings], [reading.speed for reading in readings]
        waveforms = synthesize_many(readings[0].voice, texts, speeds)
    except SynthesisError:  # one text of the chunk: find out which
        return [_read_one(reading, out) for reading in readings]
    return [_write_wav(reading, waveform, out) for reading, waveform in zip(readings, waveforms, strict=True)]


def _read_one(reading: Reading, out: Path) -> Outcome:
    try:
        return _write_wav(reading, synthesize(reading.voice, reading.words, reading.speed), out)
    except SynthesisError as error:
        return Outcome(reading, error=str(error))


def _write_wav(reading: Reading, waveform: np.ndarray, out: Path) -> Outcome:
    waveform = waveform / np.abs(waveform).max() * 10 ** (reading.peak_dbfs / 20)
    path = out / reading.uri
    part = path.with_suffix(".part")  # a killed run leaves no half file under the final name
    soundfile.write(part, waveform, SAMPLE_RATE_HZ, subtype="PCM_16", format="WAV")
    part.replace(path)
    return Outcome(reading, duration_s=len(waveform) / SAMPLE_RATE_HZ)


def _write_manifest(readings: list[Reading], out: Path) -> int:
    """One row per file that exists, in the order of the texts; returns how many."""
    rows = [
        (reading.uri, reading.text, reading.specialty, reading.voice.name, f"{soundfile.info(path).duration:.3f}")
        for reading in readings
        if (path := out / reading.uri).exists()
    ]
    part = out / "manifest.csv.part"
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("uri", "reference", "specialty", "voice", "duration_s"))
        writer.writerows(rows)
    part.replace(out / "manifest.csv")
    return len(rows)
