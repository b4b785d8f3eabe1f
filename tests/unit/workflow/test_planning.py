"""Work begins while the archive is listed: nothing is planned twice, nothing is left out, and what was refused still is."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import count, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dictalake import retries
from dictalake.archive.findings import Findings
from dictalake.config.sections import Archive, Config
from dictalake.errors import ArchiveEmpty, RunError
from dictalake.lake import turns
from dictalake.lake.claims import LeaseStore, make_lease
from dictalake.lake.manifests import BlockPlace, Manifests
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.lake.tombstones import ErasedSubjects
from dictalake.observers.stats import RunStats
from dictalake.records import Recording, make_object_id
from dictalake.workflow import columns, listing_reader, planning
from dictalake.workflow.listing_reader import ListingReader
from dictalake.workflow.planning import Planning, may_begin_early
from dictalake.workflow.shares import ShareBook
from dictalake.workflow.worklist import CLAIMED, Counts, Retry, WorkList
from tests.lake_rows import make_row
from tests.unit.workflow.test_worklist import as_done, failed, make


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Nothing waits for the clock: a part is planned as soon as there is something in it."""
    monkeypatch.setattr(planning, "_PART_S", 0.0)
    monkeypatch.setattr(planning, "_REST", 0.0)
    monkeypatch.setattr(planning, "_LOOK_S", 0.01)
    monkeypatch.setattr(planning, "_STEP_S", 0.0)
    monkeypatch.setattr(turns, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(retries, "STORAGE_REQUEST", retries.Backoff(0.0, 0.0, 0.0))
    return Config.model_validate({"lake": {"uri": str(tmp_path / "lake"), "lease_s": 3600.0}})


@contextmanager
def plan(config: Config, scan: Callable[[], Iterator[Recording]], **options: Any) -> Iterator[Planning]:
    """The planning of a run that has its turn."""
    store, lease, table = LeaseStore(config.lake), make_lease("r1", "backfill", "f1"), TranscriptTable(config.lake)
    findings = options.pop("findings", Findings())
    with (
        store.hold(lease, lambda lease: lease) as renew,
        ListingReader(scan) as listing,
        tempfile.TemporaryDirectory() as folder,
    ):
        peers = store.await_peers(lease, renew)
        work = WorkList((), ErasedSubjects(), config, Path(folder))
        given = (config, "r1", "f1", table, RunStats(), findings, listing, work, store, lease, renew, peers)
        made = Planning(*given, **{"is_early": True, **options})
        listing.start()
        yield made


def plan_rest(made: Planning, book: ShareBook) -> None:
    for _ in made.feed(repeat(None), book):  # type: ignore[arg-type]
        if made.is_over:
            return


def read_manifest(config: Config, run_id: str = "r1") -> list[str]:
    return sorted(Manifests(config.lake).find([run_id], CLAIMED).to_table()["recording_id"].to_pylist())


def test_the_first_block_is_there_while_the_listing_waits_for_it(config: Config) -> None:
    has_begun = threading.Event()

    def scan() -> Iterator[Recording]:
        yield from (make("a"), make("b"))
        assert has_begun.wait(60)
        yield from (make("c"), make("a"), make("d"))

    ends: list[int] = []
    with plan(config, scan, on_planned=lambda made: ends.append(made.counts.pending)) as made:
        places = made.plan_first()
        assert not made.is_over
        assert ends == []
        made.stats.expect(made.counts.pending, {}, is_growing=True)
        first = Manifests(config.lake).read_block("r1", BlockPlace(**places.to_pylist()[0]))["recording_id"].to_pylist()
        assert set(first) <= {"a", "b"}
        assert "of at least" in made.stats.describe()
        has_begun.set()
        book = ShareBook(places, is_closed=False)
        plan_rest(made, book)
        assert read_manifest(config) == ["a", "b", "c", "d"]  # each once
        assert (made.counts, ends) == (Counts(found=4, pending=4), [4])
        assert made.stats.wanted == 4
        assert "at least" not in made.stats.describe()
        assert made.stats.objects["recordings"] == 4
        blocks = [share.places.to_pylist() for share in book.take("runner", 99)]
        given = [one for block in blocks for place in block for one in _read(config, place)]
        assert sorted(given) == ["a", "b", "c", "d"]
        assert book.is_draining


def _read(config: Config, place: dict[str, int]) -> list[str]:
    return list(Manifests(config.lake).read_block("r1", BlockPlace(**place))["recording_id"].to_pylist())


def test_a_listing_that_is_over_soon_is_one_part_as_before(config: Config) -> None:
    with plan(config, lambda: iter([make("a"), make("b")]), is_early=False) as made:
        made.plan_first()
        assert (made.is_over, made.counts.pending, made.stats.objects) == (True, 2, {})


def test_of_an_interrupted_listing_only_what_has_no_row_is_planned_again(config: Config) -> None:
    TranscriptTable(config.lake).commit(write_staged(make_transcripts([make_row("a", fingerprint="f1")]), config.lake))
    with plan(config, lambda: iter([make("a"), make("b")])) as made:
        places = made.plan_first()
        if not made.is_over:
            plan_rest(made, ShareBook(places, is_closed=False))
        assert (made.counts.skipped, made.counts.pending, read_manifest(config)) == (1, 1, ["b"])


def test_a_night_that_finds_nothing_new_does_not_look_at_the_lake_again_and_again(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"r{number:03}" for number in range(200)]
    rows = [make_row(name, fingerprint="f1") for name in names]
    TranscriptTable(config.lake).commit(write_staged(make_transcripts(rows), config.lake))
    monkeypatch.setattr(planning, "_REST", 1e9)
    has_looked, looks, refresh = threading.Event(), list[int](), WorkList.refresh

    def note(work: WorkList, *arguments: Any, **options: Any) -> None:
        refresh(work, *arguments, **options)
        looks.append(work.counts.found)
        has_looked.set()

    def scan() -> Iterator[Recording]:
        yield make(names[0])
        assert has_looked.wait(60)
        yield from map(make, names)

    monkeypatch.setattr(WorkList, "refresh", note)
    with plan(config, scan) as made:
        made.plan_first()
        assert (made.is_over, made.counts.skipped, looks) == (True, 200, [1, 199])


def test_what_the_listing_raises_late_ends_the_run_and_what_was_planned_stays(config: Config) -> None:
    has_begun = threading.Event()

    def scan() -> Iterator[Recording]:
        yield make("a")
        assert has_begun.wait(60)
        raise RunError("the storage does not answer")

    with plan(config, scan) as made:
        places = made.plan_first()
        has_begun.set()
        with pytest.raises(RunError, match=r"^the storage does not answer$"):
            plan_rest(made, ShareBook(places, is_closed=False))
        assert read_manifest(config) == ["a"]


def test_an_archive_that_lists_nothing_is_refused_at_its_end_and_nothing_is_written_before(config: Config) -> None:
    def refuse() -> None:
        raise ArchiveEmpty("archive_empty")

    with plan(config, lambda: iter([]), on_listed=refuse) as made, pytest.raises(ArchiveEmpty):
        made.plan_first()
    assert read_manifest(config) == []


def test_nothing_begins_before_a_line_that_may_be_read(config: Config) -> None:
    """A manifest of which no line may be read is refused as a whole."""
    findings = Findings(not_allowed=1)

    def scan() -> Iterator[Recording]:
        yield make("outside")
        assert looked.wait(60)
        findings.allowed += 1
        yield make("inside")

    looked = threading.Event()
    with plan(config, scan, findings=findings) as made:
        made.renew.check = count_to(3, looked)  # type: ignore[method-assign]
        made.plan_first()
        assert read_manifest(config) == ["inside", "outside"]


def count_to(most: int, event: threading.Event) -> Callable[[], None]:
    """A function that sets ``event`` when it was called so often."""
    calls = count(1)
    return lambda: event.set() if next(calls) >= most else None


def test_what_another_run_has_claimed_since_the_first_part_is_left_to_it(config: Config) -> None:
    has_begun = threading.Event()

    def scan() -> Iterator[Recording]:
        yield make("a")
        assert has_begun.wait(60)
        yield from (make("b"), make("c"))

    with plan(config, scan) as made:
        places = made.plan_first()
        made.renew(replace(made.lease, state="running"))
        other = replace(make_lease("r2", "nightly", "f1"), state="running")
        made.store.write(other)
        list(Manifests(config.lake).write("r2", [make_block("b")], make_block("b").schema))
        has_begun.set()
        for steps, _ in enumerate(made.feed(repeat(None), ShareBook(places, is_closed=False))):  # type: ignore[arg-type]
            made.store.write(replace(other, beats=steps))  # it is alive
            if made.is_over:
                break
        assert (read_manifest(config), made.counts.claimed, list(made.others)) == (["a", "c"], 1, ["r2"])


@pytest.mark.parametrize("comes_back", [True, False])
def test_leases_that_cannot_be_read_for_a_moment_do_not_end_a_run_at_work(
    config: Config, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    has_begun, tries, read = threading.Event(), count(1), LeaseStore.read

    def scan() -> Iterator[Recording]:
        yield make("a")
        assert has_begun.wait(60)
        yield make("b")

    def read_badly(store: LeaseStore) -> Any:
        if comes_back and next(tries) > 5:
            return read(store)
        raise RunError("cannot read the leases")

    with plan(config, scan) as made:
        places = made.plan_first()
        monkeypatch.setattr(LeaseStore, "read", read_badly)
        if not comes_back:
            monkeypatch.setattr(made.store, "_lease_s", 0.0)
        has_begun.set()
        with nullcontext() if comes_back else pytest.raises(RunError, match="cannot read the leases"):
            plan_rest(made, ShareBook(places, is_closed=False))
        assert read_manifest(config) == (["a", "b"] if comes_back else ["a"])


def make_block(name: str) -> pa.Table:
    return columns.recordings_to_table([make(name)])


@pytest.mark.parametrize(
    ("archive", "holds_rows", "may"),
    [
        ({"uri": "gs://bucket/dictations"}, True, True),
        ({"uri": "/archive"}, True, False),
        ({"uri": "file:///archive"}, True, False),
        ({"uri": "/archive"}, False, True),
        ({"uri": "/archive", "manifest": "list.csv"}, True, True),
        ({"inventory": "gs://bucket/manifest.json"}, True, True),
    ],
)
def test_a_folder_is_listed_to_its_end_where_the_lake_may_know_older_names_of_it(
    config: Config, archive: dict[str, str], holds_rows: bool, may: bool
) -> None:
    table = TranscriptTable(config.lake)
    if holds_rows:
        table.commit(write_staged(make_transcripts([make_row("a", fingerprint="f1")]), config.lake))
    assert may_begin_early(Archive.model_validate(archive), table, config) is may


def work_in_parts(
    listed: list[Recording], cuts: list[int], retry: Retry | None, done: Any, claimed: Sequence[str] = (), known: Any = None
) -> tuple[dict[str, int], Counts]:
    claims = pa.table({"recording_id": pa.array(claimed, pa.string())}, schema=CLAIMED)
    found, total, first = dict[str, int](), Counts(), 0

    def list_known() -> ds.Dataset:
        return ds.dataset(done if known is None else known)

    with tempfile.TemporaryDirectory() as folder:
        work = WorkList((), ErasedSubjects(), Config(), Path(folder))
        for cut in [*sorted(cuts), len(listed)]:
            work.add(listed[first:cut])
            first = max(first, cut)
            part = work.close_part()
            work.refresh(lambda: ds.dataset(done), lambda: ds.dataset(claims), retry, known=list_known, part=part)
            for block in work.blocks():
                for one in block:
                    assert one.recording_id not in found, "planned twice"
                    found[one.recording_id] = one.attempt
            names = ("found", "skipped", "skipped_failed", "claimed", "pending", "retried")
            total = Counts(**{name: getattr(total, name) + getattr(work.counts, name) for name in names})
    return found, total


histories = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.booleans(), st.booleans()), max_size=12)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    histories,
    st.lists(st.sampled_from("abcdefgh"), max_size=12),
    st.lists(st.integers(0, 12), max_size=3),
    st.lists(st.sampled_from("abc"), max_size=2),
    st.booleans(),
)
def test_parts_are_the_same_work_as_the_whole(
    history: list[tuple[str, int, bool, bool]], listed: list[str], cuts: list[int], claimed: list[str], again: bool
) -> None:
    rows = {(name, attempt): (ok, retryable) for name, attempt, ok, retryable in history}
    done = as_done(
        make_row(name, attempt=attempt) if ok else failed(name, retryable=retryable, attempt=attempt)
        for (name, attempt), (ok, retryable) in rows.items()
    )
    given_now = [make(name) for name in listed]
    retry = Retry() if again else None
    assert work_in_parts(given_now, cuts, retry, done, claimed) == work_in_parts(given_now, [], retry, done, claimed)


def test_files_of_archive_objects_are_counted_with_their_object_in_whatever_part_it_is() -> None:
    done = as_done(
        [
            make_row("m0", archive_id="z", archive_rows=3),
            failed("m1", archive_id="z", archive_rows=3),
            make_row("y0", archive_id="y", archive_rows=1),
        ]
    )
    listed = [make("x"), make("y"), make("z")]
    whole = work_in_parts(listed, [], None, done)
    assert whole[0] == {"x": 0, "z": 0}
    assert work_in_parts(listed, [1, 2], None, done) == whole


def test_a_recording_that_goes_by_an_older_name_is_not_planned_again_by_its_new_one() -> None:
    old_uri = "gs://a/old"
    old_id = make_object_id(old_uri, "1")
    twice = [make("a", old_uris=(old_uri,)), make("b"), make("a", old_uris=(old_uri,))]
    known = pa.table({"recording_id": [old_id], "archive_id": pa.array([None], pa.string())})
    found, counts = work_in_parts(twice, [1, 2], None, as_done([]), known=known)
    assert (found, counts.found) == ({old_id: 0, "b": 0}, 2)


def test_a_recording_at_work_gets_no_older_name_by_a_later_part() -> None:
    """Its row has the id that it was planned with: by another id it would be missing, and be transcribed again."""
    old_uri = "gs://a/old"
    known = pa.table({"recording_id": [make_object_id(old_uri, "1")], "archive_id": pa.array([None], pa.string())})
    nobody = ds.dataset(CLAIMED.empty_table())
    with tempfile.TemporaryDirectory() as folder:
        work = WorkList((), ErasedSubjects(), Config(), Path(folder))
        for listed in (make("a"), make("a", old_uris=(old_uri,))):
            work.add([listed])
            part = work.close_part()
            work.refresh(lambda: ds.dataset(as_done([])), lambda: nobody, known=lambda: ds.dataset(known), part=part)
        work.refresh(
            lambda: ds.dataset(as_done([make_row("a")])), lambda: nobody, known=lambda: ds.dataset(known), is_same_run=True
        )
        assert (work.counts.found, work.counts.pending) == (1, 0)


def test_what_failed_in_an_earlier_part_of_this_run_is_not_asked_for_by_its_next_part() -> None:
    nobody = ds.dataset(CLAIMED.empty_table())
    with tempfile.TemporaryDirectory() as folder:
        work = WorkList((), ErasedSubjects(), Config(), Path(folder))
        work.add([make("a")])
        work.refresh(lambda: ds.dataset(as_done([])), lambda: nobody, Retry(), part=work.close_part())
        work.add([make("b")])
        work.refresh(lambda: ds.dataset(as_done([failed("a")])), lambda: nobody, Retry(), part=work.close_part())
        assert [one.recording_id for block in work.blocks() for one in block] == ["b"]
        work.refresh(lambda: ds.dataset(as_done([failed("a"), make_row("b")])), lambda: nobody, is_same_run=True)
        assert work.counts.pending == 0


def test_a_listing_does_not_run_ahead_of_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_reader, "_MOST_WAITING", 5)
    has_run_ahead = threading.Event()

    def scan() -> Iterator[Recording]:
        for number in range(1_000):
            if number > 5:
                has_run_ahead.set()
            yield make(str(number))

    with ListingReader(scan) as reader:
        reader.start()
        assert not has_run_ahead.wait(0.2), "nobody has taken anything"
        while not has_run_ahead.is_set():
            assert 1 <= len(reader.take(60.0)) <= 5
        assert not reader.is_over
    assert not reader._thread.is_alive()  # it ended with the context
