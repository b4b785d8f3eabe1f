"""README and docs/: links lead somewhere, commands and keys exist, lines fit, and what the code knows is current."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from dictalake.cli.main import COMMANDS, make_command_parser
from dictalake.config.load import find_config, list_keys
from dictalake.config.sections import Config
from dictalake.errors import list_failures
from dictalake.lake import contract
from jobs import benchmarks, write_docs
from jobs.benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACEHOLDERS = {"COMMAND", "NAME"}
# They tell what was there before, too.
HISTORY = {"docs/upgrading.md", "CHANGELOG.md"}


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks(text: str) -> str:
    """The lines of all code blocks; a command that ends with a backslash or within quotation marks has its next lines too."""
    code = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    return re.sub(r'^(?:\$ )?dictalake [^"\n]*"[^"]*"', lambda command: " ".join(command[0].split()), code, flags=re.MULTILINE)


def inline_code(text: str) -> list[str]:
    """What stands between single backticks outside code blocks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_code(text))]


def commands(text: str) -> list[list[str]]:
    """The arguments of ``dictalake`` in the code blocks of a page."""
    found = re.findall(r"^(?:\$ |.* -- )?dictalake(?:-on-ray)? (.+)$", blocks(text), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#{1,6} (.+)$", re.sub(r"^```.*?^```", "", read(path), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """The file and the anchor of each link of a page that does not lead to the web."""
    for target in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            yield (path.parent / file).resolve() if file else path, anchor


CALLS = [(page_name(path), arguments) for path in PAGES for arguments in commands(read(path))]


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for file, anchor in links(path):
        assert file.exists(), file
        assert not anchor or anchor in anchors(file), f"{file.name}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_no_line_is_wider_than_a_screen(path: Path) -> None:
    assert [line for line in read(path).splitlines() if len(line) > 120] == []


def test_readme_is_two_screens() -> None:
    assert len(read(README).splitlines()) <= 200


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs/index.md"
    pages = {*(ROOT / "docs").glob("*.md"), ROOT / "docs/decisions/README.md", README, ROOT / "CHANGELOG.md"} - {index}
    assert pages <= {file for file, _ in links(index)}


def test_there_are_commands_to_check() -> None:
    assert len(CALLS) > 40
    assert {arguments[0] for _, arguments in CALLS} > {"transcribe", "backfill", "nightly", "query", "forget", "evaluate"}


@pytest.mark.parametrize(("page", "arguments"), CALLS, ids=[f"{page}-{' '.join(call)[:50]}" for page, call in CALLS])
def test_a_command_is_understood_by_its_parser(page: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # --file infra/queries/… is a file of the checkout
    parsed = make_command_parser(arguments[0]).parse(arguments[1:])
    config = getattr(parsed, "config", None)
    if config is not None and config not in ("tuned/tuned.yaml", "my.yaml"):
        assert find_config(config).is_file()


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_commands_and_options_in_the_text_exist(path: Path) -> None:
    for code in inline_code(read(path)):
        name, *rest = code.removeprefix("dictalake ").split() if code.startswith("dictalake ") else ["", code]
        if name and not name.startswith("-"):
            assert name in COMMANDS or name in PLACEHOLDERS or (name == "bench" and page_name(path) in HISTORY), code
        if name in COMMANDS:
            known = set(make_command_parser(name)._option_string_actions)
            assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, code


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_every_configuration_key_or_column_that_is_named_exists(path: Path) -> None:
    keys = {key.name for key in list_keys()} | {column.path for column in contract.list_columns("transcripts")}
    sections = "|".join(Config.model_fields)
    for code in inline_code(read(path)):
        for key in re.findall(rf"^(?:--)?((?:{sections})\.[a-z_]+)(?=$|[ :=])", code):
            assert key in keys, code


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_every_make_target_and_module_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    code = "\n".join([blocks(read(path)), *inline_code(read(path))])
    assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= targets
    if page_name(path) in HISTORY:
        return
    for module, rest in re.findall(r"^python -m (jobs[\w.]*)(.*)$", code, re.MULTILINE):
        assert importlib.util.find_spec(module) is not None, module
        name = rest.split()[0] if rest.split() else "--out"
        assert module != benchmarks.__name__ or name.startswith("--") or name in BENCHMARKS, rest


def test_every_reason_has_a_heading_to_link_to() -> None:
    assert {failure.reason for failure in list_failures()} <= anchors(ROOT / "docs/failures.md")


def test_what_the_code_knows_is_written_as_the_code_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_docs.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_named_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs/failures.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- written by jobs.write_docs: reasons -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(write_docs, "ROOT", tmp_path)
    monkeypatch.setattr(write_docs, "DOCS", page.parent)
    monkeypatch.setattr(write_docs, "PARTS", {("failures.md", "reasons"): write_docs.render_failures})
    assert write_docs.main(["--check"]) == 1
    assert "docs/failures.md is not current: run python -m jobs.write_docs" in capsys.readouterr().err
    assert "old" in read(page)
    assert write_docs.main([]) == 0
    assert read(page).startswith("before\n<!-- written by")
    assert read(page).endswith("<!-- end -->\nafter\n")
    assert "### too_long" in read(page)
    assert write_docs.main(["--check"]) == 0


def test_rooms_imports_between_them_and_circles_are_counted(tmp_path: Path) -> None:
    files = {
        "house/kitchen/oven.py": "from house.kitchen import pan\nfrom house.cellar import wine",
        "house/kitchen/pan.py": "from house.kitchen.oven import bake",
        "house/cellar.py": "import house.kitchen.oven\nimport json",
        "jobs/cook.py": "from house.kitchen import oven, pan",
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    rooms = write_docs.count_rooms(tmp_path / "house")
    assert rooms.names == {"kitchen", "cellar", "jobs"}
    assert rooms.imports == {("kitchen", "cellar"), ("cellar", "kitchen"), ("jobs", "kitchen")}
    assert rooms.circles == {frozenset({"house.kitchen.oven", "house.kitchen.pan", "house.cellar"})}
