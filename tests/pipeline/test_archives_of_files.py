"""Whole runs over archive objects: a row for each file in them, once, and an object is done when all its rows are there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.cluster import Resources
from pipelines.lake.schema import make_transcripts
from pipelines.lake.staging import write_staged
from pipelines.lake.table import DONE, TranscriptTable
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


def test_rows_of_other_looks_at_an_archive_object_do_not_count() -> None:
    """Of ten files nine are there, and a row that says that it could not be opened: the tenth is still to come."""
    rows = [make_row(f"m{n}", archive_id="z", archive_rows=10) for n in range(9)]
    unopened = make_failed_row("z", archive_id="z", archive_rows=1)
    unforeseen = make_failed_row("z", archive_id="z", archive_rows=11)
    recording = Recording("z", "gs://a/z.tar", "1", 10)
    done = pa.Table.from_pylist([{name: unforeseen.get(name) for name in DONE.names}], schema=DONE)
    assert leave_out_done([recording], done) == [recording]
    for own in (unopened, unforeseen):
        done = pa.Table.from_pylist([{name: row.get(name) for name in DONE.names} for row in [own, *rows]], schema=DONE)
        assert [len(r.done_members) for r in leave_out_done([recording], done)] == [9]
        tenth = {**rows[0], "recording_id": "m9"}
        done = pa.Table.from_pylist([{name: row.get(name) for name in DONE.names} for row in [own, *rows, tenth]], schema=DONE)
        assert leave_out_done([recording], done) == []


def test_a_half_committed_archive_object_is_finished_and_nothing_in_it_is_done_again(
    two_cpus: Resources, random_lasr: Path, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    files = {f"{n}.wav": encode(make_sound(0.5, n), 16_000, "WAV") for n in range(6)}
    (tmp_path / "archive/week.tar").write_bytes(make_tar(files)[:-11_000])  # the last file is cut
    whole = make_config(random_lasr, tmp_path / "whole", archive={"uri": str(tmp_path / "archive")})
    assert transcribe(whole).ok == 5
    wanted = {row["recording_id"]: row["status"] for row in read_rows(tmp_path / "whole")}
    assert len(wanted) == 7
    for half in (3, 6):
        config = make_config(random_lasr, tmp_path / f"half-{half}", archive={"uri": str(tmp_path / "archive")})
        written = make_transcripts(sorted(read_rows(tmp_path / "whole"), key=lambda row: row["recording_id"])[:half])
        TranscriptTable(config.lake).commit(write_staged(written, config.lake))
        summary = transcribe(config)
        assert summary.ok + summary.failed == 7 - half
        rows = read_rows(tmp_path / f"half-{half}")
        assert {row["recording_id"]: row["status"] for row in rows} == wanted
        assert len(rows) == 7
        assert transcribe(config).skipped == 1
