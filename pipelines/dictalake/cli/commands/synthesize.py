"""Read texts aloud: takes a CSV of dictations, writes WAV files and a manifest.

    dictalake synthesize --texts dictations.csv --out synthetic --voices hibari-heart:5,flite-slt,espeak-us-m1

The CSV has the columns id, text, specialty and optionally voice. --out gets audio/<id>-<hash>.wav (16 kHz mono PCM16, peak at a
random -3 to -20 dBFS) and manifest.csv with the columns uri, reference, specialty, voice and duration_s. The seed and the id
alone decide voice, speed, level and pauses. Run it again and it makes only what is missing or has changed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dictalake.cli.options import CommandParser
from dictalake.errors import ConfigError


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} --texts FILE --out FOLDER [options]"
    parser.exit_codes[1] = "some texts could not be read; they are listed"
    parser.add_argument("--texts", type=Path, required=True, help="CSV with id,text,specialty and optionally voice")
    parser.add_argument("--out", type=Path, required=True, help="folder for audio/ and manifest.csv")
    parser.add_argument(
        "--voices",
        metavar="VOICE[:WEIGHT],…",
        help="names with optional weights, hibari-heart:5,flite-slt:1; without it, every training voice alike",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; default: one per core")
    parser.add_argument("--speed-min", type=float, default=0.9)
    parser.add_argument("--speed-max", type=float, default=1.25)


def run(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.speed_min <= arguments.speed_max:
        raise ConfigError("--speed-min must be above 0 and at most --speed-max")
    from dictalake.cli.synthesize import read_texts_aloud

    return read_texts_aloud(arguments)
