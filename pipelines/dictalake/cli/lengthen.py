"""Renders long dictations out of short utterances, and writes their manifest."""

from __future__ import annotations

import argparse
import csv
import functools
from hashlib import blake2b
from pathlib import Path

import soundfile

from dictalake.training.augment import SAMPLE_RATE_HZ
from dictalake.training.lengthen import LongDictation, plan_dictation, render
from dictalake.training.utterances import load_waveform, read_utterances

COLUMNS = ("uri", "reference", "voice", "seconds", "parts")
_KEPT_UTTERANCES = 2000  # of some ten seconds: about a gigabyte


def lengthen(options: argparse.Namespace) -> int:
    """Writes ``audio/`` and ``manifest.csv`` into the folder ``options.out``."""
    utterances = read_utterances(options.manifest, options.most_s, print)
    load = functools.lru_cache(_KEPT_UTTERANCES)(load_waveform)
    lengths = {utterance.path: len(load(utterance.path)) for utterance in utterances}
    (options.out / "audio").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = []
    for number in range(options.count):
        dictation = plan_dictation(utterances, lengths, options.seed, number, options.least_s, options.most_s)
        uri = _uri(dictation, options.seed, number)
        if not (options.out / uri).exists():
            part = (options.out / uri).with_suffix(".part")  # a killed run leaves no half file under the final name
            soundfile.write(part, render(dictation, load), SAMPLE_RATE_HZ, subtype="PCM_16", format="FLAC")
            part.replace(options.out / uri)
        rows.append((uri, dictation.reference, dictation.voice, str(dictation.seconds), dictation.parts_json()))
    _write_manifest(rows, options.out)
    seconds = [float(row[3]) for row in rows]
    print(
        f"{options.out / 'manifest.csv'}: {len(rows)} dictations of {len({row[2] for row in rows})} voices, "
        f"{min(seconds):.0f} to {max(seconds):.0f} s, {sum(seconds) / 3600:.2f} h"
    )
    return 0


def _uri(dictation: LongDictation, seed: int, number: int) -> str:
    """Named by all that decides the samples, so that a changed plan is never paired with an old file."""
    drawn = repr((dictation.peak_dbfs, dictation.noise_dbfs, dictation.noise_seed, dictation.samples, dictation.reference))
    parts = "".join(f"{Path(part.utterance.path).name} {part.start} {part.level_db}\n" for part in dictation.parts)
    return f"audio/long-{seed:03d}-{number:06d}-{blake2b((drawn + parts).encode(), digest_size=4).hexdigest()}.flac"


def _write_manifest(rows: list[tuple[str, ...]], out: Path) -> None:
    part = out / "manifest.csv.part"
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    part.replace(out / "manifest.csv")
