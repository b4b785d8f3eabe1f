"""Whole runs over archive objects: a row for each file in them, once, and an object is done when all its rows are there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.cluster import Resources
from pipelines.lake.table import DONE
from pipelines.records import Recording
from pipelines.transcribe import count_failed, leave_out_done, transcribe
from tests.lake_rows import make_failed_row, make_row
from tests.recordings import make_config, make_sound, name_of, read_rows
from tests.unit.archive_samples import encode
from tests.unit.test_archive_members import make_tar, make_zip


def test_every_file_in_an_archive_object_becomes_one_row(two_cpus: Resources, random_lasr: Path, tmp_path: Path) -> None:
    sounds = [encode(make_sound(0.6, seed), 16_000, "WAV") for seed in range(4)]
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/plain.wav").write_bytes(sounds[0])
    (tmp_path / "archive/week.zip").write_bytes(make_zip({"mon/1.wav": sounds[1], "tue.wav": sounds[2], "notes.txt": b"text"}))
    (tmp_path / "archive/month.tar.gz").write_bytes(make_tar({f"{n:02}.wav": sounds[n % 4] for n in range(20)}, "w:gz"))
    (tmp_path / "archive/cut.tar").write_bytes(make_tar({"a.wav": sounds[3], "b.wav": sounds[1]})[:21_000])
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")}, ray={"block_audio_s": 3})
    summary = transcribe(config)
    assert (summary.found, summary.archives, summary.ok, summary.failed) == (4, 3, 24, 3)
    assert summary.failures == {"not_audio (load)": 1, "corrupt_audio (load)": 2}
    rows = {name_of(row).removeprefix("archive/"): row for row in read_rows(tmp_path / "lake")}
    assert len(rows) == 27 == len(read_rows(tmp_path / "lake"))
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {
        *("week.zip#notes.txt", "cut.tar#b.wav", "cut.tar")
    }
    assert rows["month.tar.gz#00.wav"]["text_raw"] == rows["plain.wav"]["text_raw"] != ""
    assert rows["week.zip#mon/1.wav"]["recorded_month"] == "2024-03"
    assert len({row["archive_id"] for row in rows.values()}) == 4

    again = transcribe(config)
    assert (again.found, again.skipped, again.skipped_failed, again.ok, again.failed) == (4, 4, 3, 0, 0)
    assert len(read_rows(tmp_path / "lake")) == 27


@pytest.mark.parametrize("committed", [0, 1, 2, 3])
def test_an_archive_object_is_done_when_all_its_rows_are_committed(committed: int) -> None:

    of_object = {"archive_id": "z", "archive_rows": 3}
    rows = [make_row("m1", **of_object), make_row("m2", **of_object), make_failed_row("z", **of_object)][:committed]
    done = pa.Table.from_pylist([{name: row.get(name) for name in DONE.names} for row in rows], schema=DONE)
    recording = Recording("z", "gs://a/z.tar", "1", 10)
    pending = leave_out_done([recording], done)
    assert [(r.recording_id, r.done_members) for r in pending] == ([] if committed == 3 else [("z", ("m1", "m2")[:committed])])
    assert count_failed([recording], done) == (committed == 3)


def test_a_failed_look_at_a_half_done_archive_object_does_not_pass_for_its_end() -> None:
    rows = [make_row("m1", archive_id="z", archive_rows=3), make_failed_row("z")]
    done = pa.Table.from_pylist([{name: row.get(name) for name in DONE.names} for row in rows], schema=DONE)
    recording = Recording("z", "gs://a/z.tar", "1", 10)
    assert [r.done_members for r in leave_out_done([recording], done)] == [("m1",)]
    assert leave_out_done([recording], done.slice(1)) == []
