"""Find words in the transcripts of a lake, and show where they stand.

    dictalake search ./lake 'pneumothorax AND NOT "no pneumothorax"'
    dictalake search ./lake 'specialty:cardiology AND stenosis' --limit 50 --format json
    dictalake search ./lake --by-meaning 'blood clot in the lung'

Give plain words (any of them), "phrases", AND, OR, NOT and parentheses; recorded_month:2026-03, specialty:… and recording_id:…
narrow the search. It finds all forms of a word (fracture finds fractures). The index is a folder (--index, by default in your
cache folder) that holds transcripts: patient data. Each search first brings it up to date with the lake.

With --by-meaning the words need not be there: transcripts are found by the vectors that dictalake embed has put into the lake,
each by its nearest passage. Give a short sentence; the score is a cosine, 1 for the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_format, add_raw_csv, read_config
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError

if TYPE_CHECKING:
    from dictalake.lake.search import Hit

WITHOUT_PANDAS = True


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE 'WORDS' [options]"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument("words", nargs="?", metavar="WORDS", help="what to find, in quotation marks")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="show at most N transcripts; default 10")
    parser.add_argument("--index", type=Path, metavar="FOLDER", help="folder of the index; default: below your cache folder")
    parser.add_argument("--by-meaning", action="store_true", help="find what means the same; run dictalake embed LAKE first")
    add_format(parser, "csv")
    add_raw_csv(parser)
    parser.add_config((*LAKE_KEYS, "embedding.model"))


def run(arguments: argparse.Namespace) -> int:
    if arguments.words is None:  # the one word is what to find; the lake is named by lake.uri
        arguments.lake, arguments.words = None, arguments.lake
    config = read_config(arguments)
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. dictalake search ./lake")
    if not arguments.words:
        raise ConfigError("give the words to find in quotation marks, dictalake search LAKE 'left wrist'")
    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit}: must be 1 or more")
    if arguments.by_meaning and arguments.index:
        raise ConfigError("--index: --by-meaning uses no index, the vectors are in the lake; leave one of them out")
    from dictalake.cli.search import WRITERS, write_csv

    hits = _find_meaning(config, arguments) if arguments.by_meaning else _find_words(config.lake, arguments)
    if arguments.format == "csv":
        write_csv(hits, is_raw=arguments.raw_csv)
    else:
        WRITERS[arguments.format](hits)
    return 0


def _find_words(lake: Lake, arguments: argparse.Namespace) -> list[Hit]:
    from dictalake.lake.search import TextIndex, default_folder

    assert lake.uri is not None
    index = TextIndex(lake, arguments.index or default_folder(lake.uri))
    refreshed = index.refresh()
    if refreshed.added or refreshed.removed:
        print(f"index: {refreshed.added} transcripts added, {refreshed.removed} removed", file=sys.stderr)
    return index.search(arguments.words, arguments.limit)


def _find_meaning(config: Config, arguments: argparse.Namespace) -> list[Hit]:
    from dictalake.cli.embed import search_by_meaning

    return search_by_meaning(config, arguments.words, arguments.limit)
