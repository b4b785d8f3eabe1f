"""Who may import whom: each room of the package names the rooms below it that it uses, and nothing imports upwards."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipelines/dictalake"
FOUNDATIONS = {"records", "errors", "retries", "logs", "html", "terminal", "stops"}
SOUND_TO_TEXT = {"audio", "acoustic", "decoding", "transcript"}
# Each room and the rooms that it may use; all may use the foundations.
ROOMS: dict[str, set[str]] = {
    "config": set(),
    "sandbox": set(),
    "audio": {"config", "sandbox"},
    "acoustic": {"config"},
    "decoding": {"config"},
    "transcript": {"config"},
    "lake": {"config"},
    "archive": {"config", "sandbox", "audio"},  # audio: what a container is
    "training": {"config", "acoustic", "decoding"},  # it makes models
    "observers": {"config", "lake", "transcript"},  # what was committed, and by which run
    "reporting": {"config", "lake", "observers"},
    "workflow": {"config", "sandbox", *SOUND_TO_TEXT, "lake", "archive", "observers", "reporting"},
    "evaluation": {"config", *SOUND_TO_TEXT, "lake", "archive", "observers", "workflow"},
    "review": {"config", "audio", "archive", "lake", "workflow", "evaluation"},
}
ROOMS["extraction"] = {"config", "transcript", "lake", "observers", "workflow", "evaluation"}
ROOMS["embedding"] = {"config", "acoustic", "lake"}
ROOMS["cli"] = {*ROOMS}
# Who may import Ray: the rooms' modules that wire it, and of ``workflow`` all but its stages.
RAY = {"extraction/job.py"}
LOOSE = {*FOUNDATIONS, "__init__", "__main__"}
MOST_LINES = 400


def list_files(*folders: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


FILES = list_files("pipelines", "jobs")


@cache
def imports(source: str, package: str = "") -> list[str]:
    """Dotted names of all that ``source`` imports, inside functions too; relative imports below ``package``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            # ``from dictalake.workflow import columns`` imports dictalake.workflow.columns.
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def room_of(path: Path) -> str:
    """The room of a file of the package; of a loose one its own name."""
    return path.parts[2] if len(path.parts) > 3 else path.stem


def violations(path: Path, source: str) -> list[str]:
    """What ``path`` imports and may not."""
    in_package = path.parts[0] == "pipelines"
    folder = path.relative_to("pipelines").parent if in_package else path.parent
    found = []
    for name in imports(source, ".".join(folder.parts)):
        top, _, rest = name.partition(".")
        if in_package and top == "ray" and not _may_use_ray(path):
            found.append(f"{path}: imports ray")
        if in_package and top in ("jobs", "tests"):
            found.append(f"{path}: imports {name}")
        if in_package and top == "dictalake" and not _may_import(room_of(path), rest.split(".")[0]):
            found.append(f"{path}: imports {name}")
    return found


def _may_use_ray(path: Path) -> bool:
    return (room_of(path) == "workflow" and "stages" not in path.parts) or path.relative_to(
        PACKAGE.relative_to(ROOT)
    ).as_posix() in RAY


def opens_audio(name: str) -> bool:
    """Whether ``name`` leads to a decoder: all of ``audio.formats`` but what tells a container by its first bytes."""
    return name.startswith("dictalake.audio.formats.") and not name.startswith("dictalake.audio.formats.sniff")


def _may_import(mine: str, other: str) -> bool:
    if mine in ("__init__", "__main__"):  # the package's face and its command hand on what the rooms make
        return other in ROOMS or other in FOUNDATIONS
    if mine in FOUNDATIONS:
        return other in FOUNDATIONS
    return other in FOUNDATIONS or other == mine or other in ROOMS[mine]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to("pipelines").with_suffix("").parts).removesuffix(".__init__")


def find_circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_a_file_imports_only_what_lies_below_it() -> None:
    assert [violation for path in FILES for violation in violations(path, read(path))] == []


def test_only_the_sandboxed_door_turns_bytes_into_sound() -> None:
    outside = [path for path in FILES if path.parts[0] == "pipelines" and room_of(path) != "audio"]
    assert [(str(path), name) for path in outside for name in imports(read(path)) if opens_audio(name)] == []


def test_another_door_from_bytes_to_sound_is_found() -> None:
    by_name = imports("from dictalake.audio.formats.read_audio import read_audio")
    by_module = imports("from dictalake.audio.formats import dicom")
    sniffing = imports("from dictalake.audio.formats.sniff import sniff")
    assert [opens_audio(name) for name in (*by_name, *by_module, *sniffing)] == [True, True, False]


def test_every_file_of_the_package_has_its_room() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {module_name(path): path for path in FILES if path.parts[0] == "pipelines"}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = imports(read(path))
        graph[module] = {name if name in modules else name.rpartition(".")[0] for name in names} & set(modules) - {module}
    assert find_circle(graph) == []


def test_a_circle_is_found() -> None:
    assert set(find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {str(path): len(read(path).splitlines()) for path in [*FILES, *list_files("tests")]}
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("lake/table.py", "import ray", "imports ray"),
        ("workflow/stages/load.py", "def f():\n    from ray.data import Dataset", "imports ray"),
        ("lake/table.py", "from dictalake.archive import fetch", "imports dictalake.archive.fetch"),
        ("lake/table.py", "from ..archive.fetch import fetch", "imports dictalake.archive.fetch.fetch"),
        ("decoding/beam.py", "import dictalake.acoustic.ctc", "imports dictalake.acoustic.ctc"),
        ("records.py", "from dictalake.lake import schema", "imports dictalake.lake.schema"),
        ("acoustic/windows.py", "from dictalake.workflow import columns", "imports dictalake.workflow.columns"),
        ("extraction/checking.py", "import ray", "imports ray"),
        ("evaluation/systems.py", "from dictalake.extraction import prompt", "imports dictalake.extraction.prompt"),
        ("workflow/run.py", "from dictalake.evaluation import tuning", "imports dictalake.evaluation.tuning"),
        ("workflow/run.py", "import dictalake.cli.backfill", "imports dictalake.cli.backfill"),
        ("cli/main.py", "import jobs.benchmarks", "imports jobs.benchmarks"),
    ],
)
def test_the_rule_finds_what_breaks_it(path: str, source: str, problem: str) -> None:
    inside = Path("pipelines/dictalake") / path
    assert violations(inside, source) == [f"{inside}: {problem}"]
