"""Find words in the transcripts of a lake, and show where they stand.

    dictalake search ./lake 'pneumothorax AND NOT "no pneumothorax"'
    dictalake search ./lake 'specialty:cardiology AND stenosis' --limit 50 --format json

Give plain words (any of them), "phrases", AND, OR, NOT and parentheses; recorded_month:2026-03, specialty:… and recording_id:…
narrow the search. It finds all forms of a word (fracture finds fractures). The index is a folder (--index, by default in your
cache folder) that holds transcripts: patient data. Each search first brings it up to date with the lake.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_format, add_raw_csv, read_lake
from dictalake.errors import ConfigError

WITHOUT_PANDAS = True


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE 'WORDS' [options]"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument("words", nargs="?", metavar="WORDS", help="what to find, in quotation marks")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="show at most N transcripts; default 10")
    parser.add_argument("--index", type=Path, metavar="FOLDER", help="folder of the index; default: below your cache folder")
    add_format(parser, "csv")
    add_raw_csv(parser)
    parser.add_config(LAKE_KEYS)


def run(arguments: argparse.Namespace) -> int:
    if arguments.words is None:  # the one word is what to find; the lake is named by lake.uri
        arguments.lake, arguments.words = None, arguments.lake
    lake = read_lake(arguments)
    if not arguments.words:
        raise ConfigError("give the words to find in quotation marks, dictalake search LAKE 'left wrist'")
    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit}: must be 1 or more")
    from dictalake.cli.search import WRITERS, write_csv
    from dictalake.lake.search import TextIndex, default_folder

    assert lake.uri is not None
    index = TextIndex(lake, arguments.index or default_folder(lake.uri))
    refreshed = index.refresh()
    if refreshed.added or refreshed.removed:
        print(f"index: {refreshed.added} transcripts added, {refreshed.removed} removed", file=sys.stderr)
    hits = index.search(arguments.words, arguments.limit)
    if arguments.format == "csv":
        write_csv(hits, is_raw=arguments.raw_csv)
    else:
        WRITERS[arguments.format](hits)
    return 0
