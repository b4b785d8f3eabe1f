"""Checks what a run needs on this machine, with the configuration that the run will have, and says what to fix.

    dictalake doctor --config medasr --archive.uri gs://bucket/dictations --lake.uri gs://lake/speech

The checks do what a run does. They list, read and decode some recordings, write an object to the lake and remove it, let
writers race for the versions of a Delta table there, and give the model a second of silence. Every check runs, also when
another one fails. The exit code is 0 when nothing failed and 2 otherwise. On a cluster, run this on the workers: every machine
needs what is checked here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from dictalake.cli.doctor_checks import CHECKS, FAIL, OK, WARN, CheckFailed, CheckResult
from dictalake.cli.options import make_parser, parse, read_config
from dictalake.config.sections import Config
from dictalake.errors import DictalakeError, name_place


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("doctor", __doc__ or "")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments, overrides = parse(parser, argv)
    results = list(examine(read_config(arguments, overrides)))
    if arguments.format == "json":
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        show(results, Console())
    return 2 if any(result.state == FAIL for result in results) else 0


def examine(config: Config) -> Iterator[CheckResult]:
    """Runs every check of CHECKS. A failure says what to do in its own words where it has some, else in those of the check."""
    for name, (check, todo) in CHECKS.items():
        try:
            yield CheckResult(name, OK, check(config))
        except CheckFailed as failure:
            yield CheckResult(name, failure.state, failure.what, failure.todo)
        except DictalakeError as error:
            yield CheckResult(name, FAIL, str(error), todo)
        except (OSError, ValueError, RuntimeError, ImportError, MemoryError) as error:
            message = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0][:200]
            yield CheckResult(name, FAIL, f"{type(error).__name__}: {message}", todo)
        except Exception as error:  # a damaged file can make a library raise anything; the other checks still run
            yield CheckResult(name, FAIL, name_place(error), todo)


def show(results: list[CheckResult], console: Console) -> None:
    table = Table("check", "", "what was found", "what to do")
    colours = {OK: "green", WARN: "yellow", FAIL: "bold red"}
    for result in results:
        state = f"[{colours[result.state]}]{result.state}[/]"
        table.add_row(result.check, state, result.what.replace("[", r"\["), result.todo.replace("[", r"\["))
    (console if console.is_terminal else Console(width=max(console.width, 150))).print(table)


if __name__ == "__main__":
    sys.exit(main())
