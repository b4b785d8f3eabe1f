"""Show the effective configuration: each key with its value and where the value comes from.

    dictalake config --config medasr --ray.cpus 4
    dictalake config --changed --format json

Later wins: the defaults, the file of --config, environment variables (DICTALAKE_ACOUSTIC_DEVICE), the command line.
Values of storage_options may be secrets and are not shown, only their names.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from dictalake.cli.options import RUN_KEYS, CommandParser, add_format, collect_overrides

HIDDEN = "(not shown)"


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} [--config FILE] [--section.key VALUE] [options]"
    parser.add_argument("--changed", action="store_true", help="leave out the keys that have their defaults")
    add_format(parser)
    parser.add_config(RUN_KEYS)


def run(arguments: argparse.Namespace) -> int:
    from dictalake.cli.tables import Column, print_json, print_table
    from dictalake.config.load import list_keys, load_with_origins
    from dictalake.config.locations import shipped_configs

    config, origins = load_with_origins(arguments.config, collect_overrides(arguments), os.environ)
    values = config.model_dump(mode="json")
    rows = []
    for key in list_keys():
        section, name = key.name.split(".", 1)
        if not arguments.changed or key.name in origins:
            rows.append((key.name, hide_secrets(name, values[section][name]), origins.get(key.name, "default")))
    if arguments.format == "json":
        print_json([{"key": key, "value": value, "origin": origin} for key, value, origin in rows])
    else:
        shipped = f"{shipped_configs()}/"
        columns = [Column("key"), Column("value", may_wrap=True), Column("from", may_wrap=True)]
        print_table(columns, [(key, show_value(value), origin.removeprefix(shipped)) for key, value, origin in rows])
    return 0


def hide_secrets(name: str, value: Any) -> Any:
    """``storage_options`` hold tokens and keys, at any depth: of each only the name is shown."""
    return dict.fromkeys(value, HIDDEN) if name == "storage_options" else value


def show_value(value: Any) -> str:
    """As YAML takes it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {show_value(one)}' for name, one in value.items())}}}"
    return str(value)
