"""``dictalake recheck``: what it shows, how it ends, and what is kept where it is stopped."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dictalake.cli import recheck as command
from dictalake.cli.main import run_command
from dictalake.cli.recheck import Findings, show_findings
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.delta import has_table
from dictalake.lake.places import RECHECKS_FOLDER
from dictalake.lake.query import connect
from dictalake.lake.rechecks import Recheck
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import FINGERPRINT, make_row

AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
IDS = [digit * 32 for digit in "abcde"]


def say(recording_id: str, verdict: Any, **changes: Any) -> Recheck:
    given: dict[str, Any] = {"fingerprint": FINGERPRINT, "attempt": 0, "loader": 2, "at": AT, **changes}
    return Recheck(recording_id=recording_id, verdict=verdict, **given)


RECORDS = [
    [say(IDS[0], "complete", missing_s=0.0)],
    [say(IDS[1], "lost", missing_s=0.5, row_duration_s=7.5, duration_s=8.0, repairs=("hole",))],
    [say(IDS[2], "lost", missing_s=6.0, row_duration_s=2.0, duration_s=8.0, repairs=())],
    [say(IDS[3], "lost", reason="corrupt_audio", row_duration_s=8.0)],
    [say(IDS[4], "unread", reason="not_found")],
]


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """Five rows of an older loader."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    rows = []
    for name in IDS:
        row = make_row(name)
        row["source"]["loader"] = None
        rows.append(row)
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    return str(lake.uri)


def recorded(lake: str) -> list[tuple[str]]:
    with connect(lake) as database:
        return database.sql("SELECT recording_id FROM rechecks ORDER BY ALL").fetchall()


def test_rows_that_lost_sound_come_the_worst_first_and_damaged_ones_before_all() -> None:
    findings = Findings(5)
    for records in RECORDS:
        findings.add(records)
    output = io.StringIO()
    show_findings(findings, findings.describe(), Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert [line.split()[0] for line in lines[2:5]] == [IDS[3], IDS[2], IDS[1]]
    assert lines[2].split()[1:] == ["8.0", "corrupt_audio"]
    assert lines[3].split()[1:] == ["6.0", "2.0", "8.0", "more", "is", "read", "today"]
    assert lines[4].split()[1:] == ["0.5", "7.5", "8.0", "hole"]
    assert lines[5] == "5 of 5 rows compared; 3 lost sound, 6 s of it; 1 could not be read (not_found 1)"
    assert "--retry lost" in lines[6]


def test_json_holds_the_numbers_and_the_rows_that_lost_sound(
    lake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "recheck", lambda *_: iter(RECORDS))
    assert run_command("recheck", [lake, "--format", "json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert {name: told[name] for name in ("rows", "done", "lost", "complete", "unread")} == {
        "rows": 5,
        "done": 5,
        "lost": 3,
        "complete": 1,
        "unread": 1,
    }
    assert [one["recording_id"] for one in told["recordings"]] == [IDS[3], IDS[2], IDS[1]]
    assert [name for (name,) in recorded(lake)] == IDS


def test_what_was_compared_before_a_stop_is_recorded_and_only_the_rest_is_left(
    lake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> Iterator[list[Recheck]]:
        yield from RECORDS[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "recheck", stop)
    with pytest.raises(KeyboardInterrupt):
        run_command("recheck", [lake])
    assert [name for (name,) in recorded(lake)] == IDS[:2]
    monkeypatch.setattr(
        command, "recheck", lambda _, plan, __: iter([[say(row["recording_id"], "complete")] for [row] in plan])
    )
    assert run_command("recheck", [lake]) == 0
    assert "3 of 3 rows compared; 0 lost sound" in capsys.readouterr().out
    assert run_command("recheck", [lake]) == 0
    assert "nothing to compare" in capsys.readouterr().out


def test_rows_of_which_nobody_can_tell_what_is_lost_are_no_all_clear(
    lake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [[say(IDS[0], "complete", missing_s=0.0)], [say(IDS[1], "unknown", repairs=("clock_reset",))]]
    monkeypatch.setattr(command, "recheck", lambda *_: iter(records))
    assert run_command("recheck", [lake]) == 3
    assert "2 of 5 rows compared; 0 lost sound; 1 may lack sound, nobody can tell" in capsys.readouterr().out
    assert run_command("recheck", [lake, "--format", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["unknown"] == 1


def test_the_table_that_bigquery_reads_is_there_even_if_nothing_was_compared(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a")]), lake))
    assert run_command("recheck", [str(lake.uri)]) == 0
    assert has_table(open_storage(lake, RECHECKS_FOLDER))


def test_a_lake_that_is_missing_or_older_is_told(tmp_path: Path, lake: str) -> None:
    with pytest.raises(ConfigError, match=r"lake\.uri is missing"):
        run_command("recheck", [])
    with pytest.raises(ConfigError, match="--processes: give a number from 1 on"):
        run_command("recheck", [lake, "--processes", "0"])
    with pytest.raises(RunError, match="there is no dictalake table"):
        run_command("recheck", [str(tmp_path / "nowhere")])
