"""Whole runs over archive objects: a row for each file in them, once, and an object is done when all its rows are there."""

from __future__ import annotations

from pathlib import Path

from dictalake.lake.erase import Subjects, forget
from dictalake.lake.query import open_lake
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.workflow.plan import Resources
from dictalake.workflow.run import transcribe
from tests.archives_of_files import make_tar, make_zip
from tests.recordings import make_config, make_sound, name_of, read_rows
from tests.unit.audio.formats.archive_samples import encode


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


def test_a_half_committed_archive_object_is_finished_and_nothing_in_it_is_done_again(
    stub_stages: None, two_cpus: Resources, random_lasr: Path, tmp_path: Path
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


def test_a_file_that_was_erased_out_of_an_archive_object_holds_up_none_of_the_others(
    stub_stages: None, two_cpus: Resources, random_lasr: Path, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    files = {f"{n}.wav": encode(make_sound(0.5, n), 16_000, "WAV") for n in range(3)}
    (tmp_path / "archive/week.zip").write_bytes(make_zip(files))
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")})
    assert transcribe(config).ok == 3
    uri = f"file://{tmp_path}/archive/week.zip#1.wav"
    assert forget(config.lake, Subjects(uris=(uri,))).recordings == 1

    again = transcribe(config)  # its row is missing: one that says why, and nothing else, takes its place
    assert (again.ok, again.failed, again.failures) == (0, 1, {"erased (load)": 1})
    assert transcribe(config).skipped == 1
    beam = config.decoding.model_copy(update={"kind": "beam", "lm": None, "beam_width": 4})
    other = config.model_copy(update={"decoding": beam})
    newer = transcribe(other)
    assert (newer.ok, newer.failed, newer.failures) == (2, 1, {"erased (load)": 1})
    rows = open_lake(str(tmp_path / "lake")).to_table().to_pylist()
    assert len(rows) == 6
    assert all(row["source"]["uri"] != uri for row in rows if row["source"])
    (bare, _) = (row for row in rows if row["status"] == "failed")
    content = ("text", "text_raw", "sections", "words", "source", "dicom", "metadata")
    assert not any(bare[name] for name in content)
    assert transcribe(other).skipped == 1
