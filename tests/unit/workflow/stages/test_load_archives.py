"""Archives of files through the load stage: one row for each file, and for each archive that is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dictalake.config.sections import Config
from dictalake.workflow import columns
from dictalake.workflow.stages.load import Load
from tests.archives_of_files import make_tar, make_zip
from tests.unit.audio.formats.archive_samples import encode, make_tone


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    tone = encode(make_tone(0.3), 16_000, "WAV")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/week.zip").write_bytes(make_zip({"mon.wav": tone, "tue.wav": tone, "notes.txt": b"text"}))
    (tmp_path / "archive/plain.wav").write_bytes(tone)
    (tmp_path / "archive/cut.tar").write_bytes(make_tar({"a.wav": tone, "b.wav": tone})[:12_000])
    (tmp_path / "archive/not.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    return tmp_path / "archive"


def load(folder: Path, done: tuple[str, ...] = (), **config: Any) -> list[dict[str, Any]]:
    from dataclasses import replace

    from dictalake.archive.listing import list_recordings

    checked = Config.model_validate({"archive": {"uri": str(folder), **config.pop("archive", {})}, **config})
    recordings = [replace(recording, done_members=done) for recording in list_recordings(checked.archive)]
    return pa.concat_tables(Load(checked)(columns.recordings_to_table(recordings))).to_pylist()


def outcomes(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["uri"].rsplit("/", 1)[1]: row["error"]["reason"] if row["error"] else "ok" for row in rows}


def test_the_load_stage_gives_one_row_for_every_file_inside(packed: Path) -> None:
    rows = load(packed)
    assert outcomes(rows) == {
        "plain.wav": "ok",
        "week.zip#mon.wav": "ok",
        "week.zip#tue.wav": "ok",
        "week.zip#notes.txt": "not_audio",
        "cut.tar#a.wav": "ok",
        "cut.tar#b.wav": "corrupt_audio",
        "cut.tar": "corrupt_audio",
        "not.zip": "corrupt_audio",
    }
    assert len(rows) == 8
    by_archive = {row["archive_id"]: row["archive_rows"] for row in rows}
    assert sorted(by_archive.values(), key=str) == [1, 3, 3, None]
    detail = next(row["error"]["detail"] for row in rows if row["uri"].endswith("cut.tar"))
    assert detail.endswith("2 files were found in it, there may have been more; upload it again")
    assert not any(
        word in row["error"]["detail"] for row in rows if row["error"] for word in ("mon", "week", "cut.tar", "b.wav")
    )


def test_files_that_are_done_are_not_read_again(packed: Path) -> None:
    done = tuple(row["recording_id"] for row in load(packed) if "mon.wav" in row["uri"] or row["uri"].endswith("cut.tar"))
    assert set(outcomes(load(packed, done))) == {
        *("plain.wav", "week.zip#tue.wav", "week.zip#notes.txt", "cut.tar#a.wav", "cut.tar#b.wav", "not.zip")
    }


def test_without_expand_an_archive_is_one_failed_row_that_says_what_to_do(packed: Path) -> None:
    rows = {row["uri"].rsplit("/", 1)[1]: row["error"] for row in load(packed, archive={"expand": False})}
    assert rows["week.zip"]["reason"] == rows["cut.tar"]["reason"] == "unsupported_container"
    assert rows["week.zip"]["detail"] == "this is a ZIP archive, and archive.expand is off; turn it on, or unpack it"


def test_rows_come_in_tables_of_bounded_audio(packed: Path) -> None:
    from dictalake.archive.listing import list_recordings

    config = Config.model_validate({"archive": {"uri": str(packed)}, "ray": {"block_audio_s": 0.7}})
    tables = list(Load(config)(columns.recordings_to_table(list(list_recordings(config.archive)))))
    seconds = [sum(row["duration_s"] or 0 for row in table.to_pylist()) for table in tables]
    assert len(tables) == 2
    assert all(0 < s <= 0.7 for s in seconds)
