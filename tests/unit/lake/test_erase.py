"""Erasure: what was asked for is nowhere below the lake any more, what was not is untouched, and nothing erased comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from dictalake.config.sections import Config, Lake
from dictalake.errors import BadManifestLine, ConfigError
from dictalake.lake import erasers
from dictalake.lake.erase import Subjects, forget, sweep
from dictalake.lake.erasers import ERASERS, names_erased
from dictalake.lake.maintenance import compact
from dictalake.lake.manifests import BlockPlace, Manifests
from dictalake.lake.query import open_lake
from dictalake.lake.runs import RunLog, RunRecord, describe_config
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import CommitResult, TranscriptTable
from dictalake.lake.tombstones import ErasedSubjects, Erasures, hash_subject
from dictalake.observers.base import RunStart, observing
from dictalake.observers.openlineage import LineageEmitter
from dictalake.observers.stats import RunStats
from dictalake.records import BAD_LINE_VERSION, Recording, make_member_id, make_object_id
from dictalake.workflow import columns
from dictalake.workflow.summary import start_record
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row
from tests.lineage_runs import PROVENANCE

CANARY = "Zebrafinch"
STUDY, PATIENT = "1.2.840.99.7", "f00d" * 16
OTHER = "000000000000"


def canary_row(name: str = "a", **changes: Any) -> dict[str, Any]:
    """A row with the canary wherever content can be."""
    uri = f"gs://archive/{CANARY}/a.wav"
    return make_row(
        name,
        **{
            "text": f"No {CANARY}.",
            "text_raw": f"no {CANARY}",
            "source": {"uri": uri, "version": "1"},
            "dicom": {"study_instance_uid": STUDY, "patient_id_hash": PATIENT},
            "metadata": [("reference", f"no {CANARY}")],
            **changes,
        },
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with the canary under two fingerprints and versions, in a manifest, and in files of all ages."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    runs, table = RunLog(lake), TranscriptTable(lake)
    write(lake, [make_row("b"), canary_row()])
    write(lake, [canary_row("a2", source={"uri": f"gs://archive/{CANARY}/a.wav", "version": "2"}), make_row("c")])
    write(lake, [canary_row(fingerprint=OTHER), make_row("b", fingerprint=OTHER)])
    compact(lake)  # the files of before stay for a week
    write_staged(make_transcripts([canary_row(attempt=1)]), lake)  # its run was killed
    config = Config.model_validate({"archive": {"uri": f"gs://archive/{CANARY}/a.wav"}})
    text, config_hash = describe_config(config)
    runs.append(RunRecord(run_id="r1", event="started", config=text, config_hash=config_hash, archive_uri=config.archive.uri))
    runs.append(RunRecord(run_id="r2", event="started", archive_uri="gs://archive"))
    recordings = [
        Recording("a", f"gs://archive/{CANARY}/a.wav", "1", 10, metadata={"reference": CANARY}),
        Recording("b", "gs://archive/b.wav", "1", 10),
    ]
    block = columns.recordings_to_table(recordings)
    assert list(Manifests(lake).write("r1", [block], block.schema)) == [(0, 0)]
    assert table.uri
    return lake


def write(lake: Lake, rows: Iterable[dict[str, Any]]) -> CommitResult:
    return TranscriptTable(lake).commit(write_staged(make_transcripts(list(rows)), lake))


def holds_canary(lake: Lake, folder: str = "") -> list[str]:
    """Files below the lake, or a folder of it, that contain the canary, also compressed ones."""
    found = []
    for path in Path(str(lake.uri), folder).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if content[:4] == b"PAR1":
                content += str(pq.ParquetFile(path).read().to_pylist()).encode()
            if any(word.encode() in content for word in (CANARY, STUDY, PATIENT)):
                found.append(path.name)
    return found


SUBJECTS = {
    "recording": Subjects(recordings=("a",)),
    "uri": Subjects(uris=(f"gs://archive/{CANARY}/a.wav",)),
    "study": Subjects(studies=(STUDY,)),
    "patient": Subjects(patients=(PATIENT,)),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_an_erased_recording_is_in_no_file_of_the_lake(lake: Lake, name: str) -> None:
    assert len(holds_canary(lake)) >= 5
    receipt = forget(lake, SUBJECTS[name], leave_unhashed=True)
    assert holds_canary(lake) == []
    for value in ("b", "c"):  # what was rewritten can still be filtered
        assert open_lake(str(lake.uri)).to_table(filter=ds.field("recording_id") == value).num_rows >= 1
    rows = open_lake(str(lake.uri)).to_table().to_pylist()
    assert sorted((row["recording_id"], row["fingerprint"]) for row in rows) == [
        ("b", OTHER),
        ("b", FINGERPRINT),
        ("c", FINGERPRINT),
    ]
    assert (receipt.recordings, receipt.rows, receipt.manifest_rows) == (2, {FINGERPRINT: 2, OTHER: 1}, 1)
    assert receipt.run_records == 1
    kept = json.loads((Path(str(lake.uri)) / receipt.path).read_text())
    assert kept["recordings"] == 2
    assert kept["asked"][{"recording": "recordings", "uri": "uris", "study": "studies", "patient": "patients"}[name]] == 1
    archives = {row["run_id"]: row["archive_uri"] for row in RunLog(lake).read().to_pylist()}
    assert archives == {"r1": "erased", "r2": "gs://archive"}


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_was_erased_does_not_come_back(lake: Lake, name: str) -> None:
    before = TranscriptTable(lake)
    before.committed(FINGERPRINT)
    newer = canary_row("a3", source={"uri": f"gs://archive/{CANARY}/a.wav", "version": "3"})
    under_way = write_staged(make_transcripts([newer, make_row("d")]), lake)
    forget(lake, SUBJECTS[name], leave_unhashed=True)
    result = before.commit(under_way)  # a run that began before the erasure: its file is gone, "d" is to be done again
    assert (result.rows, result.erased) == (0, 2)
    result = before.commit(write_staged(make_transcripts([newer, make_row("d")]), lake))  # what it had in work
    assert (result.rows, result.erased) == (1, 1)
    assert write(lake, [canary_row("a4", fingerprint="another"), make_row("e")]).erased == 1  # another model, later
    assert holds_canary(lake) == []
    forbidden = Erasures(lake).read()
    assert forbidden.covers_uri(f"gs://archive/{CANARY}/a.wav")
    assert not forbidden.covers_uri("gs://archive/b.wav")


def test_a_commit_that_slips_in_after_the_tombstones_is_removed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new model's first commit has no mark to be refused by: the pass over the rows finds what it wrote."""
    from dictalake.lake import erase as module

    real: Callable[..., None] = module.write_mark

    def slip_in(*arguments: Any) -> None:
        real(*arguments)
        blind = TranscriptTable(lake)
        blind.committed("another")
        blind._forbidden = type(blind._forbidden)()
        (staged,) = write_staged(make_transcripts([canary_row("a9", fingerprint="another")]), lake)
        assert blind.commit([staged]).rows == 1

    monkeypatch.setattr(module, "write_mark", slip_in)
    forget(lake, SUBJECTS["uri"])
    assert holds_canary(lake) == []


def test_the_manifest_of_a_run_at_work_keeps_its_places(lake: Lake) -> None:
    forget(lake, SUBJECTS["uri"])
    rows = Manifests(lake).read_block("r1", BlockPlace(0, 0)).to_pylist()
    assert [(row["recording_id"], row["uri"], row["metadata"]) for row in rows] == [
        ("a", "", []),
        ("b", "gs://archive/b.wav", []),
    ]


def member_rows(uri: str, *names: str) -> list[dict[str, Any]]:
    """Rows of the files ``names`` in the archive object at ``uri``."""
    of = make_object_id(uri, "1")
    ids = [make_member_id(of, uri, name, "1") for name in names]
    source = [{"uri": f"{uri}#{name}", "version": "1"} for name in names]
    return [make_row(one, archive_id=of, archive_rows=len(names), source=at) for one, at in zip(ids, source, strict=True)]


def test_an_archive_object_is_erased_with_its_files_and_a_file_alone(lake: Lake) -> None:
    rows = member_rows("gs://archive/z.zip", "0.wav", "1.wav", "2.wav")
    write(lake, rows)
    assert forget(lake, Subjects(uris=("gs://archive/z.zip#1.wav",))).recordings == 1
    forbidden = Erasures(lake).read()
    assert forbidden.covers_uri("gs://archive/z.zip#1.wav")
    assert not forbidden.covers_uri("gs://archive/z.zip")
    assert forget(lake, Subjects(uris=("gs://archive/z.zip",))).recordings == 2
    assert write(lake, member_rows("gs://archive/z.zip", "new.wav")).erased == 1


def test_a_name_with_a_hash_is_an_object_of_its_own_and_its_files_are_erased_with_it(lake: Lake) -> None:
    """``bed#2.wav`` looks like a file in ``bed``, and so do the files of ``bed#2.zip``."""
    inside = member_rows("gs://archive/bed#2.zip", "mon/1.wav", "tue#2.wav")
    objects = [make_row(name, source={"uri": f"gs://archive/{name}", "version": "1"}) for name in ("bed", "bed#2.wav")]
    write(lake, [*objects, *inside, *member_rows("gs://archive/bed", "2.zip#mon/1.wav")])
    assert forget(lake, Subjects(uris=("gs://archive/bed",))).recordings == 2  # the object, and the file in it
    forbidden = Erasures(lake).read()
    assert not forbidden.covers_recording("gs://archive/bed#2.wav", "1")
    assert write(lake, [*member_rows("gs://archive/bed", "9.wav"), make_row("e")]).erased == 1
    assert forget(lake, Subjects(uris=("gs://archive/bed#2.zip",))).recordings == 2
    newer = make_row("newer", source={"uri": "gs://archive/bed#2.wav", "version": "2"})
    result = write(lake, [*member_rows("gs://archive/bed#2.zip", "wed.wav"), newer])
    assert (result.rows, result.erased) == (1, 1)
    ids = {row["recording_id"] for row in open_lake(str(lake.uri)).to_table().to_pylist()}
    assert {"bed#2.wav", "newer", "e"} <= ids
    assert ids.isdisjoint(row["recording_id"] for row in (objects[0], *inside))


def test_a_run_whose_staged_file_was_deleted_goes_on_and_leaves_the_others_to_be_done_again(lake: Lake) -> None:
    run = TranscriptTable(lake)
    run.committed("another")
    with_canary = write_staged(
        make_transcripts([canary_row(fingerprint="another"), make_row("d", fingerprint="another")]), lake
    )
    without = write_staged(make_transcripts([make_row("e", fingerprint="another")]), lake)
    forget(lake, SUBJECTS["recording"])
    result = run.commit([*with_canary, *without])
    assert (result.rows, result.erased) == (1, 2)
    assert holds_canary(lake) == []


def test_a_commit_that_went_through_unheard_before_an_erasure_breaks_nothing(lake: Lake) -> None:
    run, unheard = TranscriptTable(lake), TranscriptTable(lake)
    for table in (run, unheard):
        table.committed("another")
    staged = write_staged(make_transcripts([make_row("d", fingerprint="another")]), lake)
    unheard.commit(staged)
    forget(lake, SUBJECTS["study"])
    assert run.commit(staged).already_there == 1
    assert open_lake(str(lake.uri)).to_table(filter=ds.field("recording_id") == "d").num_rows == 1


@pytest.mark.parametrize("step", ["write_mark", "_delete_rows", "sweep", *ERASERS])
@pytest.mark.parametrize("name", ["study", "recording"])
def test_an_erasure_that_was_interrupted_is_finished_by_the_same_command(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    from dictalake.lake import erase as module

    real: Callable[..., Any] = ERASERS.get(step) or getattr(module, step)

    def die_after(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step in ERASERS:
            patch.setitem(ERASERS, step, die_after)
        else:
            patch.setattr(module, step, die_after)
        with pytest.raises(KeyboardInterrupt):
            forget(lake, SUBJECTS[name], leave_unhashed=True)
    forget(lake, SUBJECTS[name], leave_unhashed=True)
    assert holds_canary(lake) == []


def test_what_a_run_that_was_at_work_left_is_swept_by_the_next_compaction(lake: Lake) -> None:
    forget(lake, SUBJECTS["uri"])
    write_staged(make_transcripts([canary_row("late")]), lake)  # a worker's last act; its driver died
    block = columns.recordings_to_table([Recording("late", f"gs://archive/{CANARY}/a.wav", "9", 1)])
    list(Manifests(lake).write("r9", [block], block.schema))
    assert len(holds_canary(lake)) == 2
    compact(lake)
    receipt = sweep(lake)
    assert (receipt.files_deleted, receipt.manifest_rows) == (1, 1)
    assert holds_canary(lake) == []


def test_a_bad_line_of_a_manifest_that_is_erased_is_no_longer_one(lake: Lake) -> None:
    uri = "file:///data/list.csv#line-3-00"
    bad = Recording("bad", uri, "bad_manifest_line", 0, error=BadManifestLine("bad", "line 3 of the manifest has no uri"))
    other = Recording(
        "other", "file:///data/b.wav", "1", 0, error=BadManifestLine("other", "line 4 of the manifest has no uri")
    )
    block = columns.recordings_to_table([bad, other])
    (place,) = Manifests(lake).write("r9", [block], block.schema)
    forget(lake, Subjects(uris=("file:///data/list.csv",)))
    blanked, kept = Manifests(lake).read_block("r9", place).to_pylist()
    assert (blanked["uri"], blanked["error"]) == ("", None)  # so that its row says that it was erased
    assert kept["error"]["reason"] == BadManifestLine.reason


def test_of_an_erased_manifest_later_lines_and_the_runs_over_it_are_left(lake: Lake) -> None:
    manifest = "gs://archive/list.csv"
    lines = [f"{manifest}#line-{number}-00" for number in (3, 4)]
    error = {"stage": "load", "reason": BadManifestLine.reason, "detail": "no uri", "retryable": False}
    rows = [make_failed_row(one, source={"uri": one, "version": BAD_LINE_VERSION}, error=error) for one in lines]
    write(lake, rows[:1])
    text, config_hash = describe_config(Config.model_validate({"archive": {"manifest": manifest}}))
    RunLog(lake).append(RunRecord(run_id="r3", event="started", config=text, config_hash=config_hash, archive_uri=manifest))
    receipt = forget(lake, Subjects(uris=(manifest,)))
    assert (receipt.recordings, receipt.run_records) == (1, 0)
    erased = Erasures(lake).read()
    assert [erased.covers_recording(one, BAD_LINE_VERSION) for one in (*lines, manifest)] == [True, False, False]
    assert write(lake, rows).rows == 1
    assert forget(lake, Subjects(uris=(manifest,))).recordings == 1
    assert forget(lake, Subjects(uris=(manifest,))).unknown == 0  # it was erased before
    before = ErasedSubjects(frozenset({hash_subject("uri", manifest)}))  # as older versions wrote it
    assert not names_erased({"archive_uri": manifest, "config": text}, before)


def test_a_blanked_run_record_still_says_which_hashes_of_patients_the_run_made(lake: Lake) -> None:
    uri = f"gs://archive/{CANARY}/a.wav"
    config = Config.model_validate({"archive": {"uri": uri, "patient_fields": ["PatientID"]}})
    text, config_hash = describe_config(config)
    RunLog(lake).append(RunRecord(run_id="r3", event="started", config=text, config_hash=config_hash, archive_uri=uri))
    forget(lake, SUBJECTS["uri"])
    (row,) = [row for row in RunLog(lake).read().to_pylist() if row["run_id"] == "r3"]
    assert json.loads(row["config"]) == {"archive": {"patient_fields": ["PatientID"]}}
    assert holds_canary(lake) == []


@pytest.mark.parametrize("spelled", [f"{CANARY}.wav", f"./wards/../{CANARY}.wav", "linked"])
def test_a_run_that_named_its_one_recording_from_its_own_folder_is_blanked(
    lake: Lake, spelled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure is made from another folder, and the link leads elsewhere by then."""
    here = tmp_path / "here"
    (here / "wards").mkdir(parents=True)
    (here / f"{CANARY}.wav").touch()
    (here / "linked").symlink_to(f"{CANARY}.wav")
    config = Config.model_validate({"archive": {"uri": spelled}, "lake": lake.model_dump()})
    monkeypatch.chdir(here)
    record = start_record(config, PROVENANCE, "backfill")
    RunLog(lake).append(record)
    with observing([LineageEmitter(RunStats())]) as observers:
        observers.run_started(RunStart(config, PROVENANCE, "backfill"))
    assert record.archive_uri == f"file://{here}/{CANARY}.wav"
    monkeypatch.chdir(tmp_path)
    (here / "linked").unlink()
    uri = f"file://{here}/{CANARY}.wav"
    write(lake, [canary_row("local", source={"uri": uri, "version": "1"}, dicom=None)])
    forget(lake, Subjects(uris=(uri, *SUBJECTS["uri"].uris)))
    assert holds_canary(lake) == []


def test_a_run_that_picked_its_one_recording_from_its_own_folder_is_blanked(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate({"archive": {"uri": ".", "include": [f"{CANARY}.wav"]}, "lake": lake.model_dump()})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    RunLog(lake).append(start_record(config, PROVENANCE, "backfill"))
    monkeypatch.chdir(tmp_path)
    uri = f"file://{tmp_path}/here/{CANARY}.wav"
    write(lake, [canary_row("local", source={"uri": uri, "version": "1"}, dicom=None)])
    forget(lake, Subjects(uris=(uri, *SUBJECTS["uri"].uris)))
    assert holds_canary(lake) == []


def test_a_dry_run_counts_and_changes_nothing(lake: Lake) -> None:
    before = holds_canary(lake)
    receipt = forget(lake, SUBJECTS["study"], dry_run=True)
    assert (receipt.recordings, receipt.tombstones, receipt.path) == (2, 0, "")
    assert holds_canary(lake) == before
    assert not Erasures(lake).read()


def test_a_lake_whose_columns_an_older_version_documented_in_other_words_is_erased_too(lake: Lake) -> None:
    for folder, column in (("transcripts", "text"), ("runs", "event")):
        DeltaTable(f"{lake.uri}/{folder}").alter.set_column_metadata(column, {"comment": "in other words"})
    write(lake, [make_row("f")])
    forget(lake, SUBJECTS["recording"])
    assert holds_canary(lake) == []


def test_what_the_lake_does_not_know_is_said(lake: Lake) -> None:
    assert forget(lake, Subjects(recordings=("unheard",))).unknown == 1
    with pytest.raises(ConfigError, match=r"^forget: name what to erase with --recording, --uri, --study or --patient$"):
        forget(lake, Subjects())


def test_files_that_a_live_run_is_writing_are_not_counted_as_left(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, growing, still, claim = (
        Path(str(lake.uri), name) for name in ("manifests/a.partial", "manifests/b.partial", "runs/c.tmp", "claims/d.partial")
    )
    for path in (gone, growing, still, claim):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    def go_on(seconds: float) -> None:
        gone.unlink(missing_ok=True)
        growing.write_bytes(growing.read_bytes() + b"x")

    monkeypatch.setattr(erasers.time, "sleep", go_on)
    assert forget(lake, SUBJECTS["uri"]).unfinished_left == 1
