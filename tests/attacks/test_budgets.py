"""Budgets: what one archive object may cost a run, and what all decoders of a machine together may take of its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dictalake.archive import budget as budgets
from dictalake.archive.listing import list_recordings
from dictalake.archive.load_recording import load_recording
from dictalake.audio.load import AudioLoader, LoadedAudio
from dictalake.config.sections import Config
from dictalake.workflow import columns
from dictalake.workflow.stages.load import Load
from tests.archives_of_files import make_zip
from tests.unit.audio.formats.archive_samples import encode, make_tone

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight files of 0.9 seconds, and one recording that is in no archive object."""
    tone = encode(make_tone(0.9), 16_000, "FLAC")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/week.zip").write_bytes(make_zip({f"{n}.flac": tone for n in range(8)}))
    (tmp_path / "archive/plain.flac").write_bytes(tone)
    return tmp_path / "archive"


def load(folder: Path, done: tuple[str, ...] = (), **limits: Any) -> list[dict[str, Any]]:
    from dataclasses import replace

    config = Config.model_validate({"archive": {"uri": str(folder)}, "limits": limits})
    recordings = [replace(recording, done_members=done) for recording in list_recordings(config.archive)]
    return pa.concat_tables(Load(config)(columns.recordings_to_table(recordings))).to_pylist()


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    return [row["error"]["reason"] if row["error"] else "ok" for row in rows]


def test_files_beyond_the_hours_of_one_object_are_rows_and_the_others_are_kept(folder: Path) -> None:
    rows = load(folder, archive_h=2.5 / 3600)
    assert len(rows) == 9, "every file has its row"
    assert {row["archive_rows"] for row in rows if row["archive_id"]} == {8}
    good = reasons(rows).count("ok")
    # Three files make the budget, and at most as many as are decoded at once are begun before it is known.
    assert 1 + 3 <= good <= 1 + 3 + 3
    assert reasons(rows).count("archive_over_budget") == 9 - good
    details = {row["error"]["detail"] for row in rows if row["error"]}
    assert len(details) == 1
    assert "hours of sound of limits.archive_h; split the archive, or raise the limit" in details.pop()


def test_a_retry_with_a_higher_limit_reads_only_what_is_missing(folder: Path) -> None:
    rows = load(folder, archive_h=2.5 / 3600)
    done = tuple(row["recording_id"] for row in rows if not row["error"])
    again = load(folder, done, archive_h=1)
    assert reasons(again) == ["ok"] * len(again)
    assert {row["recording_id"] for row in again if row["archive_id"]} == {row["recording_id"] for row in rows if row["error"]}


def test_files_beyond_the_seconds_of_one_object_are_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock takes a second."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(budgets, "monotonic", lambda: next(ticks))
    rows = load(folder, archive_s=13)
    assert len(rows) == 9
    assert "archive_over_budget" in reasons(rows)
    assert "ok" in reasons([row for row in rows if row["archive_id"]])
    detail = next(row["error"]["detail"] for row in rows if row["error"])
    assert "the 13 seconds of limits.archive_s" in detail


def test_time_in_which_nobody_asks_for_the_next_file_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(budgets, "monotonic", lambda: now)
    spent = budgets.ObjectBudget(Config().limits)
    for _ in spent.count_time(iter("abc")):
        now += 10_000.0  # a model is slower than this stage
    spent.require("r1")


def test_commands_that_read_one_after_the_other_keep_the_same_budget(folder: Path) -> None:
    config = Config.model_validate({"archive": {"uri": str(folder)}, "limits": {"archive_h": 2.5 / 3600}})
    (packed,) = [recording for recording in list_recordings(config.archive) if recording.uri.endswith(".zip")]
    loaded = [found for _, found in load_recording(packed, config, AudioLoader(config))]
    assert [isinstance(found, LoadedAudio) for found in loaded] == [True] * 3 + [False] * 5
    assert {found.reason for found in loaded if not isinstance(found, LoadedAudio)} == {"archive_over_budget"}
