"""A recheck finds the rows that lack sound, records each once, and no recording ends it."""

from __future__ import annotations

import io
import os
import wave
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest

from dictalake.archive.manifest import scan_recordings
from dictalake.audio.load import LOADER_VERSION, LoadedAudio
from dictalake.cli.main import run_command
from dictalake.config.sections import Config
from dictalake.errors import CorruptAudio, FetchFailed, NotAudio, RunError, TranscriptionError
from dictalake.lake.rechecks import Recheck, RecheckLog, find_lost
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.lake.tombstones import ErasedSubjects
from dictalake.records import SAMPLE_RATE_HZ, Recording, make_recording_id
from dictalake.workflow.recheck import RecheckList, judge, recheck
from dictalake.workflow.worklist import CLAIMED, Retry, WorkList
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row
from tests.old_lakes import OLDER, schemas_of, write_rows

DIGEST, OTHER = "a" * 64, "b" * 64


def make_wav(seconds: float, rate_hz: int = 8000) -> bytes:
    samples = (3000 * np.sin(np.arange(int(seconds * rate_hz)) / 5)).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def sound(duration_s: float, lost_s: float | None = 0.0, *repairs: str, channels: int = 1) -> LoadedAudio:
    waveforms = np.zeros((channels, int(duration_s * SAMPLE_RATE_HZ)), np.int16)
    return LoadedAudio(waveforms, {"channels": channels}, None, {}, None, {"lost_s": lost_s, "repairs": list(repairs)}, [])


def planned(duration_s: float, lost_s: float | None = None, loader: int | None = None) -> dict[str, Any]:
    row = {"recording_id": "a", "fingerprint": "f", "attempt": 0, "duration_s": duration_s, "lost_s": lost_s}
    return row | {"source": {"sha256": DIGEST, "loader": loader, "channels": 1}}


CORRUPT, NO_AUDIO_FILE = CorruptAudio("a", "broken"), NotAudio("a", "text")


@pytest.mark.parametrize(
    ("row", "loaded", "digest", "verdict", "missing_s"),
    [
        (planned(8.0), sound(8.0), DIGEST, "complete", 0.0),
        (planned(8.0), sound(8.05), DIGEST, "complete", 0.0),
        (planned(7.928), sound(8.0, 0.072, "damaged"), DIGEST, "lost", 0.072),  # a frame of FLAC
        (planned(2.0), sound(8.0, 0.0, "header_short"), DIGEST, "lost", 6.0),
        (planned(5.0), sound(8.0, 3.0, "hole"), DIGEST, "lost", 3.0),
        (planned(8.0), sound(8.0, 3.0, "damaged"), DIGEST, "lost", 3.0),  # its tail was repeated
        (planned(16.0), sound(8.0, 0.0, "header_repaired"), DIGEST, "lost", 0.0),  # half of it was noise
        (planned(8.0), sound(8.0, channels=2), DIGEST, "lost", 8.0),  # a second sound track
        (planned(30.0), sound(30.0, 0.012, "cut_end"), DIGEST, "complete", 0.0),
        (planned(8.0), sound(8.0, None, "clock_reset"), DIGEST, "unknown", None),
        (planned(8.0, 3.0, loader=1), sound(8.0, None, "clock_reset"), DIGEST, "unknown", None),
        (planned(2.0), sound(8.0, None, "clock_reset"), DIGEST, "lost", None),
        (planned(8.0), CORRUPT, DIGEST, "lost", None),
        (planned(8.0), NO_AUDIO_FILE, DIGEST, "unread", None),
        (planned(8.0), CORRUPT, OTHER, "unread", None),
        (planned(8.0), CORRUPT, None, "unread", None),  # the archive object that holds it is damaged by now
        (planned(8.0, 3.0, loader=1), sound(8.0, 3.0, "hole"), DIGEST, "complete", 0.0),
        (planned(8.0, 1.0, loader=1), sound(8.0, 3.0, "hole"), DIGEST, "lost", 3.0),
        (planned(8.0), sound(8.0, 3.0, "damaged"), OTHER, "changed", None),
        (planned(8.0), sound(2.0), OTHER, "changed", None),
        (planned(8.0, 3.0, loader=2), sound(8.0), OTHER, "lost", 3.0),  # a better copy
        (planned(2.0), sound(8.0, 5.0, "damaged"), OTHER, "lost", 6.0),  # better, but damaged too
    ],
)
def test_a_row_lost_sound_where_todays_loader_gives_more_or_knows_of_holes(
    row: dict[str, Any], loaded: LoadedAudio | TranscriptionError, digest: str | None, verdict: str, missing_s: float | None
) -> None:
    record = judge(row, loaded, digest)
    assert (record.verdict, record.loader) == (verdict, LOADER_VERSION)
    assert record.missing_s == (None if missing_s is None else pytest.approx(missing_s))
    assert record.is_same == (None if digest is None else digest == DIGEST)
    assert record.reason == (loaded.reason if isinstance(loaded, TranscriptionError) else None)


def find_recordings(archive: Path) -> dict[str, Recording]:
    config = Config.model_validate({"archive": {"uri": str(archive)}})
    return {recording.uri.rpartition("/")[2]: recording for recording in scan_recordings(config.archive)}


def heard(recording: Recording, data: bytes, duration_s: float, **changes: Any) -> dict[str, Any]:
    """The row that a loader of 0.1.0 made of a recording."""
    source = {name: getattr(recording, name) for name in ("uri", "version", "size_bytes", "modified_at")}
    return make_row(
        recording.recording_id,
        **{"source": source | {"sha256": sha256(data).hexdigest()}, "quality": {"duration_s": duration_s}, **changes},
    )


def commit(config: Config, *rows: dict[str, Any]) -> None:
    TranscriptTable(config.lake).commit(write_staged(make_transcripts(rows), config.lake))


def work(config: Config, *, again: bool = False) -> dict[str, Recheck]:
    plan = RecheckList(config.lake, again=again)
    found = [record for records in recheck(config, plan, 1) for record in records]
    assert len(found) == plan.rows
    RecheckLog(config.lake).append(found)
    return {record.recording_id: record for record in found}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "archive").mkdir()
    return Config.model_validate({"lake": {"uri": str(tmp_path / "lake")}})


def test_only_the_last_good_rows_of_older_loaders_are_read_again_and_each_once(config: Config, tmp_path: Path) -> None:
    data = make_wav(2.0)
    for name in ("short", "whole", "new", "failed"):
        (tmp_path / "archive" / f"{name}.wav").write_bytes(data)
    found = find_recordings(tmp_path / "archive")
    short, whole, new, failed = (found[f"{name}.wav"] for name in ("short", "whole", "new", "failed"))
    of_new = heard(new, data, 2.0)
    of_new["source"]["loader"] = LOADER_VERSION
    commit(
        config,
        heard(short, data, 1.0),
        heard(short, data, 1.5, fingerprint="000000000000"),
        heard(whole, data, 2.0),
        of_new,
        heard(failed, data, 1.0),
        make_failed_row(failed.recording_id, attempt=1),
    )
    plan = RecheckList(config.lake)
    assert (plan.rows, plan.objects) == (3, 2)
    records = [record for of_object in recheck(config, plan, 1) for record in of_object]
    assert sorted((one.recording_id, one.verdict, one.missing_s) for one in records) == sorted(
        [(short.recording_id, "lost", 0.5), (short.recording_id, "lost", 1.0), (whole.recording_id, "complete", 0.0)]
    )
    assert all(one.is_same and one.duration_s == 2.0 for one in records)
    RecheckLog(config.lake).append(records[:1])
    assert RecheckList(config.lake).rows == 2, "what is recorded is not read again"
    RecheckLog(config.lake).append(records[1:])
    assert RecheckList(config.lake).rows == 0
    assert RecheckList(config.lake, again=True).rows == 2, "but for what lacks sound, where that is asked for"


def find_lost_work(config: Config, archive: Path, folder: Path) -> dict[str, Recording]:
    """What ``--retry lost`` would do, by name."""
    folder.mkdir()
    listed = find_recordings(archive).values()
    work_list, done = WorkList(listed, ErasedSubjects(), config, folder), TranscriptTable(config.lake)
    work_list.refresh(
        lambda: done.committed(FINGERPRINT),
        lambda: ds.dataset(CLAIMED.empty_table()),
        Retry(failed=False, lost=True),
        lost=find_lost(config.lake, FINGERPRINT),
    )
    return {one.uri.rpartition("/")[2]: one for block in work_list.blocks() for one in block}


@pytest.mark.parametrize("version", OLDER)
def test_each_lost_row_of_an_upgraded_lake_is_picked_once_and_no_complete_one(
    version: int, config: Config, tmp_path: Path
) -> None:
    archive, data = tmp_path / "archive", make_wav(2.0)
    names = ["short.wav", "whole.wav", "failed.wav"]
    for name in names:
        (archive / name).write_bytes(data)
    with zipfile.ZipFile(archive / "day.zip", "w") as file:
        for name in ("short.wav", "whole.wav"):
            file.writestr(name, data)
    found = find_recordings(archive)
    inside = {
        name: replace(of, recording_id=make_recording_id(uri, of.version), uri=uri)
        for of in [found["day.zip"]]
        for name, uri in ((f"day.zip#{name}", f"{of.uri}#{name}") for name in ("short.wav", "whole.wav"))
    }
    rows = [heard(found["short.wav"], data, 1.0), heard(found["whole.wav"], data, 2.0)]
    rows.append(make_failed_row(found["failed.wav"].recording_id))
    schemas = schemas_of(version)
    has_members = "archive_id" in schemas["transcripts"].names  # else an archive object had no row, and is new
    of_archive = {"archive_id": found["day.zip"].recording_id, "archive_rows": 2}
    if has_members:
        rows.append(heard(inside["day.zip#short.wav"], data, 1.0, **of_archive))
        rows.append(heard(inside["day.zip#whole.wav"], data, 2.0, **of_archive))
    else:
        (archive / "day.zip").unlink()
    write_rows(config.lake, version, schemas, rows)
    assert run_command("schema", ["--upgrade", "--lake.uri", str(config.lake.uri)]) == 0

    lost = {found["short.wav"].recording_id} | ({inside["day.zip#short.wav"].recording_id} if has_members else set())
    records = work(config)
    assert len(records) == 2 * len(lost)
    assert {name for name, record in records.items() if record.verdict == "lost"} == lost
    assert {record.verdict for record in records.values()} == {"lost", "complete"}

    pending = find_lost_work(config, archive, tmp_path / "first")
    assert pending.keys() == ({"short.wav", "day.zip"} if has_members else {"short.wav"})
    assert pending["short.wav"].attempt == 1
    if has_members:
        assert pending["day.zip"].member_attempts == {inside["day.zip#short.wav"].recording_id: 1}
        assert pending["day.zip"].done_members == (inside["day.zip#whole.wav"].recording_id,)

    commit(config, heard(found["short.wav"], data, 2.0, attempt=1))
    if has_members:
        commit(config, heard(inside["day.zip#short.wav"], data, 2.0, attempt=1, **of_archive))
    assert find_lost_work(config, archive, tmp_path / "second") == {}


def test_files_in_an_archive_object_are_found_in_it_and_others_stay_closed(config: Config, tmp_path: Path) -> None:
    files = {"a.wav": make_wav(2.0), "b.wav": make_wav(1.0), "unwanted.wav": b"RIFF"}
    with zipfile.ZipFile(tmp_path / "archive/day.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    [of_archive] = find_recordings(tmp_path / "archive").values()
    rows = []
    for name in ("a.wav", "b.wav", "gone.wav"):
        uri = f"{of_archive.uri}#{name}"
        inside = replace(of_archive, recording_id=make_recording_id(uri, of_archive.version), uri=uri)
        data = files.get(name, b"")
        rows.append(heard(inside, data, 1.0, archive_id=of_archive.recording_id, archive_rows=3))
    commit(config, *rows)
    found = work(config)
    assert [found[row["recording_id"]].verdict for row in rows] == ["lost", "complete", "unread"]
    assert found[rows[2]["recording_id"]].reason == "not_found"


def test_a_recording_that_cannot_be_read_is_recorded_and_tried_again_if_its_bytes_did_not_come(
    config: Config, tmp_path: Path
) -> None:
    good, text = make_wav(2.0), b"Dear colleague, this is no sound.\n" * 100
    for name, data in (("good.wav", good), ("text.wav", text), ("gone.wav", good)):
        (tmp_path / "archive" / name).write_bytes(data)
    found = find_recordings(tmp_path / "archive")
    lost_archive = heard(replace(found["good.wav"], recording_id="9" * 32), good, 2.0, archive_id="8" * 32)
    commit(
        config,
        heard(found["good.wav"], good, 2.0),
        heard(found["text.wav"], text, 2.0),
        heard(found["gone.wav"], good, 2.0),
        lost_archive,
    )
    (tmp_path / "archive/gone.wav").unlink()
    records = work(config)
    told = {name: (records[one.recording_id].verdict, records[one.recording_id].reason) for name, one in found.items()}
    assert told == {"good.wav": ("complete", None), "text.wav": ("unread", "not_audio"), "gone.wav": ("unread", "not_found")}
    assert records["9" * 32].reason == "not_found", "its row does not name its archive object"
    assert work(config).keys() == {found["gone.wav"].recording_id, "9" * 32}


@pytest.mark.parametrize("objects", [3, 12], ids=["all of which are in hand at once", "more than are in hand at once"])
def test_storage_that_gives_nothing_ends_it(
    objects: int, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_wav(0.5)
    for number in range(objects):
        (tmp_path / "archive" / f"{number}.wav").write_bytes(data)
    commit(config, *(heard(one, data, 0.5) for one in find_recordings(tmp_path / "archive").values()))

    def refuse(recording: Recording, *_: Any, **__: Any) -> bytes:
        raise FetchFailed(recording.recording_id, "the storage is down")

    monkeypatch.setattr("dictalake.archive.load_recording.fetch", refuse)
    limited = config.model_copy(update={"limits": config.limits.model_copy(update={"storage_failures": 3})})
    with pytest.raises(RunError, match=r"did not give any of the last 3 recordings \(fetch_failed\): check its credentials"):
        list(recheck(limited, RecheckList(config.lake), 1))


def test_other_bytes_of_the_same_version_are_no_loss_unless_they_give_more(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "archive/a.wav"
    before = make_wav(2.0)
    path.write_bytes(before)
    state = path.stat()
    recording = find_recordings(tmp_path / "archive")["a.wav"]
    commit(config, heard(recording, before, 2.0))
    path.write_bytes(before[:-200] + bytes(200))  # the same size
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    record = work(config)[recording.recording_id]
    assert (record.verdict, record.is_same) == ("changed", False)
