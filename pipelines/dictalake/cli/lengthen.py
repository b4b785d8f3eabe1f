"""Makes long dictations out of short utterances, to evaluate on what an archive really holds.

    dictalake lengthen --manifest held_out/manifest.csv --out long --count 100 --seed 41
    dictalake lengthen --manifest held_out/manifest.csv --out long --count 20 --least-s 120 --most-s 300

The manifest is a CSV with ``uri``, ``reference`` and ``voice``, as ``dictalake synthesize`` writes. Each dictation is of one
voice, with pauses from 0.2 to 6 s, a noise floor and small differences in level (``training/lengthen.py`` says how
they are drawn). Written are ``audio/<id>-<hash>.flac`` (16 kHz mono, 16 bits) and ``manifest.csv`` with the columns
``uri,reference,voice,seconds,parts``; ``parts`` is a JSON list of [start_s, end_s, first reference word index], an entry an
utterance, so that errors can be found in time. The same seed gives the same files; dictation n does not depend on --count.
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
from hashlib import blake2b
from pathlib import Path

import soundfile

from dictalake.errors import ConfigError
from dictalake.training.augment import SAMPLE_RATE_HZ
from dictalake.training.lengthen import LongDictation, plan_dictation, render
from dictalake.training.utterances import load_waveform, read_utterances

COLUMNS = ("uri", "reference", "voice", "seconds", "parts")
_KEPT_UTTERANCES = 2000  # of some ten seconds: about a gigabyte


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    if options.count < 1:
        raise ConfigError(f"--count {options.count}: must be at least 1")
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed}: must be 0 or more")
    if not 0 < options.least_s < options.most_s:
        raise ConfigError(
            f"--least-s {options.least_s:g} --most-s {options.most_s:g}: must be above 0, and the first smaller than the second"
        )
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


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dictalake lengthen", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True, help="CSV with uri, reference and voice")
    parser.add_argument("--out", type=Path, required=True, help="folder for audio/ and manifest.csv")
    parser.add_argument("--count", type=int, default=100, help="how many dictations (default 100)")
    parser.add_argument("--least-s", type=float, default=60.0, help="shortest, in seconds (default 60)")
    parser.add_argument("--most-s", type=float, default=600.0, help="longest, in seconds (default 600)")
    parser.add_argument("--seed", type=int, default=0, help="0 or more")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
