"""Two recordings never share an id, one recording has one id however its place is spelled, and old lakes keep theirs."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.archive.findings import Findings
from dictalake.archive.manifest import find_recordings, scan_recordings
from dictalake.archive.unpack import open_members
from dictalake.cli.main import run_command
from dictalake.config.sections import Archive, Config, Lake, Limits
from dictalake.config.uris import canonical_uri, list_spellings, read_path, show_path, spelled_uri, today_uri
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.query import open_lake
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import DONE, TranscriptTable
from dictalake.lake.tombstones import ErasedSubjects, Erasures, hash_subject
from dictalake.records import Recording, make_member_id, make_object_id, make_recording_id
from dictalake.workflow.row_origin import find_object
from dictalake.workflow.worklist import CLAIMED, Retry, WorkList
from tests.lake_rows import make_failed_row, make_row

VERSION = "1700000000000000000-5"


def put(path: Path, data: bytes = b"bytes") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(1, 1_700_000_000_000_000_000))
    return path


def scan(**keys: Any) -> tuple[list[Recording], Findings]:
    findings = Findings()
    return list(scan_recordings(Archive.model_validate(keys), findings)), findings


def work_on(
    done: Iterable[dict[str, Any]],
    forbidden: ErasedSubjects = ErasedSubjects(),  # noqa: B008
    **keys: Any,
) -> WorkList:
    """What a run over the archive has to do where the lake holds the rows ``done``."""
    findings = Findings()
    found = scan_recordings(Archive.model_validate(keys), findings)
    work = WorkList(found, forbidden, Config(), Path(tempfile.mkdtemp()), findings)
    rows = pa.Table.from_pylist([{name: row.get(name) for name in DONE.names} for row in done], schema=DONE)
    work.refresh(lambda: ds.dataset(rows), lambda: ds.dataset(CLAIMED.empty_table()))
    return work


def pending(work: WorkList) -> list[Recording]:
    return [recording for block in work.blocks() for recording in block]


# -- ids that meet -----------------------------------------------------------------------------------------------------

PARTS = st.text(st.sampled_from("ab#\n/~1"), max_size=6)
VERSIONS = st.sampled_from(["1", "5-99", "missing"])
OBJECTS = st.tuples(PARTS, VERSIONS)


@given(st.lists(OBJECTS, max_size=4, unique=True), st.lists(st.tuples(OBJECTS, PARTS), max_size=4, unique=True))
def test_no_object_and_no_file_in_one_have_the_same_id(
    objects: list[tuple[str, str]], members: list[tuple[tuple[str, str], str]]
) -> None:
    ids = [make_object_id(f"file:///{uri}", version) for uri, version in objects]
    for (uri, version), name in members:
        whole = f"file:///{uri}"
        ids.append(make_member_id(make_object_id(whole, version), whole, name, version))
    assert len(set(ids)) == len(ids)


def test_a_file_that_is_called_like_a_member_has_another_id() -> None:
    archive = Recording(make_object_id("file:///d/a.zip", VERSION), "file:///d/a.zip", VERSION, 5)
    member = make_member_id(archive.recording_id, archive.uri, "b.wav", VERSION)
    assert member == make_recording_id("file:///d/a.zip#b.wav", VERSION)  # as in every lake
    assert make_object_id("file:///d/a.zip#b.wav", VERSION) != member
    assert make_object_id("file:///d/b.wav", VERSION) == make_recording_id("file:///d/b.wav", VERSION)


def test_files_in_an_archive_object_with_a_mark_in_its_name_are_told_apart_too(tmp_path: Path) -> None:
    found = []
    for name, inside in (("a", "b#c.wav"), ("a#b", "c.wav")):
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as packed:
            packed.writestr(inside, b"sound")
            packed.comment = b"." * 2 * (7 - len(inside))  # so that both have one size, and thus one version
        put(tmp_path / name, sink.getvalue())
    assert len({(tmp_path / name).stat().st_size for name in ("a", "a#b")}) == 1
    recordings, _ = scan(uri=str(tmp_path))
    for recording in recordings:
        data = (tmp_path / recording.uri.rsplit("/", 1)[1]).read_bytes()
        with open_members(data, "zip", recording, Archive(), Limits()) as contents:  # type: ignore[call-arg]
            found += [member for member, _ in contents.members]
    assert [one.uri for one in found] == [f"file://{tmp_path}/a#b#c.wav"] * 2
    assert len({one.recording_id for one in found}) == 2
    for one in found:
        source = {"uri": one.uri, "version": one.version, "size_bytes": 1, "modified_at": None}
        row = make_row(one.recording_id, archive_id=one.archive_id, source=source)
        assert find_object(row).recording_id == one.archive_id


def test_a_name_that_is_no_utf_8_never_meets_one_that_spells_its_escape(tmp_path: Path) -> None:
    names = [b"\x80.wav", rb"\udc80.wav", rb"\u005cudc80.wav", rb"\u005c.wav", b"\\\x80.wav", rb"\\udc80.wav"]
    for name in names:
        put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)))
    recordings, _ = scan(uri=str(tmp_path))
    assert len({one.uri for one in recordings}) == len({one.recording_id for one in recordings}) == len(names)
    assert f"file://{tmp_path}/\\udc80.wav" in {one.uri for one in recordings}  # the bytes keep their URI
    for recording in recordings:
        assert os.fsencode(read_path(recording.uri.rsplit("/", 1)[1])) in names
        assert canonical_uri(recording.uri) == recording.uri


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))
def test_paths_are_shown_and_read_back(one: bytes, other: bytes) -> None:
    first, second = os.fsdecode(one), os.fsdecode(other)
    assert read_path(show_path(first)) == first
    assert (show_path(first) == show_path(second)) == (first == second)


@pytest.mark.parametrize("text", [r"\udc80", r"\u005cudc80", r"\u005c", r"\u005cu005c", "\\\udc80", r"\\udc80", r"\udc8", "a"])
def test_names_that_look_like_escapes_are_read_back(text: str) -> None:
    assert read_path(show_path(text)) == text


# -- one spelling ------------------------------------------------------------------------------------------------------


def test_a_file_has_one_id_in_listing_manifest_and_forget_however_it_is_spelled(tmp_path: Path) -> None:
    put(tmp_path / "archive/wards/y.wav")
    (tmp_path / "link").symlink_to("archive")
    spellings = [
        *("wards/y.wav", "./wards/y.wav", "wards//y.wav", "wards/./y.wav", "wards/../wards/y.wav", "../link/wards/y.wav"),
        *(f"{tmp_path}/archive/wards/y.wav", f"file://{tmp_path}//archive/wards/y.wav", f"file:{tmp_path}/link/wards/y.wav"),
        *(f"FILE://localhost{tmp_path}/archive/wards/y.wav", f"{tmp_path}/archive/wards/y.wav/"),
    ]
    (tmp_path / "archive/list.csv").write_text("\n".join(["uri", *spellings]) + "\n")
    uri = f"file://{tmp_path}/archive/wards/y.wav"
    for manifest in (f"{tmp_path}/archive/list.csv", f"{tmp_path}/link//list.csv", f"file:{tmp_path}/archive/../link/list.csv"):
        (named,) = find_recordings(Archive(manifest=manifest))
        assert (named.uri, named.recording_id) == (uri, make_recording_id(uri, VERSION))
    for root in ("archive", "archive/", "archive//", "link", "archive/wards/..", "./archive"):
        (listed,) = find_recordings(Archive(uri=f"{tmp_path}/{root}", include=("**/*.wav",)))
        assert listed.recording_id == named.recording_id
    for spelling in [one for one in spellings if tmp_path.name in one]:
        assert list_spellings(spelling)[0] == uri


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("gcs://b/a.wav", "gs://b/a.wav"),
        ("GS://b/a/", "gs://b/a"),
        ("s3a://b/a#x.wav", "s3://b/a#x.wav"),
        ("gs://b/a//b/../c", "gs://b/a//b/../c"),  # another key than a/c
        ("https://HOST:443/A/b/", "https://host/A/b/"),
        ("http://host:8080/a", "http://host:8080/a"),
        ("http://u@Host:80/a", "http://u@host/a"),
    ],
)
def test_objects_of_a_store_have_one_spelling_too(location: str, uri: str) -> None:
    assert canonical_uri(location) == uri
    assert list_spellings(location)[0] == uri


def test_what_was_erased_stays_out_however_the_folder_is_spelled_then(tmp_path: Path) -> None:
    put(tmp_path / "archive/wards/y.wav")
    put(tmp_path / "archive/wards/z.zip")
    (tmp_path / "link").symlink_to("archive")
    for given_uri in (
        f"{tmp_path}/link//wards/y.wav",
        f"file:{tmp_path}/archive/./wards/y.wav",
        "file://" + f"{tmp_path}/link/wards/y.wav",
    ):
        forbidden = ErasedSubjects(frozenset(hash_subject("uri", uri) for uri in list_spellings(given_uri)))
        for root in ("archive", "link/", "/archive//"):
            work = work_on([], forbidden, uri=f"{tmp_path}/{root}")
            assert [one.uri.rsplit("/", 1)[1] for one in pending(work)] == ["z.zip"]
            assert work.counts.erased == 1
    member = list_spellings(f"{tmp_path}/link/wards/z.zip#a/../../b.wav")
    assert member[0] == f"file://{tmp_path}/archive/wards/z.zip#a/../../b.wav"
    assert all(one.endswith("z.zip#a/../../b.wav") for one in member)


def test_what_was_erased_by_its_id_in_an_old_lake_stays_out_as_well(tmp_path: Path) -> None:
    put(tmp_path / "archive/wards/y.wav")
    (tmp_path / "link").symlink_to("archive")
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    old = f"file://{tmp_path}/link/wards/y.wav"
    source = {"uri": old, "version": VERSION}
    RunLog(lake)
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a", source=source)]), lake))
    forget(lake, Subjects(recordings=("a",)))
    forbidden = Erasures(lake).read()
    for root in ("archive", "link"):
        assert pending(work_on([], forbidden, uri=f"{tmp_path}/{root}")) == []
    (tmp_path / "archive/wards/y.wav").unlink()
    (tmp_path / "archive/wards/y.wav").symlink_to(put(tmp_path / "archive/innocent.wav"))
    assert today_uri(old) == f"file://{tmp_path}/archive/wards/y.wav"  # what became a link since is not followed


def test_what_an_older_version_erased_stays_out(tmp_path: Path) -> None:
    """Its tombstones are of the URI as it was spelled then, through the links of then."""
    put(tmp_path / "archive/wards/y.wav")
    (tmp_path / "archive/00-current").symlink_to("wards")
    (tmp_path / "archive/list.csv").write_text("uri\n.//wards/y.wav\n")
    for old in ("/archive/wards/y.wav", "archive/00-current/y.wav", "/archive/00-current/y.wav"):
        forbidden = ErasedSubjects(frozenset({hash_subject("uri", f"file://{tmp_path}/{old}")}))
        work = work_on([], forbidden, uri=f"{tmp_path}//archive", include=["**/*.wav"])
        assert (work.counts.pending, work.counts.erased) == (0, 1)
    forbidden = ErasedSubjects(frozenset({hash_subject("uri", f"file://{tmp_path}/archive//wards/y.wav")}))
    work = work_on([], forbidden, manifest=f"{tmp_path}/archive/list.csv")
    assert (work.counts.pending, work.counts.erased) == (0, 1)


# -- old lakes ---------------------------------------------------------------------------------------------------------


def old_row(uri: str, version: str = VERSION, **changes: Any) -> dict[str, Any]:
    return make_row(make_recording_id(uri, version), **changes)


@pytest.mark.parametrize("spelling", ["{0}//archive", "{0}/./archive", "{0}/link", "file://{0}/archive/wards/.."])
def test_an_old_lake_of_another_spelling_has_nothing_to_do_and_loses_nothing(tmp_path: Path, spelling: str) -> None:
    put(tmp_path / "archive/wards/y.wav")
    put(tmp_path / "archive/bad.wav")
    put(tmp_path / "archive/new.wav")
    (tmp_path / "link").symlink_to("archive")
    root = spelling.format(tmp_path)
    old = spelled_uri(root)
    assert old != f"file://{tmp_path}/archive"
    done = [old_row(f"{old}/wards/y.wav"), make_failed_row(make_recording_id(f"{old}/bad.wav", VERSION))]
    work = work_on(done, uri=root)
    assert (work.counts.found, work.counts.skipped, work.counts.skipped_failed) == (3, 2, 1)
    assert [one.uri for one in pending(work)] == [f"file://{tmp_path}/archive/new.wav"]
    assert pending(work_on(done, uri=f"{tmp_path}/archive"))  # nobody can know that spelling


def test_an_old_lake_that_walked_a_folder_under_a_link_has_nothing_to_do(tmp_path: Path) -> None:
    put(tmp_path / "wards/y.wav")
    put(tmp_path / "wards/deep/x.wav")
    (tmp_path / "00-current").symlink_to("wards")
    (tmp_path / "wards/01").symlink_to("deep")
    (tmp_path / "wards/up").symlink_to("..")
    (tmp_path / "again.wav").symlink_to("wards/y.wav")
    root = f"file://{tmp_path}"
    done = [old_row(f"{root}/00-current/y.wav"), old_row(f"{root}/00-current/01/x.wav"), old_row(f"{root}/again.wav")]
    work = work_on(done, uri=str(tmp_path))
    assert (work.counts.found, work.counts.skipped, work.counts.pending) == (2, 2, 0)
    # A link that is new changes nothing either.
    today = [old_row(f"{root}/wards/y.wav"), old_row(f"{root}/wards/deep/x.wav")]
    assert work_on(today, uri=str(tmp_path)).counts.pending == 0


def test_a_retry_counts_on_where_an_old_lake_stopped(tmp_path: Path) -> None:
    put(tmp_path / "archive/a.wav")
    old = f"file://{tmp_path}//archive/a.wav"
    failed = make_failed_row(make_recording_id(old, VERSION), attempt=1)
    work = work_on([failed], uri=f"{tmp_path}//archive")
    rows = pa.Table.from_pylist([{name: failed.get(name) for name in DONE.names}], schema=DONE)
    work.refresh(lambda: ds.dataset(rows), lambda: ds.dataset(CLAIMED.empty_table()), Retry(("not_audio",)))
    (again,) = pending(work)
    assert (again.uri, again.recording_id, again.attempt) == (old, failed["recording_id"], 2)


def test_an_archive_object_of_an_old_lake_is_gone_on_with_by_its_old_rule(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as packed:
        for name in ("1.wav", "2.wav"):
            packed.writestr(name, b"sound")
    path = put(tmp_path / "bed#2.zip", sink.getvalue())
    uri, version = f"file://{path}", f"1700000000000000000-{len(sink.getvalue())}"
    old_id = make_recording_id(uri, version)
    assert make_object_id(uri, version) != old_id
    done = [old_row(f"{uri}#1.wav", version, archive_id=old_id, archive_rows=2)]
    (half_done,) = pending(work_on(done, uri=str(tmp_path)))
    assert (half_done.recording_id, half_done.done_members) == (old_id, (done[0]["recording_id"],))
    with open_members(sink.getvalue(), "zip", half_done, Archive(), Limits()) as contents:  # type: ignore[call-arg]
        left = [member for member, _ in contents.members if member.recording_id not in half_done.done_members]
    assert [member.recording_id for member in left] == [make_recording_id(f"{uri}#2.wav", version)]
    done.append(old_row(f"{uri}#2.wav", version, archive_id=old_id, archive_rows=2))
    assert work_on(done, uri=str(tmp_path)).counts.pending == 0


def test_the_row_of_a_member_does_not_count_for_the_file_that_had_its_id(tmp_path: Path) -> None:
    """In an old lake one of the two was lost: which it was, the row says."""
    file = put(tmp_path / "a.zip#b.wav")
    uri = f"file://{file}"
    as_member = old_row(uri, archive_id=make_recording_id(f"file://{tmp_path}/a.zip", VERSION), archive_rows=1)
    assert [one.uri for one in pending(work_on([as_member], uri=str(tmp_path)))] == [uri]
    assert work_on([old_row(uri)], uri=str(tmp_path)).counts.pending == 0


def test_a_manifest_with_several_spellings_finds_whichever_the_old_lake_holds(tmp_path: Path) -> None:
    put(tmp_path / "a.wav")
    (tmp_path / "list.csv").write_text("uri\na.wav\n./a.wav\nx/../a.wav\n")
    for old in (f"file://{tmp_path}/a.wav", f"file://{tmp_path}/x/../a.wav"):
        work = work_on([old_row(old)], manifest=f"{tmp_path}/list.csv")
        assert (work.counts.found, work.counts.pending) == (1, 0)


def test_forget_erases_a_file_however_it_is_spelled(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    RunLog(lake)
    put(tmp_path / "archive/y.wav")
    (tmp_path / "link").symlink_to("archive")
    uri = f"file://{tmp_path}/archive/y.wav"
    rows = make_transcripts([make_row("a", source={"uri": uri, "version": VERSION}), make_row("b")])
    TranscriptTable(lake).commit(write_staged(rows, lake))
    assert run_command("forget", [str(lake.uri), "--uri", f"file:{tmp_path}/link//./y.wav", "--yes"]) == 0
    assert open_lake(str(lake.uri)).to_table()["recording_id"].to_pylist() == ["b"]
    assert Erasures(lake).read().covers_uri(uri)


def test_forget_erases_what_an_old_lake_reached_through_a_link(tmp_path: Path) -> None:
    """Before 0.2 a folder was walked by its links: the row has another path than a listing of today, and than an operator."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    put(tmp_path / "archive/wards/y#1.wav")
    put(tmp_path / "archive/wards/z.zip")
    (tmp_path / "archive/00-current").symlink_to("wards")
    old, other = f"file://{tmp_path}/archive/00-current", f"file://{tmp_path}/archive/lists/y#1.wav"
    zipped = make_object_id(f"{old}/z.zip", VERSION)
    inside = {"source": {"uri": f"{old}/z.zip#m/y.wav", "version": VERSION}, "archive_id": zipped, "archive_rows": 1}
    rows = [
        make_row("a", source={"uri": f"{old}/y#1.wav", "version": VERSION}),
        make_row("m", **inside),
        make_row("b", source={"uri": other, "version": VERSION}),
    ]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    today = [f"{tmp_path}/archive/wards/{name}" for name in ("y#1.wav", "z.zip#m/y.wav")]
    assert run_command("forget", [str(lake.uri), "--yes", "--uri", today[0], "--uri", today[1]]) == 0
    assert open_lake(str(lake.uri)).to_table()["recording_id"].to_pylist() == ["b"]
    erased = Erasures(lake).read()
    assert all(erased.covers_uri(f"file://{one}") for one in today)
    assert erased.covers_recording(f"{old}/y#1.wav", VERSION, None)
    assert erased.covers_recording(f"{old}/z.zip#m/y.wav", VERSION, zipped)


def test_forget_takes_nobody_else_where_a_link_has_been_turned_to_another_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``current`` led to October when the row was made, and leads to the November of other people."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    put(tmp_path / "archive/2026-11/1.wav", b"another person")
    (tmp_path / "archive/current").symlink_to("2026-11")
    old, today = f"file://{tmp_path}/archive/current/1.wav", f"file://{tmp_path}/archive/2026-11/1.wav"
    of_november = "1700000000000000000-14"
    rows = [
        make_row("october", source={"uri": old, "version": VERSION}),
        make_row("november", source={"uri": old, "version": of_november}),
        make_row("november", source={"uri": old, "version": of_november}, fingerprint="another"),
    ]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))

    def read_ids() -> set[str]:
        return set(open_lake(str(lake.uri)).to_table()["recording_id"].to_pylist())

    assert run_command("forget", [str(lake.uri), "--recording", "october", "--yes"]) == 0
    assert read_ids() == {"november"}
    assert "--recording november: may be meant too" in capsys.readouterr().out
    work = work_on([], Erasures(lake).read(), uri=f"{tmp_path}/archive/current")
    assert (work.counts.pending, work.counts.erased) == (1, 0)
    TranscriptTable(lake).commit(
        write_staged(make_transcripts([make_row("older", source={"uri": old, "version": "1-5"})]), lake)
    )
    capsys.readouterr()
    assert run_command("forget", [str(lake.uri), "--uri", today, "--dry-run", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["recording_id"], one["uri"]) for one in shown["doubtful"]] == [("older", old)]
    assert run_command("forget", [str(lake.uri), "--uri", today, "--yes"]) == 0
    assert read_ids() == {"older"}
    assert "--recording older: may be meant too" in capsys.readouterr().out
    assert work_on([], Erasures(lake).read(), uri=f"{tmp_path}/archive").counts.erased == 1
    put(tmp_path / "archive/2026-12/1.wav", b"yet another person")
    (tmp_path / "archive/current").unlink()
    (tmp_path / "archive/current").symlink_to("2026-12")
    work = work_on([], Erasures(lake).read(), uri=f"{tmp_path}/archive")
    assert (work.counts.pending, work.counts.erased) == (1, 1)
