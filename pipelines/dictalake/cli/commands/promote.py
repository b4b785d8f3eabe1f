"""Make a fingerprint production: what the view transcripts shows from now on. No row is changed.

    dictalake promote ./lake 6c049c4aa901     show its rows
    dictalake promote ./lake                  show what was promoted, and what is in the lake

Of each recording `transcripts` shows the row of the production fingerprint, else that of the one that was promoted before it,
and so on. Fingerprints that were never promoted are experiments. `dictalake compare` says what a promotion would change.
Promote the old one again to go back.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_format, read_lake

WITHOUT_PANDAS = True


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE [FINGERPRINT] [options]"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument("fingerprint", nargs="?", metavar="FINGERPRINT", help="12 hex digits, as `dictalake runs` shows them")
    add_format(parser)
    parser.add_config(LAKE_KEYS)


def run(arguments: argparse.Namespace) -> int:
    if arguments.fingerprint is None and any(key == "lake.uri" for key, _ in arguments.overrides):
        arguments.lake, arguments.fingerprint = None, arguments.lake  # the one word is the fingerprint
    lake = read_lake(arguments)
    from dictalake.cli.promotions import promote_and_tell, show_promotions

    if arguments.fingerprint is not None:
        promote_and_tell(lake, arguments.fingerprint)
    else:
        show_promotions(lake, arguments.format)
    return 0
