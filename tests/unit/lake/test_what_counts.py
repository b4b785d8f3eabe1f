"""The view ``transcripts`` has one row for each current recording, of the fingerprint that people promoted."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError
from dictalake.lake import superseded
from dictalake.lake.contract import without_docs
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.fingerprints import (
    FingerprintLog,
    FingerprintRecord,
    keep_what_counts,
    list_fingerprints,
    promote,
    read_fingerprints,
)
from dictalake.lake.maintenance import compact
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import PARTITIONS, make_transcripts
from dictalake.lake.search import TextIndex
from dictalake.lake.storage import open_storage
from dictalake.lake.superseded import open_superseded, refresh_superseded
from dictalake.lake.views import RECORDINGS
from tests.truth_lake import FIRST_DAY, A, B, C, ask, commit, make_lake, make_version, name_recording, show


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def test_without_a_promotion_every_fingerprint_counts_as_in_older_versions(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"), make_version("gs://a/2"))
    commit(lake, make_version("gs://a/1", fingerprint=B, day=2))
    assert show(lake) == {"gs://a/1": ("1", B), "gs://a/2": ("1", A)}
    assert ask(lake, "FROM promotions") == []


def test_what_an_older_lake_showed_stays_until_somebody_promotes_and_new_fingerprints_are_experiments(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"), make_version("gs://a/2"))
    commit(lake, make_version("gs://a/1", fingerprint=B, day=2))
    before = show(lake)
    keep_what_counts(lake)
    keep_what_counts(lake)
    assert read_fingerprints(lake).promoted == ((A, B),)
    assert read_fingerprints(lake).production is None
    commit(lake, *(make_version(uri, fingerprint=C, day=3) for uri in ("gs://a/1", "gs://a/2", "gs://a/3")))
    assert show(lake) == before
    promote(lake, A)
    assert show(lake) == {"gs://a/1": ("1", A), "gs://a/2": ("1", A)}
    promote(lake, C)
    assert show(lake) == {f"gs://a/{n}": ("1", C) for n in (1, 2, 3)}


def test_the_first_promotion_in_an_older_lake_hides_no_recording(lake: Lake) -> None:
    commit(
        lake, make_version("gs://a/1"), make_version("gs://a/1", fingerprint=B, day=2), make_version("gs://a/2", fingerprint=B)
    )
    promote(lake, A)
    assert show(lake) == {"gs://a/1": ("1", A), "gs://a/2": ("1", B)}


def test_the_first_runs_fingerprint_is_production_and_an_experiment_never_shows(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"))
    log = FingerprintLog(lake)
    log.promote_first(A, "run-1")
    commit(lake, make_version("gs://a/1", fingerprint=B, day=2), make_version("gs://a/2", fingerprint=B, day=2))
    log.promote_first(B, "run-2")
    assert show(lake) == {"gs://a/1": ("1", A)}
    assert ask(lake, "SELECT fingerprint, place, run_id FROM promotions") == [(A, 0, "run-1")]


def test_a_recording_without_a_row_of_production_shows_that_of_the_newest_earlier_promotion(lake: Lake) -> None:
    commit(lake, *(make_version(f"gs://a/{n}") for n in (1, 2, 3)))
    FingerprintLog(lake).promote_first(A, "run-1")
    commit(lake, *(make_version(f"gs://a/{n}", fingerprint=B, day=2) for n in (1, 2)))
    promote(lake, B)
    commit(lake, make_version("gs://a/1", fingerprint=C, day=3))
    promote(lake, C)
    assert show(lake) == {"gs://a/1": ("1", C), "gs://a/2": ("1", B), "gs://a/3": ("1", A)}
    promote(lake, A)  # back
    assert show(lake) == {f"gs://a/{n}": ("1", A) for n in (1, 2, 3)}
    names = ask(lake, "SELECT fingerprint, place, replaced FROM promotions ORDER BY place")
    assert names == [(A, 0, C), (C, 1, B), (B, 2, A)]
    assert [record.fingerprint for record in read_fingerprints(lake).records] == [A, B, C, A], "the history stays"


def test_a_failed_row_of_production_leaves_the_good_row_of_before(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"))
    FingerprintLog(lake).promote_first(A, "run-1")
    commit(lake, make_version("gs://a/1", fingerprint=B, day=2, status="failed"))
    promote(lake, B)
    assert show(lake) == {"gs://a/1": ("1", A)}


def test_a_promotion_names_who_made_it_and_only_what_is_there_can_be_promoted(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, make_version("gs://a/1"), make_version("gs://a/1", fingerprint=B))
    monkeypatch.setenv("LOGNAME", "olga")
    assert promote(lake, B)
    [(who,)] = ask(lake, "SELECT promoted_by FROM promotions WHERE place = 0")
    assert who.startswith("olga@")
    assert not promote(lake, B)
    with pytest.raises(ConfigError, match=f"^{C}: the lake has no rows of this fingerprint; it has {A}, {B}$"):
        promote(lake, C)


def test_of_promotions_at_the_same_time_none_is_lost_and_one_is_first(lake: Lake) -> None:
    commit(lake, *(make_version("gs://a/1", fingerprint=name) for name in (A, B, C)))
    barrier = threading.Barrier(3)

    def begin(name: str) -> None:
        log = FingerprintLog(lake)
        barrier.wait()
        log.promote_first(name, f"run-{name}")

    FingerprintLog(lake)
    threads = [threading.Thread(target=begin, args=(name,)) for name in (A, B, C)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_fingerprints(lake).records) == 1


def test_a_promotion_by_a_machine_whose_clock_is_behind_counts_from_its_commit(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"), make_version("gs://a/1", fingerprint=B))
    log = FingerprintLog(lake)
    ahead = promote_ahead(log)
    assert promote(lake, B)
    assert read_fingerprints(lake).production == B
    assert read_fingerprints(lake).records[-1].at > ahead


def promote_ahead(log: FingerprintLog) -> datetime:
    """The date of a promotion of A, a century ahead."""
    at = FIRST_DAY + timedelta(days=36_500)
    log._append(FingerprintRecord(event="promoted", fingerprint=A, at=at))
    return at


@pytest.mark.parametrize("is_written_down", [False, True])
def test_a_replaced_recording_shows_once_and_history_says_what_replaced_it(lake: Lake, is_written_down: bool) -> None:
    commit(lake, make_version("gs://a/1", 1), make_version("gs://a/2", 1))
    commit(lake, make_version("gs://a/1", 2, day=40, modified=40))  # in another month
    if is_written_down:
        assert refresh_superseded(lake) == 1
    assert show(lake) == {"gs://a/1": ("2", A), "gs://a/2": ("1", A)}
    old, new = (name_recording("gs://a/1", version) for version in (1, 2))
    rows = ask(lake, "SELECT source.version, is_current, superseded_by FROM history WHERE source.uri = 'gs://a/1' ORDER BY 1")
    assert rows == [("1", False, new), ("2", True, None)]
    commit(lake, make_version("gs://a/1", 3, day=41, modified=41))
    assert show(lake)["gs://a/1"] == ("3", A), "what was written down is older than this row"
    newest = name_recording("gs://a/1", 3)
    assert dict(ask(lake, "FROM superseded")) == {old: newest, new: newest}
    assert refresh_superseded(lake) == 2
    assert dict(ask(lake, "FROM superseded")) == {old: newest, new: newest}


def test_a_file_that_is_replaced_by_one_with_an_older_date_is_replaced_all_the_same(lake: Lake) -> None:
    commit(lake, make_version("/data/1", 1, day=1, modified=9), make_version("gs://a/1", 1, day=1, modified=9))
    commit(lake, make_version("/data/1", 2, day=2, modified=3), make_version("gs://a/1", 2, day=2, modified=3))
    assert show(lake) == {"/data/1": ("2", A), "gs://a/1": ("1", A)}, "an object store dates its versions itself"


def test_a_new_version_that_failed_replaces_and_one_that_changed_while_it_was_read_does_not(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1", 1), make_version("gs://a/2", 1))
    commit(lake, make_version("gs://a/1", 2, day=2, status="failed"))
    changed = {"stage": "load", "reason": "changed_during_read", "detail": "", "retryable": True}
    commit(lake, make_version("gs://a/2", 2, day=2, status="failed", error=changed))
    assert show(lake) == {"gs://a/2": ("1", A)}
    [(reason,)] = ask(lake, "SELECT reason FROM recordings WHERE uri = 'gs://a/1'")
    assert reason == "not_audio"


def test_a_version_that_only_an_experiment_has_seen_replaces_nothing(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1", 1))
    FingerprintLog(lake).promote_first(A, "run-1")
    commit(lake, make_version("gs://a/1", 2, day=2, fingerprint=B))
    refresh_superseded(lake)
    assert show(lake) == {"gs://a/1": ("1", A)}
    promote(lake, B)  # what was written down is of another set of fingerprints that count
    assert show(lake) == {"gs://a/1": ("2", B)}


def test_what_was_replaced_is_read_from_what_a_run_wrote_down_until_rows_come(lake: Lake) -> None:
    """The proof is destruction: with the rows of other months gone, only what was written down can tell."""
    commit(lake, make_version("gs://a/1", 1), make_version("gs://a/1", 2, day=40, modified=40))
    march = "SELECT source.version FROM transcripts WHERE recorded_month = '2026-03'"
    refresh_superseded(lake)
    compact(lake)  # brings no rows
    for path in Path(f"{lake.uri}/transcripts/fingerprint={A}/recorded_month=2026-04").iterdir():
        path.rename(path.with_suffix(".away"))
    assert ask(lake, march) == []
    for path in Path(f"{lake.uri}/transcripts/fingerprint={A}/recorded_month=2026-04").iterdir():
        path.rename(path.with_suffix(".parquet"))
    commit(lake, make_version("gs://a/2", 1))
    assert ask(lake, march) == [("1",)]


def test_an_erased_recording_is_in_no_pair_of_what_was_replaced(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1", 1), make_version("gs://a/2", 1), make_version("gs://a/2", 2, day=2))
    commit(lake, make_version("gs://a/1", 2, day=2))
    RunLog(lake)
    assert refresh_superseded(lake) == 2
    forget(lake, Subjects(uris=("gs://a/1",)))
    ids = {one for pair in ask(lake, "FROM superseded") for one in pair}
    assert ids == {name_recording("gs://a/2", 1), name_recording("gs://a/2", 2)}


def test_files_inside_a_replaced_archive_are_replaced_and_those_that_it_no_longer_has_stay(lake: Lake) -> None:
    inside = {"archive_rows": 2}
    commit(lake, *(make_version(f"gs://a/z.zip#{n}", 1, archive_id="z1", **inside) for n in (1, 2)))
    commit(lake, make_version("gs://a/z.zip#1", 2, day=2, archive_id="z2", archive_rows=1))
    assert show(lake) == {"gs://a/z.zip#1": ("2", A), "gs://a/z.zip#2": ("1", A)}


def test_the_fingerprints_of_a_lake_are_read_from_its_log_alone(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"), make_version("gs://a/1", fingerprint=B))
    for path in Path(str(lake.uri)).rglob("part-*.parquet"):
        path.unlink()
    assert list_fingerprints(lake) == [A, B]


def test_every_column_of_recordings_is_documented(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"))
    assert [name for (name,) in ask(lake, "SELECT column_name FROM (DESCRIBE recordings)")] == list(RECORDINGS)


def test_other_engines_find_what_a_column_means_in_the_table(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"))
    uri = f"{lake.uri}/transcripts"
    fields = {field.name: field for field in DeltaTable(uri).schema().fields}
    assert fields["text"].metadata["comment"] == "readable text: punctuation and paragraphs rendered"
    assert "length of the recording, seconds" in DeltaTable(uri).schema().to_json(), "of a field in a struct too"


def test_pairs_that_name_rows_which_a_reader_does_not_see_yet_are_not_taken(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1", 1))
    rows, storage = open_storage(lake, "transcripts"), open_storage(lake, "superseded")
    seen = DeltaTable(rows.uri)
    commit(lake, make_version("gs://a/1", 2, day=2))
    refresh_superseded(lake)
    known = read_fingerprints(lake)
    assert open_superseded(storage, seen, rows, known).pairs is None
    seen.update_incremental()
    assert open_superseded(storage, seen, rows, known).pairs is not None


def test_rows_without_a_uri_replace_nothing(lake: Lake) -> None:
    commit(lake, *(make_version("", version, recording_id=f"r{version}") for version in (1, 2)))
    assert ask(lake, "SELECT count(*) FROM transcripts") == [(2,)]


def double(lake: Lake) -> None:
    """What a foreign writer may do: it appends all rows once more."""
    table = DeltaTable(f"{lake.uri}/transcripts")
    write_deltalake(table, table.to_pyarrow_table(), mode="append")


@pytest.mark.parametrize("is_written_down", [False, True])
def test_a_key_that_a_foreign_writer_doubled_shows_once(lake: Lake, is_written_down: bool) -> None:
    words = [{"word": word, "start_s": 0.5, "end_s": 1.0, "confidence": 0.5, "channel": 0} for word in ("no", "fracture")]
    commit(lake, make_version("gs://a/1", words=words), make_version("gs://a/2"), make_version("gs://a/2", day=2, attempt=1))
    commit(lake, make_version("gs://a/1", fingerprint=B), make_version("gs://a/3", status="failed"))
    promote(lake, A)
    if is_written_down:
        refresh_superseded(lake)
    double(lake)
    double(lake)
    if is_written_down:
        refresh_superseded(lake)
    commit(lake, make_version("gs://a/4"))
    wanted = [(f"gs://a/{number}",) for number in (1, 2, 4)]
    assert ask(lake, "SELECT source.uri FROM transcripts ORDER BY ALL") == wanted
    assert ask(lake, "SELECT source.uri, attempt FROM transcripts WHERE source.uri = 'gs://a/2'") == [("gs://a/2", 1)]
    assert ask(lake, "SELECT uri, status FROM recordings ORDER BY ALL") == [
        *((*one, "ok") for one in wanted[:2]),
        ("gs://a/3", "failed"),
        ("gs://a/4", "ok"),
    ]
    assert ask(lake, f"SELECT word FROM transcript_words WHERE recording_id = '{name_recording('gs://a/1', 1)}'") == [
        ("no",),
        ("fracture",),
    ]
    index = TextIndex(lake, Path(f"{lake.uri}-index"))
    assert (index.refresh().added, index.refresh().added) == (3, 0)


def test_of_a_doubled_key_the_copy_that_lost_least_shows_and_no_failed_one(lake: Lake) -> None:
    rows = [
        make_version("gs://a/1", quality={"duration_s": 8.0, "lost_s": lost_s}, text=f"{lost_s}") for lost_s in (2.0, 0.5, 1.0)
    ]
    commit(lake, rows[0], make_version("gs://a/2", text="good"))
    table = DeltaTable(f"{lake.uri}/transcripts")
    failed = [make_version(f"gs://a/{number}", status="failed") for number in (1, 2)]
    others = make_transcripts([*rows[1:], *failed])
    write_deltalake(table, others.cast(without_docs(others.schema)), mode="append")
    assert ask(lake, "SELECT text FROM transcripts ORDER BY ALL") == [("0.5",), ("good",)]


def looks_for_copies(lake: Lake) -> bool:
    ((sql,),) = ask(lake, "SELECT sql FROM duckdb_views() WHERE view_name = 'transcripts'")
    return "UNION ALL" in sql


def test_readers_look_for_doubled_keys_only_where_others_than_dictalake_wrote_rows(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"))
    assert looks_for_copies(lake)  # nobody knows yet
    refresh_superseded(lake)
    assert not looks_for_copies(lake)
    commit(lake, make_version("gs://a/2"))
    compact(lake)
    forget(lake, Subjects(uris=("gs://a/2",)))
    assert not looks_for_copies(lake)
    table = DeltaTable(f"{lake.uri}/transcripts")
    foreign = make_transcripts([make_version("gs://a/3")])
    write_deltalake(table, foreign.cast(without_docs(foreign.schema)), mode="append")
    assert looks_for_copies(lake)
    refresh_superseded(lake)
    assert not looks_for_copies(lake)  # it added no key again
    double(lake)
    refresh_superseded(lake)
    assert looks_for_copies(lake)


def test_a_note_of_a_foreign_writer_with_an_unusual_end_of_line_keeps_nobody_from_reading(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"))
    refresh_superseded(lake)
    rows = make_transcripts([make_version("gs://a/2")])
    note = CommitProperties(custom_metadata={"note": "one\u2028two"})
    table = DeltaTable(f"{lake.uri}/transcripts")
    write_deltalake(table, rows.cast(without_docs(rows.schema)), mode="append", commit_properties=note)
    assert show(lake).keys() == {"gs://a/1", "gs://a/2"}


def test_a_run_with_nothing_to_do_looks_for_doubled_keys_where_nobody_has(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(lake, make_version("gs://a/1"))
    with monkeypatch.context() as before:  # a version that wrote down the pairs alone
        before.setattr(superseded, "_has_doubled_key", lambda *_: True)
        refresh_superseded(lake)
    assert looks_for_copies(lake)
    refresh_superseded(lake)
    assert not looks_for_copies(lake)


def test_what_was_found_is_written_down_again_before_it_is_too_old(lake: Lake) -> None:
    commit(lake, make_version("gs://a/1"))
    refresh_superseded(lake)
    table = DeltaTable(f"{lake.uri}/transcripts")
    for _ in range(21):
        table.create_write_transaction([], mode="append", schema=table.schema(), partition_by=list(PARTITIONS))
    refresh_superseded(lake)
    for _ in range(10):
        table.create_write_transaction([], mode="append", schema=table.schema(), partition_by=list(PARTITIONS))
    assert not looks_for_copies(lake)
