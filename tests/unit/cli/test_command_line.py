"""The command line: every command's help, mistakes answered in one line, what is imported, and where values come from."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import dictalake
from dictalake.cli import main as main_module
from dictalake.cli.main import COMMANDS, RESUME, find_command, main, make_command_parser, run_command
from dictalake.cli.options import collect_overrides, make_parser
from dictalake.config.load import list_keys
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError
from dictalake.lake.query import VIEWS
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import make_row

HEAVY = {"pandas", "torch", "transformers", "ray", "matplotlib", "scipy", "librosa"}
LISTING = "import os, sys; from dictalake.cli.main import main; sys.argv = ['dictalake', *sys.argv[1:]]\n"
LISTING += "os._exit = sys.exit\n"
LISTING += "try:\n    code = main()\nexcept SystemExit as end:\n    code = end.code\n"
LISTING += "print(code, *sys.modules, file=sys.stderr)"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = Lake.model_validate({"uri": str(tmp_path_factory.mktemp("small") / "lake")})
    TranscriptTable(place).commit(write_staged(make_transcripts([make_row("a")]), place))
    RunLog(place).append(RunRecord(run_id="r1", event="started", job="nightly", at=datetime.now(UTC), host="node-1"))
    return str(place.uri)


def list_imports(*arguments: str) -> tuple[str, set[str]]:
    """The exit code of a process that runs the command, and what it has imported at its end."""
    done = subprocess.run([sys.executable, "-c", LISTING, *arguments], capture_output=True, text=True, check=True)
    code, *modules = done.stderr.splitlines()[-1].split()
    return code, set(modules)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_its_help_with_its_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", name]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: dictalake {name}")
    assert "exit codes:" in shown
    assert (find_command(name).__doc__ or "").strip().splitlines()[0] in shown
    assert shown.count("--decoding.") <= 5, "only the keys that people set for this command"


def test_help_imports_nothing_heavy() -> None:
    """One process for all commands: none of them has imported what is not there at the end."""
    listing = f"""
import contextlib, sys
from dictalake.cli.main import main
for name in {[*COMMANDS]}:
    with contextlib.suppress(SystemExit):
        main([name, "--help"])
print(*sys.modules, file=sys.stderr)"""
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert all(f"usage: dictalake {name}" in done.stdout for name in COMMANDS)
    modules = set(done.stderr.splitlines()[-1].split())
    assert modules & (HEAVY | {"pyarrow", "numpy", "duckdb", "deltalake"}) == set()


@pytest.mark.parametrize("arguments", [["runs"], ["compact"], ["query", "SELECT * FROM transcripts"]], ids=lambda a: a[0])
def test_commands_that_read_a_lake_import_neither_pandas_nor_torch(lake: str, arguments: list[str]) -> None:
    code, modules = list_imports(arguments[0], lake, *arguments[1:])
    assert code == "0"
    assert modules & HEAVY == set()
    assert "pyarrow" in modules


def test_help_all_shows_keys_that_help_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["backfill", "--help-all"])
    assert end.value.code == 0
    assert f"--{list_keys()[-1].name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["quer"], "dictalake: unknown command quer: did you mean query?"),
        (["--versoin"], "dictalake: unknown option --versoin: commands are"),
        (["help", "rums"], "dictalake help: unknown command rums: did you mean runs?"),
        (["query", "--formt", "csv"], "dictalake query: unknown option --formt: did you mean --format?"),
        (["runs", "--lake.url", "x"], "dictalake runs: unknown key lake.url from the command line: did you mean lake.uri?"),
        (["runs"], "dictalake runs: lake.uri is missing: say which lake, e.g. dictalake runs ./lake"),
        (["runs", "a", "--lake.uri", "b"], "dictalake runs: lake.uri is given twice: as a and with --lake.uri b"),
        (["runs", "a", "--last", "-1"], "dictalake runs: --last -1: must be 1 or more"),
        (["runs", "a", "--last", "0"], "dictalake runs: --last 0: must be 1 or more"),
        (["--version", "x"], "dictalake --version: 'x' is one argument too many"),
        (["runs", "a", "b"], "dictalake runs: 'b' is one argument too many"),
        (["synthesize"], "dictalake synthesize: the following arguments are required: --texts, --out"),
        (
            ["bench"],
            "dictalake bench: the benchmarks are not installed with dictalake: in a checkout run python",
        ),
    ],
)
def test_a_mistake_is_answered_in_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(line)
    assert (printed.out, printed.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(("name", "says"), [("report", "stopped"), ("backfill", RESUME)])
def test_a_signal_that_a_library_swallows_is_no_defect(
    name: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DuckDB turns what a handler of a signal raises into a RuntimeError."""

    def work(*_: object, **__: object) -> int:
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("Query interrupted")

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr("dictalake.cli.main.run_command", work)
    try:
        assert main([name]) == 143
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == f"dictalake {name}: {says}\n"


@pytest.mark.parametrize("module", ["dictalake.errors", "dictalake.cli.options", "dictalake.cli.commands.runs"])
def test_ctrl_c_while_modules_are_imported_ends_in_a_line(module: str) -> None:
    script = f"""
import signal, sys
from dictalake.cli.main import main

class CtrlC:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

assert {module!r} not in sys.modules
sys.meta_path.insert(0, CtrlC())
sys.exit(main(["runs", "lake"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "dictalake runs: stopped\n")


def test_a_version_that_nobody_can_get_is_an_error() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "dictalake", "--version"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    line = "dictalake --version: standard output is closed, so there is nowhere to print to\n"
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.parametrize("place", [find_command("query").__doc__, dictalake.connect.__doc__], ids=["query --help", "connect"])
def test_every_view_is_named(place: str) -> None:
    assert [view for view in [*VIEWS, "history"] if not re.search(rf"\b{view}\b", place.partition("iews")[2])] == []


@pytest.mark.parametrize("arguments", [["config"], ["query", "SELECT 1", "--format", "csv"]], ids=lambda a: a[0])
def test_an_answer_that_nobody_can_get_is_an_error(lake: str, arguments: list[str]) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "dictalake", *arguments, "--lake.uri", lake]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    line = f"dictalake {arguments[0]}: standard output is closed, so there is nowhere to print to\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_the_version_is_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dictalake 0.")


@pytest.mark.parametrize(
    ("name", "argv", "keys"),
    [
        ("backfill", ["./in", "./lake"], {"archive.uri": "./in", "lake.uri": "./lake"}),
        ("nightly", ["--lake.uri", "./lake", "./in"], {"archive.uri": "./in", "lake.uri": "./lake"}),
        ("evaluate", ["refs.csv"], {"archive.manifest": "refs.csv"}),
        ("forget", ["./lake", "--uri", "x"], {"lake.uri": "./lake"}),
        ("runs", ["--lake.uri=./lake"], {"lake.uri": "./lake"}),
    ],
)
def test_places_are_positional_or_keys(name: str, argv: list[str], keys: dict[str, str]) -> None:
    assert dict(collect_overrides(make_command_parser(name).parse(argv))) == keys


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_script_knows_commands_options_and_keys(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("completion", [shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*COMMANDS, "--retry-failed", "--decoding.lm_weight"))


def test_config_says_where_each_value_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("decoding: {beam_width: 4}\narchive: {storage_options: {key: hunter2, token: {a: hunter3}}}\n", "utf-8")
    monkeypatch.setenv("DICTALAKE_RAY_CPUS", "3")
    assert run_command("config", ["--config", str(file), "--lake.uri", "./lake", "--format", "json"]) == 0
    printed = capsys.readouterr().out
    found = {one["key"]: (one["value"], one["origin"]) for one in json.loads(printed)}
    assert list(found) == [key.name for key in list_keys()]
    assert found["decoding.beam_width"] == (4, str(file))
    assert found["ray.cpus"] == (3, "the environment variable DICTALAKE_RAY_CPUS")
    assert found["lake.uri"] == ("./lake", "the command line")
    assert found["acoustic.kind"] == ("ctc", "default")
    assert run_command("config", ["--config", str(file), "--changed"]) == 0
    printed += capsys.readouterr().out
    assert "hunter" not in printed
    assert found["archive.storage_options"][0] == {"key": "(not shown)", "token": "(not shown)"}


def test_a_help_shows_a_dozen_keys_at_most() -> None:
    for name in COMMANDS:
        parser = make_command_parser(name)
        keys = parser.format_help().partition("configuration keys")[2].partition("exit codes")[0]
        assert keys.count("\n  --") <= 12, name


def test_an_option_of_a_parser_is_never_abbreviated() -> None:
    with pytest.raises(ConfigError, match=r"unknown key lake\.ur from the command line"):
        make_parser("runs", "").parse(["--lake.ur", "x"])


def test_a_question_ends_its_process_without_the_end_of_arrow_once_all_is_written_and_cleared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arrow's reads that nobody needs any more came back to threads that were gone, and the process crashed."""
    done = list[str]()
    monkeypatch.setattr(main_module.atexit, "_run_exitfuncs", lambda: done.append("cleared"))
    monkeypatch.setattr(main_module.os, "_exit", lambda code: done.append(f"ended with {code}"))
    monkeypatch.setattr(sys, "argv", ["dictalake", "query", "nowhere", "SELECT 1"])
    assert main_module.main() == 1
    assert done == ["cleared", "ended with 1"]
    assert main_module.main(["query", "nowhere", "SELECT 1"]) == 1  # a caller's process goes on
    assert len(done) == 2
