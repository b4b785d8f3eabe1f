"""Read recordings again, without the model, and show whose rows lost sound.

    dictalake recheck ./lake
    dictalake recheck gs://lake/speech --processes 16
    dictalake backfill ./archive ./lake --retry lost    then transcribe those again

Rows that an older loader made may be of less sound than there is: a run never does them again by itself. This compares each of
them with what is read today and writes what it finds into the lake, where --retry lost and the view `incomplete` read it. Stop
it at any moment; run the same command again to resume. No row changes.

The recordings are read where their rows say. Give the keys archive.* and limits.* of your runs, best by --config.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_format, read_config
from dictalake.errors import ConfigError


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE [options]"
    parser.exit_codes[3] = "some rows lost sound or may have, or could not be compared"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument("--processes", type=int, metavar="N", help="how many recordings are decoded at once; default: the CPUs")
    parser.add_argument(
        "--again",
        action="store_true",
        help="also check again rows known to lack sound; their files may have been replaced",
    )
    add_format(parser)
    parser.add_config((*LAKE_KEYS, "archive.storage_options", "limits.lost_ratio", "logs.format"))


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. dictalake recheck ./lake")
    if arguments.processes is not None and arguments.processes < 1:
        raise ConfigError("--processes: give a number from 1 on")
    from dictalake.cli.recheck import recheck_lake

    return recheck_lake(config, arguments.processes, again=arguments.again, form=arguments.format)
