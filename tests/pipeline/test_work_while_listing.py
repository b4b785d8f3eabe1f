"""A run whose listing waits until its first recordings have their rows: work does not wait for the end of a listing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dictalake.archive.manifest import scan_recordings
from dictalake.observers.stats import RunStats
from dictalake.records import Recording
from dictalake.workflow import planning
from dictalake.workflow import run as story
from dictalake.workflow.plan import Resources
from dictalake.workflow.run import transcribe
from tests.recordings import make_config, make_sound, read_rows, write_wav
from tests.stub_stages import StubDecode, StubEmit

_LONGEST_S = 500.0


def test_the_first_rows_are_made_while_the_archive_is_still_listed(
    two_cpus: Resources, random_lasr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(14):
        write_wav(tmp_path / f"archive/{number:02}.wav", make_sound(0.5, seed=number))
    has_rows, add_report, shown = threading.Event(), RunStats.add_report, list[str]()

    def note_report(stats: RunStats, row: dict[str, Any]) -> None:
        add_report(stats, row)
        if not has_rows.is_set():
            shown.append(stats.describe())
            has_rows.set()

    def scan(*arguments: Any) -> Iterator[Recording]:
        for number, recording in enumerate(scan_recordings(*arguments)):
            if number == 4:
                assert has_rows.wait(_LONGEST_S), "no row came before the listing was over"
            yield recording

    monkeypatch.setattr(planning, "_PART_S", 0.0)
    monkeypatch.setattr(RunStats, "add_report", note_report)
    for name, stand_in in (("scan_recordings", scan), ("Emit", StubEmit), ("Decode", StubDecode)):
        monkeypatch.setattr(story, name, stand_in)
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")})
    summary = transcribe(config)
    assert (summary.found, summary.ok, summary.failed) == (14, 14, 0)
    rows = read_rows(tmp_path / "lake")
    assert len(rows) == 14 == len({row["recording_id"] for row in rows})
    assert "of at least " in shown[0]
    again = transcribe(config)
    assert (again.skipped, again.ok) == (14, 0)
