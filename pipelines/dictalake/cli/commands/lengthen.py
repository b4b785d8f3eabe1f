"""Join short utterances into long dictations, to evaluate on lengths that an archive really holds.

    dictalake lengthen --manifest held_out/manifest.csv --out long --count 100 --seed 41
    dictalake lengthen --manifest held_out/manifest.csv --out long --count 20 --least-s 120 --most-s 300

The manifest is a CSV with `uri`, `reference` and `voice`, as dictalake synthesize writes it. Each dictation has one voice,
pauses from 0.2 to 6 s, a noise floor and small differences in level. --out gets audio/<id>-<hash>.flac (16 kHz mono, 16 bits)
and manifest.csv with the columns uri, reference, voice, seconds and parts. parts is a JSON list with [start_s, end_s, index of
the first reference word] for each utterance, so that you can find errors in time. The same seed gives the same files, and
dictation n does not depend on --count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dictalake.cli.options import CommandParser
from dictalake.errors import ConfigError


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} --manifest FILE --out FOLDER [options]"
    parser.add_argument("--manifest", type=Path, required=True, help="CSV with uri, reference and voice")
    parser.add_argument("--out", type=Path, required=True, help="folder for audio/ and manifest.csv")
    parser.add_argument("--count", type=int, default=100, help="how many dictations (default 100)")
    parser.add_argument("--least-s", type=float, default=60.0, help="shortest, in seconds (default 60)")
    parser.add_argument("--most-s", type=float, default=600.0, help="longest, in seconds (default 600)")
    parser.add_argument("--seed", type=int, default=0, help="0 or more")


def run(arguments: argparse.Namespace) -> int:
    options = arguments
    if options.count < 1:
        raise ConfigError(f"--count {options.count}: must be at least 1")
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed}: must be 0 or more")
    if not 0 < options.least_s < options.most_s:
        raise ConfigError(
            f"--least-s {options.least_s:g} --most-s {options.most_s:g}: must be above 0, and the first smaller than the second"
        )
    from dictalake.cli.lengthen import lengthen

    return lengthen(options)
