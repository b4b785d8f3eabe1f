"""Print the script that lets the shell complete commands, options and configuration keys.

    eval "$(dictalake completion bash)"        in ~/.bashrc
    dictalake completion zsh > ~/.zfunc/_dictalake

The script holds everything it needs: pressing TAB starts no program.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import CommandParser


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} (bash | zsh)"
    parser.add_argument("shell", choices=("bash", "zsh"), help="for which shell")


def run(arguments: argparse.Namespace) -> int:
    import shtab

    from dictalake.cli.main import make_root_parser

    print(shtab.complete(make_root_parser(with_commands=True), arguments.shell))
    return 0
