"""What the command lines of all commands have in common: the parser, its help, and the configuration keys as options.

A command's parser declares every key of the configuration as ``--section.key VALUE``. Its help shows the keys that people set
for this command; ``--help-all`` shows all of them. Nothing heavy is imported here: help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from dictalake import logs
from dictalake.config.load import Key, list_keys, load_config, refuse_unknown
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError

# What a positional argument of this name sets.
POSITIONALS = {"archive": "archive.uri", "lake": "lake.uri", "manifest": "archive.manifest"}
LAKE_KEYS = ("lake.uri", "lake.storage_options")
RUN_KEYS = (
    *("archive.uri", "archive.include", "archive.manifest", "lake.uri"),
    *("acoustic.kind", "acoustic.model", "acoustic.device", "decoding.kind", "decoding.lm", "decoding.hotwords"),
    *("ray.cpus", "logs.format"),
)
_EXIT_CODES = {
    0: "done",
    1: "the command failed, or the storage did; run it again",
    2: "an option or a key of the configuration is wrong",
}
_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}
_STOPPED = {130: "stopped with Ctrl-C", 143: "stopped by SIGTERM"}


class CommandParser(argparse.ArgumentParser):
    """The parser of one command. Errors are ConfigErrors of one line; options and positional arguments may be mixed."""

    def __init__(self, prog: str, description: str = "", **options: Any) -> None:
        options = {"formatter_class": _Formatter, "allow_abbrev": False, "add_help": False, **options}
        super().__init__(prog=prog, description=description.strip(), **options)
        self.command = prog.removeprefix("dictalake ")
        self.exit_codes = dict(_EXIT_CODES)
        self.set_defaults(command=self.command, config=None, overrides=[])
        self.add_argument("-h", "--help", action=_ShowHelp, help="show this help and exit")

    def add_config(self, shown: Collection[str]) -> None:
        """Takes ``--config`` and every configuration key; the help shows those of ``shown``."""
        self.add_argument("--help-all", action=_ShowHelp, help="show every configuration key too, and exit")
        self.add_argument("--config", metavar="FILE", help="a YAML file, or the name of one that ships with dictalake")
        group = self.add_argument_group("configuration keys (--help-all shows all of them)")
        for key in list_keys():
            action = group.add_argument(f"--{key.name}", action=_SetKey, full_help=_describe(key))
            action.help = _describe(key) if key.name in shown else argparse.SUPPRESS

    def format_help(self) -> str:
        codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in sorted({**self.exit_codes, **_STOPPED}.items()))
        self.epilog = f"exit codes:\n{codes}"
        return super().format_help()

    def show_all_keys(self) -> None:
        """From here on the help shows every key."""
        for action in self._actions:
            if isinstance(action, _SetKey):
                action.help = action.full_help

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """``overrides`` of the result are the configuration keys, as (key, text). Raises ConfigError."""
        arguments, rest = self.parse_known_intermixed_args(argv)
        for text in rest:
            if text.startswith("-"):
                self._refuse_option(text.partition("=")[0])
        if rest:
            raise ConfigError(f"{rest[0]!r} is one argument too many; put words with spaces between them into quotation marks")
        return arguments

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.removeprefix("argument "))

    def _refuse_option(self, option: str) -> NoReturn:
        own = [text for action in self._actions if not isinstance(action, _SetKey) for text in action.option_strings]
        has_keys = any(isinstance(action, _SetKey) for action in self._actions)
        if has_keys and "." in option:
            refuse_unknown(option.removeprefix("--"), "the command line")
        keys = [text for action in self._actions if isinstance(action, _SetKey) for text in action.option_strings]
        close = difflib.get_close_matches(option, own, n=1) or difflib.get_close_matches(option, keys, n=1)
        hint = f"did you mean {close[0]}?" if close else f"dictalake {self.command} --help lists the options"
        raise ConfigError(f"unknown option {option}: {hint}")


class _SetKey(argparse.Action):
    """``--section.key VALUE``: one more of ``overrides``."""

    def __init__(self, option_strings: Sequence[str], dest: str, full_help: str, **options: Any) -> None:
        super().__init__(option_strings, "overrides", default=argparse.SUPPRESS, metavar="VALUE", **options)
        self.full_help = full_help

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        namespace.overrides = [*namespace.overrides, (self.option_strings[0].removeprefix("--"), values)]


class _ShowHelp(argparse.Action):
    """``--help`` and ``--help-all``."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        if option_string == "--help-all":
            parser.show_all_keys()
        parser.print_help()
        parser.exit()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of 80 columns and more; the description keeps its lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def _describe(key: Key) -> str:
    default = "" if key.default is None or key.default in ((), {}) else f"; default {_show(key.default)}"
    return f"{key.description} ({key.allowed}{default})".replace("%", "%%")


def _show(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def make_parser(command: str, description: str, shown: Collection[str] = RUN_KEYS) -> CommandParser:
    """A parser that takes the whole configuration."""
    parser = CommandParser(f"dictalake {command}", description)
    parser.add_config(shown)
    return parser


def add_lake(parser: CommandParser, usage: str = "", shown: Collection[str] = LAKE_KEYS) -> None:
    """The positional argument LAKE, and the keys with which a lake is opened."""
    parser.usage = f"{parser.prog} LAKE {usage}[options]"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_config(shown)


def add_format(parser: CommandParser, *formats: str) -> None:
    """``--format``: by default a table for people."""
    parser.add_argument("--format", choices=("table", *formats, "json"), default="table", help="default: table")


def add_raw_csv(parser: CommandParser) -> None:
    """``--raw-csv``: a CSV for programs alone."""
    parser.add_argument(
        "--raw-csv",
        action="store_true",
        help="leave texts of a CSV as they are; else an apostrophe precedes what a spreadsheet would run as a formula",
    )


def add_csv_style(parser: CommandParser) -> None:
    """--raw-csv, and what Excel needs to open a CSV by a double click."""
    add_raw_csv(parser)
    parser.add_argument("--excel", action="store_true", help="begin a CSV with the mark by which Excel knows UTF-8")
    parser.add_argument(
        "--separator",
        choices=tuple(_SEPARATORS),
        default="comma",
        help="of a CSV; Excel in much of Europe splits at a semicolon; default: comma",
    )


def read_separator(arguments: argparse.Namespace) -> str:
    return _SEPARATORS[arguments.separator]


def read_config(arguments: argparse.Namespace, default: str | None = None) -> Config:
    """The configuration of a command; ``default`` is the shipped one that is taken without ``--config``. From here on the
    command's lines go where ``logs`` in it says. Raises ConfigError.
    """
    config = load_config(arguments.config or default, collect_overrides(arguments))
    logs.set_up(arguments.command, config.logs.format, config.logs.file)
    return config


def collect_overrides(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """The keys of the command line, those that positional arguments set too. Raises ConfigError where both set one."""
    given: Mapping[str, str] = dict(arguments.overrides)
    overrides = list(arguments.overrides)
    for name, key in POSITIONALS.items():
        value = getattr(arguments, name, None)
        if value is None:
            continue
        if key in given:
            raise ConfigError(f"{key} is given twice: as {value} and with --{key} {given[key]}; leave one of them out")
        overrides.append((key, str(value)))
    return overrides


def read_lake(arguments: argparse.Namespace) -> Lake:
    """The lake that a command reads. Raises ConfigError where none is named."""
    lake = read_config(arguments).lake
    if lake.uri is None:
        raise ConfigError(f"lake.uri is missing: say which lake, e.g. dictalake {arguments.command} ./lake")
    return lake


def existing_file(text: str) -> Path:
    """A type for argparse: a file that is there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text}: there is no such file")
    return Path(text)
