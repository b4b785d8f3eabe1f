"""Show what the columns of a lake mean: the schema of its tables, as Markdown or JSON.

    dictalake schema                    print the documentation
    dictalake schema --upgrade ./lake   add the columns that a lake of an older version lacks
    dictalake schema --write            in a checkout: write schema.md, schema.json and bigquery/ into infra/
    dictalake schema --check            in a checkout: fail where these are not current, or the schema broke its contract

A new version of the schema only adds columns, and they may be null. So a newer dictalake reads an older lake, and an older one
a newer lake, from version 5 on. To write into a lake, the versions must be the same.
"""

from __future__ import annotations

import argparse
import sys

from dictalake.cli.options import LAKE_KEYS, CommandParser, read_config, read_lake


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} [--format FORMAT | --write | --check | --upgrade LAKE] [options]"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake to upgrade (or --lake.uri)")
    parser.add_argument("--format", choices=("markdown", "json"), default="markdown", help="default: markdown")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="write the files of the checkout")
    action.add_argument("--check", action="store_true", help="exit with 1 unless they are current and the contract is kept")
    action.add_argument("--upgrade", action="store_true", help="add the columns that the lake's tables lack")
    parser.add_config(LAKE_KEYS)


def run(arguments: argparse.Namespace) -> int:
    if arguments.upgrade:
        lake = read_lake(arguments)
        from dictalake.cli.schema import upgrade

        for line in upgrade(lake):
            print(line)
        return 0
    read_config(arguments)
    from dictalake.cli.schema import INFRA, check, render_json, render_markdown, write

    if arguments.check:
        problems = list(check(INFRA))
        for problem in problems:
            print(problem, file=sys.stderr)
        return 1 if problems else 0
    if arguments.write:
        for path in write(INFRA):
            print(f"wrote {path}")
    else:
        print(render_json() if arguments.format == "json" else render_markdown(), end="")
    return 0
