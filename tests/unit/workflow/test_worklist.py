"""What there is to do: the archive less what is done, claimed or erased; failed recordings again when asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dictalake.config.sections import Config
from dictalake.errors import ConfigError, RunError
from dictalake.lake.rechecks import LOST
from dictalake.lake.table import DONE
from dictalake.lake.tombstones import ErasedSubjects, hash_subject
from dictalake.records import BAD_LINE_VERSION, Recording, make_object_id
from dictalake.workflow.worklist import CLAIMED, Retry, WorkList, plan_blocks
from tests.lake_rows import make_failed_row, make_row


def as_done(rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in DONE.names} for row in rows], schema=DONE)


def find(
    found: Sequence[Recording],
    done: pa.Table,
    *,
    claimed: Sequence[str] = (),
    forbidden: ErasedSubjects = ErasedSubjects(),  # noqa: B008
    retry: Retry | None = None,
    lost: Sequence[tuple[str, int]] = (),
) -> WorkList:
    claims = pa.table({"recording_id": pa.array(claimed, pa.string())}, schema=CLAIMED)
    work = WorkList(found, forbidden, Config(), Path(tempfile.mkdtemp()))
    rows = pa.Table.from_pylist([{"recording_id": name, "attempt": attempt} for name, attempt in lost], schema=LOST)
    work.refresh(lambda: ds.dataset(done), lambda: ds.dataset(claims), retry, lost=rows)
    return work


def pending_of(found: Sequence[Recording], done: pa.Table, **changes: Any) -> list[Recording]:
    return [recording for block in find(found, done, **changes).blocks() for recording in block]


def make(name: str, day: int = 1, **changes: Any) -> Recording:
    return Recording(name, f"gs://a/{name}", "1", 10, datetime(2026, 3, day, tzinfo=UTC), **changes)


def failed(name: str, reason: str = "fetch_failed", *, retryable: bool = True, **changes: Any) -> dict[str, Any]:
    error = {"stage": "load", "reason": reason, "detail": "it failed", "retryable": retryable}
    return make_failed_row(name, error=error, **changes)


def test_what_is_done_is_left_out_and_the_rest_comes_in_order_of_date() -> None:
    found = [make("new", day=9), make("done"), make("old", day=2), make("new", day=9)]
    work = find(found, as_done([make_row("done")]))
    counts = work.counts
    assert (counts.found, counts.skipped, counts.pending) == (3, 1, 2)
    assert list(work.blocks()) == [[make("old", day=2), make("new", day=9)]]


def test_metadata_and_times_are_kept_and_the_first_of_two_lines_counts() -> None:
    first = make("a", metadata={"ward": "3b", "reference": "no fracture"})
    bare = Recording("b", "gs://a/b", "missing", 0)
    assert pending_of([first, make("a", metadata={"ward": "4a"}), bare], as_done([])) == [first, bare]


def test_of_two_links_to_one_object_the_first_that_says_how_to_read_it_counts() -> None:
    first, second, third = make("a", metadata={"ward": "3b"}), make("a", ending="vox"), make("a", ending="gsm")
    assert pending_of([make("b"), first, second, third], as_done([])) == [replace(first, ending="vox"), make("b")]


@pytest.mark.parametrize("is_done", [False, True])
def test_a_name_of_an_older_version_is_kept_with_another_model_too(is_done: bool) -> None:
    old_uri = "gs://a/old"
    old_id = make_object_id(old_uri, "1")
    found = [make("a", old_uris=(old_uri,)), make("b", old_uris=("gs://a/never",))]
    known = pa.table({"recording_id": [old_id, "c"], "archive_id": pa.array([None, None], pa.string())})
    done = as_done([make_row(old_id)] if is_done else [])
    work = WorkList(found, ErasedSubjects(), Config(), Path(tempfile.mkdtemp()))
    work.refresh(lambda: ds.dataset(done), lambda: ds.dataset(CLAIMED.empty_table()), known=lambda: ds.dataset(known))
    names = [one.recording_id for block in work.blocks() for one in block]
    assert sorted(names) == sorted(["b"] if is_done else [old_id, "b"])


def test_a_failed_recording_is_done_until_it_is_asked_for_again() -> None:
    done = as_done([failed("a"), failed("b", "not_audio", retryable=False), make_row("c")])
    found = [make("a"), make("b"), make("c")]
    work = find(found, done)
    assert (work.counts.pending, work.counts.skipped, work.counts.skipped_failed) == (0, 3, 2)
    assert pending_of(found, done, retry=Retry()) == [replace(make("a"), attempt=1)]
    assert pending_of(found, done, retry=Retry(("not_audio",))) == [replace(make("b"), attempt=1)]
    assert find(found, done, retry=Retry(("not_audio", "fetch_failed"))).counts.retried == 2


def test_only_the_newest_row_of_a_recording_says_whether_it_failed() -> None:
    healed = as_done([failed("a"), failed("a", attempt=1), make_row("a", attempt=2)])
    assert pending_of([make("a")], healed, retry=Retry()) == []
    assert find([make("a")], healed).counts.skipped_failed == 0
    failed_again = as_done([failed("a"), failed("a", attempt=1)])
    assert pending_of([make("a")], failed_again, retry=Retry()) == [replace(make("a"), attempt=2)]


ONLY_LOST = Retry(failed=False, lost=True)


def test_a_row_that_lost_sound_is_done_again_once_when_it_is_asked_for() -> None:
    found, lost = [make("a"), make("b"), make("c")], [("a", 0), ("c", 0)]
    done = as_done([make_row("a"), make_row("b"), failed("c")])
    assert pending_of(found, done, lost=lost) == []
    assert pending_of(found, done, lost=lost, retry=Retry(("not_audio",))) == []
    assert pending_of(found, done, lost=lost, retry=ONLY_LOST) == [replace(make("a"), attempt=1)]
    assert find(found, done, lost=lost, retry=ONLY_LOST).counts.retried == 1
    both = pending_of(found, done, lost=lost, retry=Retry(lost=True))
    assert both == [replace(make("a"), attempt=1), replace(make("c"), attempt=1)]
    for again in (make_row("a", attempt=1), failed("a", attempt=1), failed("a", "corrupt_audio", retryable=False, attempt=1)):
        assert pending_of(found, as_done([make_row("a"), make_row("b"), failed("c"), again]), lost=lost, retry=ONLY_LOST) == []


def test_of_an_archive_object_only_the_files_that_lost_sound_are_done_again() -> None:
    done = as_done([make_row(name, archive_id="z", archive_rows=2) for name in ("m1", "m2")])
    assert pending_of([make("z")], done, lost=[("m2", 0)]) == []
    (again,) = pending_of([make("z")], done, lost=[("m2", 0)], retry=ONLY_LOST)
    assert (again.done_members, dict(again.member_attempts)) == (("m1",), {"m2": 1})


def test_a_reason_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"^--retry-failed nonsense: no such reason; there are access_denied, .*"):
        Retry(("nonsense", "not_audio"))


def test_what_another_live_run_has_claimed_is_left_to_it() -> None:
    work = find([make("a"), make("b"), make("c")], as_done([make_row("c")]), claimed=["b", "c", "elsewhere"])
    assert (work.counts.claimed, work.counts.skipped) == (1, 1)
    assert list(work.blocks()) == [[make("a")]]


def test_what_was_erased_is_left_out_at_every_version() -> None:
    forbidden = ErasedSubjects(frozenset({hash_subject("uri", "gs://a/a")}))
    newer = replace(make("newer"), uri="gs://a/a", version="2")
    line = replace(make("line"), uri="gs://a/a#line-3-0", version=BAD_LINE_VERSION)  # of an erased manifest
    beside = replace(make("beside"), uri="gs://a/a#x.wav")  # an object with such a name
    work = find([make("a"), newer, line, beside, make("b")], as_done([]), forbidden=forbidden)
    assert (work.counts.erased, work.counts.found) == (3, 2)
    assert list(work.blocks()) == [[beside, make("b")]]


def test_only_the_failed_files_of_an_archive_object_are_tried_again() -> None:
    rows = [make_row("m1", archive_id="z", archive_rows=3), failed("m2", archive_id="z", archive_rows=3)]
    rows += [failed("m3", "not_audio", retryable=False, archive_id="z", archive_rows=3)]
    done = as_done(rows)
    assert pending_of([make("z")], done) == []
    (again,) = pending_of([make("z")], done, retry=Retry())
    assert (again.done_members, dict(again.member_attempts)) == (("m1", "m3"), {"m2": 1})


def test_a_half_done_archive_object_that_cannot_be_read_any_more_is_given_up_until_it_is_asked_for() -> None:
    half = [make_row("m1", archive_id="z", archive_rows=3), make_row("m2", archive_id="z", archive_rows=3)]
    (pending,) = pending_of([make("z")], as_done(half))
    assert (pending.archive_id, pending.done_members) == ("z", ("m1", "m2"))  # its own row will be known by its archive_id
    for reason, retryable in (("access_denied", False), ("worker_crashed", True), ("no_audio", False)):
        given_up = as_done([*half, failed("z", reason, retryable=retryable, archive_id="z")])
        assert pending_of([make("z")], given_up) == []
        assert find([make("z")], given_up).counts.skipped_failed == 1
        (again,) = pending_of([make("z")], given_up, retry=Retry((reason,)))
        assert (again.attempt, again.done_members) == (1, ("m1", "m2"))


def test_a_half_done_archive_object_that_failed_for_what_passes_is_tried_the_next_night_and_not_in_the_same_run() -> None:
    half = [make_row("m1", archive_id="z", archive_rows=2), failed("z", archive_id="z")]
    assert [one.attempt for one in pending_of([make("z")], as_done(half))] == [1]
    work, nobody = find([make("z")], as_done(half)), CLAIMED.empty_table()
    work.refresh(lambda: ds.dataset(as_done(half)), lambda: ds.dataset(nobody), is_same_run=True)
    assert work.counts.pending == 0


def test_what_is_still_missing_after_a_run_is_found_again() -> None:
    found = [make("a"), make("b"), make("c")]
    work = find(found, as_done([make_row("a")]))
    assert [len(block) for block in work.blocks()] == [2]
    done, nobody = as_done([make_row("a"), failed("b")]), CLAIMED.empty_table()
    work.refresh(lambda: ds.dataset(done), lambda: ds.dataset(nobody))
    assert list(work.blocks()) == [[make("c")]]
    work.leave_out(ErasedSubjects(frozenset({hash_subject("uri", "gs://a/c")})))
    assert (list(work.blocks()), work.counts.pending, work.counts.erased) == ([], 0, 1)
    work.refresh(lambda: ds.dataset(as_done([])), lambda: ds.dataset(nobody))
    assert [recording.recording_id for block in work.blocks() for recording in block] == ["a", "b"]


def look_again(work: WorkList, rows: list[dict[str, Any]]) -> list[Recording]:
    """What a later round of the same run still has to do."""
    done, nobody = as_done(rows), CLAIMED.empty_table()
    work.refresh(lambda: ds.dataset(done), lambda: ds.dataset(nobody), is_same_run=True)
    return [recording for block in work.blocks() for recording in block]


def test_a_retry_that_got_no_row_is_a_retry_in_the_next_round_too() -> None:
    before = [failed("a"), failed("b"), failed("c"), make_row("d"), failed("e", "not_audio", retryable=False)]
    found = [make(name) for name in "abcde"]
    work = find(found, as_done(before), retry=Retry(lost=True), lost=[("d", 0)])
    assert work.counts.retried == 4
    came = [make_row("a", attempt=1), failed("b", attempt=1)]  # one that fails again is not tried for ever
    again = [replace(make(name), attempt=1) for name in "cd"]
    assert look_again(work, before + came) == again
    assert look_again(work, before + came) == again
    assert look_again(work, [*before, *came, failed("c", attempt=1), make_row("d", attempt=1)]) == []
    assert pending_of(found, as_done(before)) == []


def test_of_an_archive_object_too_only_what_got_no_row_is_tried_again() -> None:
    z = {"archive_id": "z", "archive_rows": 2}
    before = [failed("m1", **z), failed("m2", **z)]
    recording = Recording("z", "gs://a/z.zip", "1", 10)
    work = find([recording], as_done(before), retry=Retry())
    [left] = look_again(work, [*before, make_row("m1", attempt=1, **z)])
    assert (left.done_members, left.member_attempts) == (("m1",), {"m2": 1})
    assert look_again(work, [*before, make_row("m1", attempt=1, **z), failed("m2", attempt=1, **z)]) == []
    # It could not be read any more: that is its row.
    assert look_again(work, [*before, failed("z", archive_id="z")]) == []


def test_of_a_part_that_is_planned_again_an_archive_object_is_there_once() -> None:
    before = [make_row("m1", archive_id="z", archive_rows=2)]
    work = WorkList((), ErasedSubjects(), Config(), Path(tempfile.mkdtemp()))
    work.add([Recording("z", "gs://a/z.zip", "1", 10)])
    part, nobody = work.close_part(), ds.dataset(CLAIMED.empty_table())
    for _ in range(2):
        work.refresh(lambda: ds.dataset(as_done(before)), lambda: nobody, part=part)
    assert [one.recording_id for one in look_again(work, before)] == ["z"]


def test_a_given_up_archive_object_that_is_tried_again_and_got_no_row_is_tried_once_more() -> None:
    z = {"archive_id": "z", "archive_rows": 2}
    before = [make_row("m1", **z), failed("z", "not_found", retryable=False, archive_id="z")]
    work = find([Recording("z", "gs://a/z.zip", "1", 10)], as_done(before), retry=Retry(("not_found",)))
    assert work.counts.retried == 1
    assert [one.recording_id for one in look_again(work, before)] == ["z"]
    assert look_again(work, [*before, make_row("m2", **z)]) == []
    assert look_again(work, [*before, failed("z", "not_found", retryable=False, archive_id="z", attempt=1)]) == []


def test_files_of_the_lake_that_vanish_are_looked_up_anew(tmp_path: Path) -> None:
    """A table that is put together meanwhile names other files."""
    work = WorkList([make("a"), make("b")], ErasedSubjects(), Config(), tmp_path)
    pq.write_table(as_done([make_row("a")]), tmp_path / "now.parquet")
    pq.write_table(as_done([make_row("a")]), tmp_path / "gone.parquet")
    answers = [ds.dataset([str(tmp_path / f"{name}.parquet")], schema=DONE, format="parquet") for name in ("gone", "now")]
    gone = answers[0]
    (tmp_path / "gone.parquet").unlink()
    work.refresh(lambda: answers.pop(0), lambda: ds.dataset(CLAIMED.empty_table()))
    assert list(work.blocks()) == [[make("b")]]
    with pytest.raises(RunError, match=r"^cannot compute the work list \(\w+\): [^/]*; then run the same command again$"):
        work.refresh(lambda: gone, lambda: ds.dataset(CLAIMED.empty_table()))


def test_a_look_at_what_is_done_keeps_no_footers_of_its_files(tmp_path: Path) -> None:
    """They would be most of the driver's memory: 0.2 MB for each block of recordings."""
    pq.write_table(as_done([make_row("a")]), tmp_path / "done.parquet")
    done = ds.dataset([str(tmp_path / "done.parquet")], schema=DONE, format="parquet")
    (tmp_path / "work").mkdir()
    work = WorkList([make("a"), make("b")], ErasedSubjects(), Config(), tmp_path / "work")
    work.refresh(lambda: done, lambda: ds.dataset(CLAIMED.empty_table()))
    assert work.counts.skipped == 1
    (tmp_path / "done.parquet").unlink()
    (file,) = done.get_fragments()
    with pytest.raises(FileNotFoundError):
        assert file.metadata


def test_the_list_is_left_on_disk_when_its_blocks_are_read_and_asked_again_later(tmp_path: Path) -> None:
    work, nobody = WorkList([make("a"), make("b")], ErasedSubjects(), Config(), tmp_path), CLAIMED.empty_table()
    work.refresh(lambda: ds.dataset(as_done([])), lambda: ds.dataset(nobody))
    assert list(work.blocks()) == [[make("a"), make("b")]]
    with duckdb.connect(str(tmp_path / "work.duckdb"), read_only=True) as other:  # refused while it is open
        assert other.execute("SELECT count(*) FROM listed").fetchall() == [(2,)]
    work.leave_out(ErasedSubjects(frozenset({hash_subject("uri", "gs://a/b")})))
    work.refresh(lambda: ds.dataset(as_done([make_row("a")])), lambda: ds.dataset(nobody), is_same_run=True)
    assert (work.counts.found, work.counts.pending, work.counts.erased) == (1, 0, 1)


def test_an_object_that_could_not_be_fetched_and_then_was_an_archive_is_done_with_its_files() -> None:
    rows = [failed("z"), *(make_row(name, archive_id="z", archive_rows=2) for name in ("m1", "m2"))]
    assert pending_of([make("z")], as_done(rows), retry=Retry()) == []
    assert find([make("z")], as_done(rows)).counts.skipped_failed == 0


@pytest.mark.parametrize("committed", [0, 1, 2, 3])
def test_an_archive_object_is_done_when_all_its_rows_are_committed(committed: int) -> None:

    of_object = {"archive_id": "z", "archive_rows": 3}
    rows = [make_row("m1", **of_object), make_row("m2", **of_object), make_failed_row("z", **of_object)][:committed]
    done = as_done(rows)
    recording = Recording("z", "gs://a/z.tar", "1", 10)
    pending = pending_of([recording], done)
    assert [(r.recording_id, r.done_members) for r in pending] == ([] if committed == 3 else [("z", ("m1", "m2")[:committed])])
    assert find([recording], done).counts.skipped_failed == (committed == 3)


def test_a_failed_look_at_a_half_done_archive_object_does_not_pass_for_its_end() -> None:
    rows = [make_row("m1", archive_id="z", archive_rows=3), make_failed_row("z")]
    done = as_done(rows)
    recording = Recording("z", "gs://a/z.tar", "1", 10)
    assert [r.done_members for r in pending_of([recording], done)] == [("m1",)]
    assert pending_of([recording], done.slice(1)) == []


def test_rows_of_other_looks_at_an_archive_object_do_not_count() -> None:
    """Of ten files nine are there, and a row that says that it could not be opened: the tenth is still to come."""
    rows = [make_row(f"m{n}", archive_id="z", archive_rows=10) for n in range(9)]
    unopened = make_failed_row("z", archive_id="z", archive_rows=1)
    unforeseen = make_failed_row("z", archive_id="z", archive_rows=11)
    recording = Recording("z", "gs://a/z.tar", "1", 10)
    done = as_done([unforeseen])
    assert pending_of([recording], done) == [replace(recording, attempt=1)]
    for own in (unopened, unforeseen):
        done = as_done([own, *rows])
        assert [len(r.done_members) for r in pending_of([recording], done)] == [9]
        tenth = {**rows[0], "recording_id": "m9"}
        done = as_done([own, *rows, tenth])
        assert pending_of([recording], done) == []


states = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.booleans(), st.booleans()), max_size=12)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(states, st.lists(st.sampled_from("abcdefgh"), max_size=12), st.lists(st.sampled_from("abc"), max_size=2), st.booleans())
def test_any_history_gives_what_a_model_of_it_gives(
    history: list[tuple[str, int, bool, bool]], listed: list[str], claimed: list[str], again: bool
) -> None:
    rows = {(name, attempt): (ok, retryable) for name, attempt, ok, retryable in history}
    newest: dict[str, tuple[int, bool, bool]] = {}
    for (name, attempt), (ok, retryable) in sorted(rows.items()):
        newest[name] = (attempt, ok, retryable)
    expected = {}
    for name in listed:
        if name not in newest:
            expected[name] = 0
        elif again and not newest[name][1] and newest[name][2]:
            expected[name] = newest[name][0] + 1
    expected = {name: attempt for name, attempt in expected.items() if name not in claimed}
    done = as_done(
        make_row(name, attempt=attempt) if ok else failed(name, retryable=retryable, attempt=attempt)
        for (name, attempt), (ok, retryable) in rows.items()
    )
    work = find([make(name) for name in listed], done, claimed=claimed, retry=Retry() if again else None)
    assert {recording.recording_id: recording.attempt for block in work.blocks() for recording in block} == expected
    assert work.counts.found == len(set(listed)) == work.counts.skipped + work.counts.claimed + work.counts.pending


def test_blocks_hold_every_recording_once_and_stay_small() -> None:
    recordings = [Recording(f"{n:032x}", f"a/{n}.wav", "1", size_bytes=n * 100_000) for n in range(100)]
    config = Config.model_validate({"ray": {"block_rows": 5, "block_mb": 20}})
    planned = list(plan_blocks(recordings, 100, config))
    assert [recording for block in planned for recording in block] == recordings
    assert max(len(block) for block in planned) == 5
    assert all(len(block) == 1 or sum(r.size_bytes for r in block) <= 20e6 for block in planned)
    assert len(list(plan_blocks(recordings, 100, Config()))) >= 15
