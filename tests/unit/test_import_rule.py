"""Who may import whom: records, errors, config ← rooms ← blocks, stages, progress ← transcribe, cluster ← jobs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUNDATION = {"records", "errors", "section", "observability", "config", "retries", "pages", "scaling"}
STAGES = {
    "blocks",
    "boundary",
    "crashes",
    "loading",
    "pending",
    "progress",
    "sandboxed",
    "stages",
    "tuning",
    "emission_cache",
    "emitting",
    "opened",
    "hearing",
    "identity",
    "run_record",
    "logs",
    "metrics",
    "lineage",
    "comparison",
    "reproduction",
    "report_process",
    "run_report",
}
EDGE = {"transcribe", "cluster"}
ROOMS = {path.name for path in (ROOT / "pipelines").iterdir() if (path / "__init__.py").is_file()}
# These rooms make and judge models, so they may use the rooms that hear and search.
EXCEPTIONS = {("training", "acoustic"), ("training", "decoding"), ("scoring", "acoustic"), ("scoring", "decoding")}
FILES = sorted(path.relative_to(ROOT) for folder in ("pipelines", "jobs") for path in (ROOT / folder).rglob("*.py"))


def imports(source: str, package: str = "") -> Iterator[str]:
    """Dotted names of all that ``source`` imports, inside functions too; relative imports below ``package``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            # ``from pipelines import blocks`` imports pipelines.blocks.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def layer(name: str) -> int:
    """Of a part of ``pipelines``: a file may import from lower layers, and from its own unless that is another room."""
    if name in FOUNDATION:
        return 0
    if name in ROOMS:
        return 1
    return 2 if name in STAGES else 3


def violations(path: Path, source: str) -> list[str]:
    """What ``path`` imports and may not."""
    package = ".".join(path.with_suffix("").parts[:-1])
    found = []
    for name in imports(source, package):
        parts = name.split(".")
        if parts[0] == "ray" and not (path.parts[0] == "jobs" or path.stem in EDGE):
            found.append(f"{path}: imports ray")
        if path.parts[0] == "pipelines" and parts[0] == "jobs":
            found.append(f"{path}: imports {name}")
        if path.parts[0] == "pipelines" and parts[0] == "pipelines" and len(parts) > 1 and parts[1] != "__init__":
            mine, other = Path(path.parts[1]).stem, parts[1]
            room_of_another = layer(mine) == layer(other) == 1 and mine != other and (mine, other) not in EXCEPTIONS
            if layer(other) > layer(mine) or room_of_another:
                found.append(f"{path}: imports {name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_what_lies_below_it(path: Path) -> None:
    if path.name == "__init__.py" and path.parent == Path("pipelines"):
        assert list(imports((ROOT / path).read_text(encoding="utf-8"))) == []
    else:
        assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_every_file_of_pipelines_has_its_place() -> None:
    modules = {path.stem for path in (ROOT / "pipelines").glob("*.py")} - {"__init__"}
    assert modules == FOUNDATION | STAGES | EDGE
    assert {"acoustic", "archive", "audio", "decoding", "lake", "reporting", "scoring", "training", "transcript"} == ROOMS


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("pipelines/lake/table.py", "import ray", "imports ray"),
        ("pipelines/stages.py", "def f():\n    from ray.data import Dataset", "imports ray"),
        ("pipelines/lake/table.py", "from pipelines.archive import fetch", "imports pipelines.archive.fetch"),
        ("pipelines/lake/table.py", "from ..archive.fetch import fetch", "imports pipelines.archive.fetch.fetch"),
        ("pipelines/decoding/beam.py", "import pipelines.acoustic.ctc", "imports pipelines.acoustic.ctc"),
        ("pipelines/records.py", "from pipelines.lake import schema", "imports pipelines.lake.schema"),
        ("pipelines/audio/windows.py", "from pipelines import blocks", "imports pipelines.blocks"),
        ("pipelines/stages.py", "from pipelines import transcribe", "imports pipelines.transcribe"),
        ("pipelines/transcribe.py", "import jobs.backfill", "imports jobs.backfill"),
    ],
)
def test_the_rule_finds_what_breaks_it(path: str, source: str, problem: str) -> None:
    assert violations(Path(path), source) == [f"{path}: {problem}"]
