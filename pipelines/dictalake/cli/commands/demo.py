"""Transcribe the embedded demo archive, greedy and with the language model, and show what came out.

    dictalake demo
    dictalake demo ./demo-lake

Two of its files are broken on purpose and have no reference. Run it again and it reads the rows from the lake.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import CommandParser, add_format, collect_overrides, read_config
from dictalake.errors import ConfigError


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} [LAKE] [options]"
    parser.exit_codes[0] = "exactly the two broken files failed"
    parser.exit_codes[3] = "other files failed than the two"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="where the transcripts go; default ./demo-lake")
    add_format(parser)
    parser.add_config(("lake.uri", "acoustic.model", "acoustic.device", "decoding.beam_width", "ray.cpus"))


def run(arguments: argparse.Namespace) -> int:
    if any(key.startswith("archive.") for key, _ in collect_overrides(arguments)):
        raise ConfigError("the demo reads its own archive; for your own files use dictalake transcribe or dictalake backfill")
    config = read_config(arguments, default="demo")
    from dictalake.cli.demo import show_demo

    return show_demo(config, arguments.format)
