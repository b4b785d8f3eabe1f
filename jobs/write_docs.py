"""Writes the parts of docs/ that the code knows best, each between two comments of its page.

python -m jobs.write_docs            write them
python -m jobs.write_docs --check    exit with 1 and name the pages that are not current
python -m jobs.write_docs --rooms    count the rooms of the package, the imports between them and the circles
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dictalake.audio.formats.account import REPAIRS
from dictalake.audio.formats.codecs import CODECS
from dictalake.audio.formats.containers import CONTAINERS, NOT_AUDIO, REFUSED
from dictalake.audio.formats.sniff import name_container
from dictalake.config.headerless import USUAL
from dictalake.config.load import Key, list_keys
from dictalake.config.sections import Config
from dictalake.errors import list_failures, list_run_failures
from dictalake.lake.places import OUTSIDE, PLACES
from dictalake.observers.progress import show_stage

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WIDTH = 120


@dataclass(frozen=True)
class Rooms:
    """How a package is divided: its top folders and loose modules, and ``jobs`` beside it, are the rooms."""

    names: frozenset[str]
    imports: frozenset[tuple[str, str]]
    circles: frozenset[frozenset[str]]

    def __str__(self) -> str:
        return f"{len(self.names)} rooms, {len(self.imports)} imports between rooms, {len(self.circles)} import circles"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="write nothing, name the pages that are not current")
    action.add_argument("--rooms", nargs="?", type=Path, const=ROOT / "pipelines/dictalake", help="a package's folder")
    arguments = parser.parse_args(argv)
    if arguments.rooms:
        print(count_rooms(arguments.rooms))
        return 0
    stale = [path for path, text in render_pages().items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        if arguments.check:
            print(f"{path.relative_to(ROOT)} is not current: run python -m jobs.write_docs", file=sys.stderr)
        else:
            path.write_text(render_pages()[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if stale and arguments.check else 0


def render_pages() -> dict[Path, str]:
    """Each page that has generated parts, as it should be. Raises ValueError where a page lacks the place of a part."""
    pages: dict[Path, str] = {}
    for (name, part), render in PARTS.items():
        path = DOCS / name
        text = pages.get(path) or path.read_text(encoding="utf-8")
        begin, end = f"<!-- written by jobs.write_docs: {part} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"{path.name} has no place for {part}: {begin.strip()} … {end}")
        pages[path] = f"{before}{begin}\n{render().strip()}\n\n{end}{after}"
    return pages


def render_keys() -> str:
    sections: dict[str, list[Key]] = {}
    for key in list_keys():
        sections.setdefault(key.name.partition(".")[0], []).append(key)
    lines = []
    for section, keys in sections.items():
        kind = Config.model_fields[section].annotation
        lines += [f"### {section}", "", *_wrap((kind.__doc__ or "").split("\n\n")[0].replace("``", "`")), ""]
        for key in keys:
            default = "" if key.default in (None, (), {}) else f"; default {_show(key.default)}"
            lines += _wrap(f"- `{key.name}` ({key.allowed}{default}): {_escape(key.description)}", "  ")
        lines.append("")
    return "\n".join(lines)


def render_failures() -> str:
    lines = []
    for failure in list_failures():
        again = "A new try may succeed." if failure.retryable else "A new try fails again until you change something."
        stages = [_name_stage(stage) for stage in failure.stage.split(", ")]
        stage = "Any stage" if failure.stage == "any" else f"Stage {', '.join(stages)}"
        lines += [f"### {failure.reason}", "", f"{stage}. {again}", ""]
        lines += _wrap(f"- **What happened:** {failure.meaning}", "  ")
        lines += [*_wrap(f"- **What to do:** {failure.advice}", "  "), ""]
    return "\n".join(lines)


def render_run_failures() -> str:
    lines = []
    for kind in list_run_failures():
        lines += [f"### {kind.reason}", "", *_wrap(f"- **What happened:** {kind.meaning}", "  ")]
        lines += [*_wrap(f"- **What to do:** {kind.advice}", "  "), ""]
    return "\n".join(lines)


def _name_stage(stored: str) -> str:
    shown = show_stage(stored)
    return stored if shown == stored else f"{shown} (`{stored}` in the lake)"


def render_repairs() -> str:
    lines = []
    for word, repair in REPAIRS.items():
        lines += [f"### {word}", "", *_wrap(f"- **What was found:** {repair.meaning}.", "  ")]
        lines += [*_wrap(f"- **What to do:** {repair.advice}.", "  "), ""]
    return "\n".join(lines)


def render_tree() -> str:
    """Every folder of the package with the first sentence about it and its modules."""
    tracked = subprocess.run(["git", "ls-files", "pipelines"], cwd=ROOT, capture_output=True, text=True, check=True)
    folders: dict[Path, list[str]] = {}
    for path in sorted(Path(line) for line in tracked.stdout.splitlines() if line.endswith(".py")):
        if (ROOT / path).is_file():
            folders.setdefault(path.parent.relative_to("pipelines"), []).append(path.stem)
    lines = ["```"]
    for folder, modules in folders.items():
        depth = len(folder.parts) - 1
        lines.append(f"{'  ' * depth}{folder.name}/".ljust(20) + _about(folder))
        names = [name for name in modules if not name.startswith("__")]
        indent = " " * (2 * depth + 4)
        lines += textwrap.wrap(" ".join(names), WIDTH, initial_indent=indent, subsequent_indent=indent)
    return "\n".join([*lines, "```"])


def render_rooms() -> str:
    return "\n".join(_wrap(f"Now: **{count_rooms(ROOT / 'pipelines/dictalake')}**. Version 0.1.0 had 43, 206 and 2."))


def render_decisions() -> str:
    lines = []
    for path in sorted(DOCS.glob("decisions/[0-9]*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0]
        number, words = path.name[:4], re.sub(r"^# \d+[.:] *", "", title)
        lines += _wrap(f"- [{number}]({path.name}): {words}", "  ")
    return "\n".join(lines)


def render_containers() -> str:
    rows = [(kind.title, kind.names, f"`{name_container(name)}`") for name, kind in CONTAINERS.items()]
    return _table(("container", "usual endings", "`source.container`"), rows)


def render_codecs() -> str:
    rows = [(codec.title, f"`{name}`", codec.containers, codec.proof) for name, codec in CODECS.items()]
    return _table(("codec", "`source.codec`", "where people have it", "proven"), rows)


def render_headerless() -> str:
    rows = [
        (f"`.{ending}`", usual.title, f"`{usual.codec}`" if usual.codec else "say it", f"{usual.rate_hz or 'say it'}")
        for ending, usual in USUAL.items()
    ]
    return _table(("ending", "what it usually is", "codec", "rate_hz"), rows)


def render_places() -> str:
    lines = ["In the lake:", ""]
    for place in PLACES:
        lines += _wrap(f"- `{place.folder}/`: {place.what}. *{place.erasure[0].upper()}{place.erasure[1:]}.*", "  ")
    lines += ["", "Elsewhere:", ""]
    for outside in OUTSIDE:
        lines += _wrap(f"- {outside.where}: {outside.what}. *{outside.erasure[0].upper()}{outside.erasure[1:]}.*", "  ")
    return "\n".join(lines)


def render_refused() -> str:
    return "\n".join(line for text in REFUSED.values() for line in _wrap(f"- {text[0].upper()}{text[1:]}.", "  "))


def render_not_audio() -> str:
    return "\n".join(_wrap(f"{'; '.join(_escape(text) for text in NOT_AUDIO.values())}."))


def count_rooms(package: Path) -> Rooms:
    """The rooms of ``package``, which of them import which, and the rings of modules that import each other."""
    folder = package.parent / "jobs" if (package.parent / "jobs").is_dir() else ROOT / "jobs"
    rooms = {path.relative_to(package).with_suffix("").parts[0] for path in package.rglob("*.py")}
    modules = {_name_module(path, package): path for path in package.rglob("*.py")}
    between: set[tuple[str, str]] = set()
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = set(_list_imports(path, module))
        graph[module] = {name if name in modules else name.rpartition(".")[0] for name in names} & set(modules) - {module}
        room = path.relative_to(package).with_suffix("").parts[0]
        between |= {(room, other) for other in _rooms_of(names, package.name, rooms) if other != room}
    for path in folder.rglob("*.py"):
        between |= {("jobs", other) for other in _rooms_of(set(_list_imports(path, "jobs")), package.name, rooms)}
    return Rooms(frozenset(rooms | {"jobs"}), frozenset(between), frozenset(_find_circles(graph)))


def _list_imports(path: Path, module: str) -> Iterator[str]:
    """Dotted names of all that a file imports, inside functions too: modules, and names in modules."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _rooms_of(names: set[str], package: str, rooms: set[str]) -> set[str]:
    inside = (name.split(".") for name in names)
    return {parts[1] for parts in inside if parts[0] == package and len(parts) > 1} & rooms


def _find_circles(graph: dict[str, set[str]]) -> Iterator[frozenset[str]]:
    def reach(module: str) -> set[str]:
        reached: set[str] = set()
        waiting = [module]
        while waiting:
            new = graph[waiting.pop()] - reached
            reached |= new
            waiting += new
        return reached

    reached = {module: reach(module) for module in graph}
    for module in graph:
        if module in reached[module]:
            yield frozenset(other for other in reached[module] if module in reached[other])


def _name_module(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _about(folder: Path) -> str:
    """The first sentence of what a folder says about itself."""
    init = ROOT / "pipelines" / folder / "__init__.py"
    said = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) if init.is_file() else None
    return ROOMS.get(folder.as_posix()) or (said or "").partition("\n")[0]


def _escape(text: str) -> str:
    """Stars outside code stay stars."""
    parts = text.split("`")
    parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
    return "`".join(parts)


def _show(default: object) -> str:
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{', '.join(map(str, default)) if isinstance(default, tuple) else default}`"


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


ROOMS = {
    "dictalake": "what every room may use: records, errors, retries, logs, HTML",
    "dictalake/acoustic": "windows of sound → sparse emissions; everything about models",
    "dictalake/acoustic/engines": "models that write text themselves: Whisper, Qwen3-ASR, Parakeet-TDT",
    "dictalake/acoustic/lasr": "the architecture of MedASR",
    "dictalake/archive": "finding objects in an archive, fetching them, opening ZIP, TAR and gzip",
    "dictalake/sandbox": "untrusted bytes are handled in child processes: a call, its limits, its answer",
    "dictalake/audio": "bytes → samples at 16 kHz; load.py is the only door, and it is sandboxed",
    "dictalake/audio/formats": "what a file is, its decoders, and the account of its time; containers.py lists all kinds",
    "dictalake/cli": "what the commands of the command line do",
    "dictalake/cli/commands": "one module a command: its arguments, and nothing heavy",
    "dictalake/config": "every key, its default, and where a value comes from",
    "dictalake/decoding": "emissions → hypotheses: beam search, hotwords",
    "dictalake/decoding/native": "our own beam search, compiled by numba, and its language models",
    "dictalake/embedding": "passages of transcripts → vectors, for search by meaning",
    "dictalake/evaluation": "scoring, tuning, comparing systems",
    "dictalake/lake": "the Delta tables: commits, leases, queries, erasure, upkeep",
    "dictalake/observers": "what watches a run: progress, Prometheus, OpenLineage",
    "dictalake/reporting": "the HTML page about a run or a lake",
    "dictalake/training": "fine-tuning, language models, synthetic speech",
    "dictalake/transcript": "hypotheses → readable text: punctuation, sections, numbers",
    "dictalake/workflow": "the run itself: run.py is the story, cluster.py wires Ray",
    "dictalake/workflow/stages": "what a worker does with a table of recordings; no Ray in here",
}
PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("configuration.md", "keys"): render_keys,
    ("formats.md", "containers"): render_containers,
    ("formats.md", "codecs"): render_codecs,
    ("formats.md", "headerless"): render_headerless,
    ("formats.md", "refused"): render_refused,
    ("formats.md", "not audio"): render_not_audio,
    ("failures.md", "reasons"): render_failures,
    ("failures.md", "runs"): render_run_failures,
    ("incomplete.md", "repairs"): render_repairs,
    ("erasure-and-privacy.md", "places"): render_places,
    ("architecture.md", "tree"): render_tree,
    ("architecture.md", "rooms"): render_rooms,
    ("decisions/README.md", "index"): render_decisions,
}


if __name__ == "__main__":
    sys.exit(main())
