"""Transcribe your own recordings: files, folders, or both. Show the first texts and where all of them are.

    dictalake transcribe dictation.wav
    dictalake transcribe ./monday ./tuesday/0001.dcm --lake ./lake
    dictalake transcribe ./recordings --config medasr

The transcripts go into a lake, a folder of tables: by default ./dictalake-lake. Run the same command again and it transcribes
only what is new. Without --config it uses the small model that comes with dictalake, which is good for a first try.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import CommandParser, collect_overrides, read_config
from dictalake.cli.run_options import add_retry, read_retry
from dictalake.errors import ConfigError

_KEYS = (
    *("acoustic.model", "acoustic.device", "decoding.lm", "decoding.hotwords", "archive.include", "limits.duration_h"),
    *("ray.cpus", "logs.format"),
)
_NAMES_RECORDINGS = {"archive.uri", "archive.manifest", "archive.inventory"}


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} PATH... [--lake FOLDER] [options]"
    parser.exit_codes[3] = "finished; some recordings failed"
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a file or folder with recordings, or gs://… or s3://…")
    parser.add_argument("--lake", metavar="FOLDER", help="where the transcripts go; default ./dictalake-lake")
    add_retry(parser)
    parser.add_config(_KEYS)


def run(arguments: argparse.Namespace) -> int:
    if not arguments.paths:
        raise ConfigError("name a file or folder with recordings, e.g. dictalake transcribe ./recordings")
    if given := _NAMES_RECORDINGS & {key for key, _ in collect_overrides(arguments)}:
        raise ConfigError(f"--{min(given)}: the recordings are those of PATH; use dictalake backfill to name them by keys")
    from dictalake.cli.own_recordings import choose_lake, find_place

    places = [find_place(path) for path in arguments.paths]
    config, retry = read_config(arguments), read_retry(arguments)
    lake = config.lake.model_copy(update={"uri": choose_lake(config.lake.uri, places)})
    from dictalake.cli.transcribe import transcribe_places

    return transcribe_places(config.model_copy(update={"lake": lake}), places, arguments, retry)
