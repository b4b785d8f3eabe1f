"""A lake of an older dictalake is upgraded and rechecked, and what lost sound is transcribed again once, by real Ray."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dictalake.cli.main import run_command
from dictalake.config.load import load_config
from dictalake.config.sections import Lake
from dictalake.lake.query import connect, open_lake
from dictalake.workflow.cluster import Resources
from dictalake.workflow.run import transcribe
from dictalake.workflow.worklist import Retry
from tests.old_lakes import schemas_of, write_rows
from tests.recordings import DEMO_ARCHIVE

LOOSE = ("radiology/gallbladder.opus", "oncology/toxicity.mp3", "neurology/seizure-clinic.ogg")
ZIPPED = ("radiology/mri-knee-0431.ogg", "radiology/chest-0420.mp3")
SHORT = ("gallbladder.opus", "day.zip#chest-0420.mp3")


def make_archive(folder: Path) -> Path:
    folder.mkdir()
    for name in LOOSE:
        shutil.copy(DEMO_ARCHIVE / name, folder)
    with zipfile.ZipFile(folder / "day.zip", "w") as archive:
        for name in ZIPPED:
            archive.write(DEMO_ARCHIVE / name, Path(name).name)
    return folder


def name_of(row: dict[str, Any]) -> str:
    return str(row["source"]["uri"]).rpartition("/")[2]


def cut(row: dict[str, Any]) -> dict[str, Any]:
    """As a loader made it that read the first two seconds alone."""
    words = [word for word in row["words"] if word["end_s"] < 2]
    return {**row, "quality": {**row["quality"], "duration_s": 2.0}, "words": words, "text": "Cut"}


def read_rows(lake: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(name_of(row), row["attempt"]): row for row in open_lake(str(lake)).to_table().to_pylist()}


def test_rows_of_an_older_loader_that_lost_sound_are_found_and_transcribed_again_once(
    two_cpus: Resources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, new, old = make_archive(tmp_path / "archive"), tmp_path / "new", tmp_path / "old"

    def run(lake: Path, retry: Retry | None = None) -> Any:
        places = [("archive.uri", str(archive)), ("lake.uri", str(lake))]
        return transcribe(load_config("demo", places), retry=retry)

    assert run(new).ok == 5
    rows = read_rows(new)
    written = [cut(row) if name_of(row) in SHORT else row for row in rows.values()]
    write_rows(Lake.model_validate({"uri": str(old)}), 5, schemas_of(5), written)
    assert run_command("schema", ["--upgrade", str(old)]) == 0
    capsys.readouterr()

    assert run_command("recheck", [str(old), "--processes", "1", "--format", "json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["lost"], told["complete"], told["unread"]) == (5, 2, 3, 0)
    by_id = {row["recording_id"]: key for key, row in rows.items()}
    missing = {by_id[one["recording_id"]][0]: one["missing_s"] for one in told["recordings"]}
    assert missing == {name: pytest.approx(rows[name, 0]["quality"]["duration_s"] - 2, abs=0.1) for name in SHORT}
    assert list(missing.values()) == sorted(missing.values(), reverse=True)

    assert run_command("recheck", [str(old)]) == 0
    assert "nothing to compare" in capsys.readouterr().out

    assert run(old).recordings == 0, "without --retry lost they are done"
    assert run_command("backfill", [str(archive), str(old), "--config", "demo", "--retry", "lost", "--format", "json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["ok"], again["failed"], again["retried"]) == (2, 0, 2)
    assert run(old, Retry(failed=False, lost=True)).recordings == 0, "each once"

    after = read_rows(old)
    assert after.keys() == rows.keys() | {(name, 1) for name in SHORT}
    for name in SHORT:
        assert after[name, 1]["text_raw"] == rows[name, 0]["text_raw"]
        assert after[name, 0]["text"] == "Cut", "the row of before stays"
    with connect(str(old)) as database:
        shown = database.sql("SELECT text, attempt, source.loader IS NULL FROM transcripts ORDER BY ALL").fetchall()
        assert len(shown) == 5
        assert sum(attempt == 1 and not is_old for _, attempt, is_old in shown) == 2
        assert "Cut" not in {text for text, *_ in shown}
        assert database.sql("FROM incomplete").fetchall() == []
