"""The command line of jobs that take the whole configuration: ``--config FILE`` and ``--section.key value`` for every key."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dictalake import logs
from dictalake.config.load import list_keys, load_config
from dictalake.config.sections import Config
from dictalake.errors import ConfigError


def make_parser(job: str, description: str) -> argparse.ArgumentParser:
    """A parser that shows every configuration key in its help."""
    keys = "\n".join(
        f"  --{key.name} ({key.allowed}; default {'none' if key.default is None else key.default})\n        {key.description}"
        for key in list_keys()
    )
    parser = argparse.ArgumentParser(
        prog=f"dictalake {job}",
        description=description,
        epilog=f"configuration keys:\n{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="a YAML file, or the name of one that ships with dictalake")
    parser.set_defaults(job_name=job)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """The job's own options, and the configuration keys given as ``--section.key value`` or ``--section.key=value``."""
    arguments, rest = parser.parse_known_args(argv)
    overrides: list[tuple[str, str]] = []
    while rest:
        name = rest.pop(0)
        if not name.startswith("--"):
            raise ConfigError(f"{name!r} on the command line belongs to no option; options are written --section.key value")
        name, equals, value = name.removeprefix("--").partition("=")
        if not equals:
            if not rest:
                raise ConfigError(f"--{name} on the command line has no value")
            value = rest.pop(0)
        overrides.append((name, value))
    return arguments, overrides


def read_config(arguments: argparse.Namespace, overrides: Sequence[tuple[str, str]], default: str | None = None) -> Config:
    """The configuration of a job; ``default`` is the shipped one that is taken without ``--config``. From here on the job's
    lines go where ``logs`` in it says.
    """
    config = load_config(arguments.config or default, overrides)
    logs.set_up(arguments.job_name, config.logs.format, config.logs.file)
    return config
