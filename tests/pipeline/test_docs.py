"""What README and docs/querying.md show of the demo lake is what it answers."""

from __future__ import annotations

import json
import re
import shlex
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.cli.main import main
from dictalake.config.locations import ASSETS
from dictalake.config.sections import Acoustic
from dictalake.lake.finding_views import VIEWS as FINDING_VIEWS
from dictalake.lake.query import VIEWS
from tests.recordings import DEMO_ARCHIVE

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/querying.md")


def shown(page: str) -> list[tuple[str, str]]:
    """Each question of a page, and the answer below it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    pattern = r'^\$ dictalake query demo-lake "([^"]+)"\n(.*?\n)(?:\n|\Z)'
    return re.findall(pattern, found, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_the_demo_lake_answers(
    page: str, untouched_demo_lake: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    questions = shown(page)
    assert questions
    for sql, expected in questions:
        capfd.readouterr()
        assert main(["query", str(untouched_demo_lake), sql]) == 0
        assert capfd.readouterr().out == expected


def test_each_view_is_shown() -> None:
    text = (ROOT / "docs/querying.md").read_text(encoding="utf-8")
    of_other_commands = {"corrections", *FINDING_VIEWS}  # the demo lake has nothing in them
    assert all(f"`{view}`" in text for view in of_other_commands)
    views = {re.findall(r"FROM (\w+)", sql)[0] for sql, _ in shown("docs/querying.md")}
    assert views == {*VIEWS, "history"} - of_other_commands


def test_the_other_questions_of_the_pages_have_answers(
    untouched_demo_lake: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    lines = re.findall(r"^dictalake ((?:query|search) demo-lake .+)$", text, re.MULTILINE)
    assert {line.split()[0] for line in lines} == {"query", "search"}
    for line in lines:
        if "--by-meaning" in line:  # needs vectors
            continue
        capfd.readouterr()
        command, _, *rest = shlex.split(line)
        assert main([command, str(untouched_demo_lake), *rest]) == 0
        assert capfd.readouterr().out.count("\n") > 1


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, untouched_demo_lake: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert "./demo-lake" in lines
    exec(lines.replace("./demo-lake", str(untouched_demo_lake)), {})
    assert "recorded_month" in capfd.readouterr().out


def test_one_query_says_which_model_code_configuration_and_bytes_made_a_row(untouched_demo_lake: Path, tmp_path: Path) -> None:
    file, out = ROOT / "infra/queries/provenance_of_a_row.sql", tmp_path / "rows.parquet"
    assert main(["query", str(untouched_demo_lake), "--file", str(file), "--out", str(out)]) == 0
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 2 * 29
    identity = find_checkpoint(Acoustic()).identity
    lm = sha256((ASSETS / "medasr-mini/lm_6.kenlm").read_bytes()).hexdigest()
    archive = {sha256(path.read_bytes()).hexdigest() for path in DEMO_ARCHIVE.rglob("*") if path.is_file()}
    for row in rows:
        assert row["model_sha256"] == identity.sha256
        assert row["lm_sha256"] == (None if row["decoder"] == "greedy" else lm)
        assert row["bytes_sha256"] in archive
        assert json.loads(row["config"])["decoding"]["kind"] == ("greedy" if row["decoder"] == "greedy" else "beam")
        assert all(row[name] for name in ("config_hash", "version", "object_version", "run_id", "fingerprint"))
    assert {row["dtype"] for row in rows if row["status"] == "ok"} <= {"float32", "bfloat16"}
