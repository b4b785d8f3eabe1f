"""Open the pages on which people hear, check and correct the transcripts of a lake.

    dictalake review ./lake
    dictalake review ./lake --archive.storage_options '{...}' --no-browser
    dictalake review --add-user anna --review.users users.txt
    dictalake review ./lake --host review.hospital.example --review.users users.txt --review.tls_cert cert.pem \\
        --review.tls_key key.pem

On this machine alone, whoever has the printed address may look. Other machines need a certificate and log in. The sound comes
from the archive, by the same keys as in a run; without it the pages work in silence. Corrections are written into the lake, and
so is who opened which recording (review.access_log). It runs until you stop it.
"""

from __future__ import annotations

import argparse
from getpass import getpass
from pathlib import Path

from dictalake.cli.options import CommandParser, read_config
from dictalake.errors import ConfigError

_SHOWN: tuple[str, ...] = (
    "lake.uri",
    "lake.storage_options",
    "archive.storage_options",
    "review.port",
    "review.user",
    "review.users",
)
_SHOWN += ("review.tls_cert", "review.tls_key", "review.names", "review.access_log")


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE [options]"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open nothing")
    parser.add_argument("--host", metavar="ADDRESS", help="address to serve at (review.host); default 127.0.0.1")
    parser.add_argument("--add-user", metavar="NAME", help="ask for a password and write NAME into review.users; serve nothing")
    parser.add_config(_SHOWN)


def run(arguments: argparse.Namespace) -> int:
    if arguments.host is not None:
        arguments.overrides = [*arguments.overrides, ("review.host", arguments.host)]
    if arguments.add_user is not None:
        return _add_user(arguments)
    config = read_config(arguments)
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. dictalake review ./lake")
    from dictalake.review.server import ReviewServer

    server = ReviewServer(config)
    print(f"Open {server.address}\nEverything on these pages is patient data. Ctrl-C ends them.", flush=True)
    server.run(opens_browser=not arguments.no_browser)
    return 0


def _add_user(arguments: argparse.Namespace) -> int:
    named = dict(arguments.overrides).get("review.users")
    if named is None:
        raise ConfigError("--add-user: say which file with --review.users FILE")
    from dictalake.review.sessions import add_user

    password = getpass(f"Password for {arguments.add_user}: ")
    if password != getpass("Again: "):
        raise ConfigError("--add-user: the passwords differ")
    add_user(Path(named), arguments.add_user, password)
    return 0
