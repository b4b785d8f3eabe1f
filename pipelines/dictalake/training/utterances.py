"""Reads labelled recordings for training from a manifest, loads them, and groups them into batches by seconds of audio."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from dictalake.errors import ConfigError
from dictalake.training.augment import SAMPLE_RATE_HZ

SHORTEST_S = 0.2


@dataclass(frozen=True)
class TrainingUtterance:
    """One labelled recording, at most as long as a window."""

    path: str
    reference: str
    duration_s: float
    voice: str = ""


def read_utterances(manifest: Path, max_s: float, report: Callable[[str], None] = lambda line: None) -> list[TrainingUtterance]:
    """Reads a CSV with ``uri`` (a local path, relative to the CSV or absolute) and ``reference``; ``voice`` is optional.

    Recordings longer than ``max_s`` are left out, since CTC training needs utterances that fit the model's window; ``report``
    gets a line with their number. Raises a ConfigError that names the manifest and the row, never the recording or its text.
    """
    utterances, too_long, too_short, unlabelled = [], 0, 0, 0
    try:
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{manifest.name} cannot be read as a CSV file in UTF-8 ({type(error).__name__})") from None
    for number, row in enumerate(rows, start=1):
        if row.get("uri") is None or row.get("reference") is None:
            raise ConfigError(
                f"{manifest.name}: row {number} has no uri or no reference; the first line must name both columns"
            )
        path = manifest.parent / row["uri"]
        try:
            duration_s = soundfile.info(path).duration
        except (soundfile.SoundFileError, OSError) as error:
            raise ConfigError(
                f"{manifest.name}: the recording of row {number} cannot be opened ({type(error).__name__}); training reads "
                "local WAV, FLAC, MP3 and Ogg files: check the path, or convert it"
            ) from None
        too_long += duration_s > max_s
        too_short += duration_s < SHORTEST_S
        unlabelled += not row["reference"].strip()
        if SHORTEST_S <= duration_s <= max_s and row["reference"].strip():
            utterances.append(TrainingUtterance(str(path), row["reference"].strip(), duration_s, row.get("voice") or ""))
    report(
        f"{manifest.name}: {len(utterances)} of {len(rows)} recordings, {sum(u.duration_s for u in utterances) / 3600:.2f} h; "
        f"left out: {too_long} longer than {max_s:g} s, {too_short} shorter than {SHORTEST_S:g} s, {unlabelled} without text"
    )
    if not utterances:
        raise ConfigError(
            f"{manifest.name} holds no labelled recording between {SHORTEST_S:g} and {max_s:g} seconds; cut longer ones"
        )
    return utterances


def load_waveform(path: str) -> np.ndarray:
    """Mono float32 at 16 kHz."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return mono if rate_hz == SAMPLE_RATE_HZ else soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)


def make_batches(
    utterances: Sequence[TrainingUtterance], batch_s: float, rng: random.Random, *, ascending: bool
) -> list[list[int]]:
    """Groups indices of similar length so that longest × count is at most ``batch_s``; in random order unless ascending."""
    order = sorted(range(len(utterances)), key=lambda i: utterances[i].duration_s * rng.uniform(0.9, 1.1))
    batches: list[list[int]] = [[]]
    for index in order:
        longest_s = max([utterances[i].duration_s for i in batches[-1]] + [utterances[index].duration_s])
        if batches[-1] and longest_s * (len(batches[-1]) + 1) > batch_s:
            batches.append([])
        batches[-1].append(index)
    if not ascending:
        rng.shuffle(batches)
    return batches
