"""Show the help of a command.

dictalake help query
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import CommandParser
from dictalake.errors import ConfigError


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} [COMMAND]"
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="without it: the list of commands")


def run(arguments: argparse.Namespace) -> int:
    from dictalake.cli.main import COMMANDS, explain_unknown, make_command_parser, make_root_parser

    if arguments.topic is None:
        print(make_root_parser().format_help(), end="")
    elif arguments.topic not in COMMANDS:
        raise ConfigError(explain_unknown(arguments.topic))
    else:
        print(make_command_parser(arguments.topic).format_help(), end="")
    return 0
