"""``dictalake COMMAND``: finds the command, runs it, and turns errors into one clear line and an exit code.

0 all ok · 3 finished, some recordings failed · 2 bad configuration · 1 the run itself failed · 130 Ctrl-C · 143 SIGTERM

This module knows the commands by name alone. A command's module in ``cli/commands`` declares its arguments
(``add_arguments``) and does its work (``run``); it is imported when the command is chosen, and imports what is heavy in
``run``, so help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import atexit
import difflib
import importlib
import importlib.metadata
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from dictalake import stops

if TYPE_CHECKING:
    from dictalake.cli.options import CommandParser

GROUPS = {
    "Transcribe": {
        "transcribe": "transcribe your own files or folders and show the texts",
        "demo": "transcribe the embedded demo archive and show the result",
        "backfill": "transcribe everything in an archive that is not yet in the lake",
        "nightly": "transcribe what is new, for a scheduler; prints one line, or none",
        "doctor": "check what a run needs on this machine and say what to fix",
        "config": "show the effective configuration and where each value comes from",
    },
    "Look into a lake": {
        "query": "ask a question in SQL; answer as a table, CSV, JSON, Parquet or Arrow",
        "export": "write transcripts as CSV, JSON lines, SRT, WebVTT, TextGrid or CTM",
        "search": "find words in the transcripts, or what means the same",
        "review": "hear, check and correct transcripts in the browser",
        "extract": "read transcripts with a language model: findings, drugs, values",
        "embed": "give transcripts the vectors that search --by-meaning looks at",
        "runs": "show which runs are at work and what the last ones did",
        "report": "write an HTML page about a run or the whole lake",
        "reproduce": "transcribe recordings again and compare with their rows",
        "recheck": "read recordings again and show whose rows lost sound",
        "schema": "document the columns, check the schema, upgrade an older lake",
    },
    "Care for a lake": {
        "promote": "make a fingerprint production: what the view transcripts shows",
        "compare": "say what a promotion would change: words, terms, confidence",
        "compact": "merge small files and remove those out of use",
        "forget": "erase recordings from a lake for good",
    },
    "Evaluate and train": {
        "corrections": "export what people corrected, and say how good the lake is",
        "evaluate": "score configurations on recordings with reference texts",
        "evaluate-extraction": "score what a language model extracts from labelled texts",
        "tune": "find decoder settings and calibrate confidence on labelled recordings",
        "finetune": "train a CTC model on labelled audio",
        "build-lm": "build the n-gram language model from text",
        "write-dictations": "write synthetic dictation texts",
        "synthesize": "read texts aloud with text-to-speech voices",
        "lengthen": "join short utterances into long dictations",
    },
    "Help": {
        "help": "show the help of a command",
        "completion": "print the completion script for bash or zsh",
    },
}
COMMANDS = {name: summary for group in GROUPS.values() for name, summary in group.items()}
RESUMABLE = {"transcribe", "demo", "backfill", "nightly", "extract", "embed", "compact", "forget"}
EXIT_OK, EXIT_RUN_FAILED, EXIT_BAD_CONFIG, EXIT_SOME_FAILED = 0, 1, 2, 3
_STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGHUP)
RESUME = f"stopped; {stops.RESUME}"
_CLOSED = "standard output is closed, so there is nowhere to print to"
_BENCH = "the benchmarks are not installed with dictalake: in a checkout run python -m jobs.benchmarks NAME"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command line ``argv``, by default this program's."""
    is_program = argv is None
    arguments = sys.argv[1:] if argv is None else list(argv)
    # Before anything imports Ray or transformers: no reports home, no chatter.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(make_root_parser().format_help(), end="")
        return EXIT_OK if arguments else EXIT_BAD_CONFIG
    if arguments[0] == "--version":
        if arguments[1:]:
            print(f"dictalake --version: {arguments[1]!r} is one argument too many", file=sys.stderr)
            return EXIT_BAD_CONFIG
        if sys.stdout is None:
            print(f"dictalake --version: {_CLOSED}", file=sys.stderr)
            return EXIT_RUN_FAILED
        print(f"dictalake {importlib.metadata.version('dictalake')}")
        return EXIT_OK
    name = arguments[0]
    if name not in COMMANDS:
        print(f"dictalake{' bench' if name == 'bench' else ''}: {explain_unknown(name)}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    stops.forget()
    signal.signal(signal.SIGTERM, stops.handle)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stops.handle)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # a terminal that closes; nohup has it ignored
        signal.signal(signal.SIGHUP, stops.handle)
    if sys.stdout is None and name not in RESUMABLE:  # closed, and what this command is for is what it prints
        sys.stdout = ClosedOutput()
    exit_code = _run_safely(name, arguments[1:], is_program=is_program)
    if is_program and getattr(sys.modules.get(f"dictalake.cli.commands.{name}"), "LEAVES_READS", False):
        _end_process(exit_code)
    return exit_code


def _end_process(exit_code: int) -> None:
    """Ends this process without the end of its libraries. A question that needs no more of a lake leaves reads of Arrow under
    way: they come back to threads that are gone by then, and the process crashed in one case of ten after its answer.

    Where standard output cannot be written, it returns: Python says so.
    """
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        return
    atexit._run_exitfuncs()  # folders for temporary files
    os._exit(exit_code)


class ClosedOutput(io.TextIOBase):
    """Standard output of a process that was started with it closed: Python would print into nothing and call it a success."""

    def write(self, text: str) -> int:
        self._refuse()

    @property
    def buffer(self) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        from dictalake.errors import RunError

        raise RunError(_CLOSED)


def run_command(name: str, argv: Sequence[str], *, is_program: bool = False) -> int:
    """The exit code of a command. Raises DictalakeError, and SystemExit where help was asked for."""
    module = find_command(name)
    arguments = make_command_parser(name).parse(argv)
    if is_program and getattr(module, "WITHOUT_PANDAS", False):
        from dictalake.cli.lean_imports import leave_pandas_out

        leave_pandas_out()
    return int(module.run(arguments))


def find_command(name: str) -> ModuleType:
    return importlib.import_module(f"dictalake.cli.commands.{name.replace('-', '_')}")


def make_command_parser(name: str) -> CommandParser:
    """The parser of a command, with its help and all its options."""
    from dictalake.cli.options import CommandParser

    module = find_command(name)
    parser = CommandParser(f"dictalake {name}", module.__doc__ or "")
    module.add_arguments(parser)
    return parser


def make_root_parser(*, with_commands: bool = False) -> argparse.ArgumentParser:
    """The parser of ``dictalake`` itself; ``with_commands`` imports every command and takes its arguments in."""
    lines = [f"\n{title}:\n" + "\n".join(f"  {n:<17} {what}" for n, what in group.items()) for title, group in GROUPS.items()]
    root = argparse.ArgumentParser(
        prog="dictalake",
        usage="dictalake COMMAND [options]     dictalake help COMMAND",
        description="Turns an archive of medical dictations into a lake of transcripts.\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="store_true", help="show the version and exit")
    if with_commands:
        from dictalake.cli.options import CommandParser

        subparsers = root.add_subparsers(prog="dictalake", metavar="COMMAND", parser_class=CommandParser)
        for name, summary in COMMANDS.items():
            module = find_command(name)
            parser = subparsers.add_parser(name, help=summary, description=module.__doc__ or "")
            module.add_arguments(parser)
            parser.show_all_keys()
    return root


def _run_safely(name: str, argv: Sequence[str], *, is_program: bool) -> int:
    """Every import is in here: Ctrl-C may come while they are under way."""
    try:
        return _run_and_explain(name, argv, is_program=is_program)
    except BrokenPipeError:  # whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_OK
    except SystemExit as stop:
        if stop.code not in _STOPPED:
            raise
        exit_code = stop.code
    except KeyboardInterrupt:
        exit_code = 130
    return _end(name, RESUME if name in RESUMABLE else "stopped", exit_code)


def _run_and_explain(name: str, argv: Sequence[str], *, is_program: bool) -> int:
    from dictalake.errors import ConfigError, DictalakeError

    try:
        with stops.converted():
            return run_command(name, argv, is_program=is_program)
    except ConfigError as error:
        return _end(name, str(error), EXIT_BAD_CONFIG)
    except DictalakeError as error:
        reason = getattr(error, "reason", None)
        return _end(name, str(error), EXIT_RUN_FAILED, **({"reason": reason} if reason else {}))


def _end(name: str, line: str, exit_code: int, **fields: str) -> int:
    from dictalake import logs

    def show(text: str) -> None:
        print(text, file=sys.stderr)

    logs.log_event("failed", f"dictalake {name}: {line}", show, logs.ERROR, exit_code=exit_code, **fields)
    return exit_code


def explain_unknown(name: str) -> str:
    """What to type instead of a command that does not exist."""
    if name == "bench":
        return _BENCH
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"commands are {', '.join(COMMANDS)}"
    return f"unknown {'option' if name.startswith('-') else 'command'} {name}: {hint}"


if __name__ == "__main__":
    sys.exit(main())
