"""``dictalake reproduce`` on the demo lake: rows come out identical, and with another model it says what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from dictalake.cli.main import run_command
from dictalake.config.locations import ASSETS


def remake(lake: Path, out: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code, and what the JSON says of each row."""
    code = run_command("reproduce", ["--lake.uri", str(lake), "--json", str(out), *options])
    return code, json.loads(out.read_text(encoding="utf-8"))["rows"]


def test_ten_rows_of_the_demo_lake_come_out_identical(
    untouched_demo_lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in untouched_demo_lake.rglob("*"))
    code, rows = remake(untouched_demo_lake, tmp_path / "again.json", "--sample", "10")
    assert (code, [row["verdict"] for row in rows]) == (0, ["identical"] * 10)
    assert sum(row["effect"]["words"] for row in rows) > 100, "hardly a word was compared"
    assert [row["effect"]["words_changed"] for row in rows] == [0] * 10
    assert "10 identical" in capsys.readouterr().out
    assert sorted(path.name for path in untouched_demo_lake.rglob("*")) == before, "nothing in the lake is changed"


def test_a_swapped_model_is_named_with_what_came_of_it(
    untouched_demo_lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(ASSETS / "medasr-mini", tmp_path / "other-model"))
    weights = load_file(model / "model.safetensors")
    weights["ctc_head.bias"][0] -= 6.0  # fewer blanks: other words
    save_file(weights, model / "model.safetensors", {"format": "pt"})

    code, rows = remake(untouched_demo_lake, tmp_path / "again.json", "--sample", "6", "--acoustic.model", str(model))

    assert code == 3
    for row in rows:  # named also where no word came out differently
        assert {cause["what"] for cause in row["causes"]} == {"acoustic.model", "model_sha256"}
    differing = [row["effect"] for row in rows if row["verdict"] == "differs"]
    assert all("words" in effect["fields"] for effect in differing)
    assert any("text_raw" in effect["fields"] and effect["words_changed"] for effect in differing)
    assert "model_sha256" in capsys.readouterr().out


def test_another_dtype_is_named_even_where_it_changes_no_word(
    untouched_demo_lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rows = remake(untouched_demo_lake, tmp_path / "one.json", "--sample", "5")
    heard = next(row for row in rows if row["effect"]["words"])  # two of the lake's recordings are broken
    dtype = "float32" if heard["tolerance"]["confidence"] == 0.01 else "bfloat16"  # the other one than it was made in
    options = [heard["recording_id"], "--acoustic.dtype", dtype]
    _, (again,) = remake(untouched_demo_lake, tmp_path / "again.json", *options)
    assert {cause["what"] for cause in again["causes"]} == {"acoustic.dtype", "dtype"}
    assert next(cause["now"] for cause in again["causes"] if cause["what"] == "dtype") == dtype
    assert f"{dtype}" in capsys.readouterr().out
