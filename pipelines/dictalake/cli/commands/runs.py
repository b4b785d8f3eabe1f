"""Show which runs are at work on a lake, and what the last ones did. The newest comes last.

    dictalake runs ./lake
    dictalake runs ./lake --last 5 --format json

A run that ended without saying so has died; the next run takes up what it had not committed.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import CommandParser, add_format, add_lake, read_lake
from dictalake.errors import ConfigError

WITHOUT_PANDAS = True


def add_arguments(parser: CommandParser) -> None:
    add_lake(parser)
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many runs to show; default 20")
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    lake = read_lake(arguments)
    if arguments.last < 1:
        raise ConfigError(f"--last {arguments.last}: must be 1 or more")
    from dictalake.cli.runs_table import list_runs, show_runs
    from dictalake.cli.tables import print_json
    from dictalake.lake.claims import LeaseStore
    from dictalake.lake.runs import RunLog

    rows = list_runs(RunLog(lake, must_exist=True).read().to_pylist(), LeaseStore(lake).read())[-arguments.last :]
    if arguments.format == "json":
        print_json(rows)
    else:
        show_runs(rows)
    return 0
