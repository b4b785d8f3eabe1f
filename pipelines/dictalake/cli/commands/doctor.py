"""Check what a run needs on this machine, with the configuration that it will have, and say what to fix.

    dictalake doctor ./archive ./lake
    dictalake doctor gs://bucket/dictations gs://lake/speech --config medasr

It tries everything: it lists, reads and decodes some recordings, writes an object into the lake and removes it, lets writers
race for the versions of a Delta table there, and runs the model over a second of silence. It makes all checks, also when one
fails. On a cluster, run it where the work is done: every machine needs what is checked here.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import RUN_KEYS, CommandParser, add_format, read_config
from dictalake.cli.run_options import add_places


def add_arguments(parser: CommandParser) -> None:
    add_places(parser)
    del parser.exit_codes[3], parser.exit_codes[1]
    parser.exit_codes[2] = "a check failed, or an option is wrong"
    add_format(parser)
    parser.add_config(RUN_KEYS)


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    from dataclasses import asdict

    from rich.text import Text

    from dictalake.cli.doctor import examine
    from dictalake.cli.doctor_checks import FAIL, OK, WARN
    from dictalake.cli.tables import Column, print_json, print_table

    results = list(examine(config))
    if arguments.format == "json":
        print_json([asdict(result) for result in results])
    else:
        colours = {OK: "green", WARN: "yellow", FAIL: "bold red"}
        prose = [Column(name, may_wrap=True) for name in ("what was found", "what to do")]
        rows = [(one.check, Text(one.state, colours[one.state]), one.what, one.todo) for one in results]
        print_table(["check", "state", *prose], rows)
    return 2 if any(result.state == FAIL for result in results) else 0
