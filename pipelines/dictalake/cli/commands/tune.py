"""Find the decoder's settings and the confidence's calibration on your own labelled recordings.

    dictalake tune dev.csv --held-out test.csv --out tuned/
    dictalake backfill ./archive ./lake --config tuned/tuned.yaml

The manifests have the columns `uri` and `reference`. The acoustic model runs once over each recording; its emissions are kept
in --out, with the references, and decoded again with other values of decoding.lm_weight, word_score, beam_width and, where
decoding.hotwords names a file, hotword_weight. Then the words' confidence is fitted. --out gets tuned.yaml, tuning.json,
trials.parquet and tuning.html. The figures of the first manifest are those it was tuned on: only --held-out says how good the
settings are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dictalake.cli.options import CommandParser, add_format, read_config
from dictalake.errors import ConfigError

_SHOWN = ("archive.manifest", "archive.uri", "acoustic.model", "acoustic.device", "decoding.lm", "decoding.hotwords")


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} MANIFEST --out FOLDER [options]"
    parser.add_argument("manifest", nargs="?", metavar="MANIFEST", help="labelled recordings (or --archive.manifest)")
    parser.add_argument("--held-out", metavar="MANIFEST", help="labelled recordings that are not tuned on")
    # as evaluation/normalise.py names them; it takes a second to import
    parser.add_argument("--normaliser", default="medasr", help="what counts as an error: medasr (default), multimed, whisper …")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="decoders; default all cores")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the results and the emissions")
    add_format(parser)
    parser.add_config(_SHOWN)


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    if config.decoding.kind != "beam":
        raise ConfigError(f"decoding.kind = {config.decoding.kind}: only beam has settings to tune")
    from dictalake.cli.tune import tune
    from dictalake.evaluation.normalise import NORMALISERS

    if arguments.normaliser not in NORMALISERS:
        raise ConfigError(f"--normaliser {arguments.normaliser}: is none of {', '.join(NORMALISERS)}")
    return tune(config, arguments)
