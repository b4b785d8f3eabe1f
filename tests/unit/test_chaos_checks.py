"""What `make chaos` looks with can see: each thing that must not happen is made to happen in a small lake."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

from dictalake.config.sections import Archive, Lake
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.chaos import deal, passed, split
from tests.chaos_archive import BROKEN, PACKED, Verdict, expect_rows, verify, write_archive
from tests.chaos_cycle import CycleReport
from tests.chaos_reader import Reader, Report, StallMonitor
from tests.lake_rows import make_failed_row, make_row, make_rows

GOOD = Verdict(expected=3, there=3, lost=0, duplicated=0, crashed=0, wrong=())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three committed rows."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    commit(lake, "r1", "r2", "r3")
    return lake


def commit(lake: Lake, *recording_ids: str) -> None:
    TranscriptTable(lake).commit(write_staged(make_rows(recording_ids), lake))


def folder_of(lake: Lake) -> str:
    return f"{lake.uri}/transcripts"


def watch_then(lake: Lake) -> StallMonitor:
    """A reader that has seen the three rows."""
    watch = StallMonitor()
    watch.look(str(lake.uri))
    assert (watch.report.rows, watch.report.violations) == (3, 0)
    return watch


def look(watch: StallMonitor, lake: Lake) -> list[str]:
    """What it complains about after another look."""
    watch.look(str(lake.uri))
    assert watch.report.violations == len(watch.report.sentences)
    return watch.report.sentences


def sounding(recording_id: str, **changes: Any) -> dict[str, Any]:
    row = make_row(recording_id, **changes)
    return {**row, "source": {**row["source"], "sha256": "the same"}}


def test_reader_has_nothing_to_say_on_a_lake_that_grows(lake: Lake, tmp_path: Path) -> None:
    watch = StallMonitor()
    watch.look(str(tmp_path / "no-lake-yet"))
    watch.look(str(lake.uri))
    commit(lake, "r3", "r4")
    assert look(watch, lake) == []
    assert (watch.report.reads, watch.report.before_table, watch.report.rows, watch.report.different) == (3, 1, 4, 2)


def test_reader_sees_a_row_that_is_there_twice(lake: Lake) -> None:
    watch = watch_then(lake)
    write_deltalake(folder_of(lake), make_rows(["r2"]), mode="append")
    assert look(watch, lake) == ["r2 is there 2 times"]


def test_reader_sees_a_row_that_vanishes(lake: Lake) -> None:
    watch = watch_then(lake)
    DeltaTable(folder_of(lake)).delete("recording_id = 'r2'")
    assert look(watch, lake) == ["r2 was there and has vanished"]


def test_reader_sees_a_row_that_changes(lake: Lake) -> None:
    watch = watch_then(lake)
    DeltaTable(folder_of(lake)).delete("recording_id = 'r2'")
    write_deltalake(folder_of(lake), make_rows(["r2"], text="Another text."), mode="append")
    assert look(watch, lake) == ["r2 has changed"]


def test_reader_sees_a_file_that_is_half_there(lake: Lake) -> None:
    watch = watch_then(lake)
    (file,) = Path(folder_of(lake)).rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    (sentence,) = look(watch, lake)
    assert sentence.startswith("the table cannot be read")


def test_reader_sees_a_row_that_is_half_there(lake: Lake) -> None:
    watch = watch_then(lake)
    write_deltalake(folder_of(lake), make_rows(["r4"], words=None), mode="append")
    assert look(watch, lake) == ["r4 is ok and not whole"]


def test_reader_sees_a_table_that_is_gone_again(lake: Lake, tmp_path: Path) -> None:
    watch = watch_then(lake)
    Path(folder_of(lake)).rename(tmp_path / "elsewhere")
    (sentence,) = look(watch, lake)
    assert sentence.startswith("the table cannot be read")


def test_reader_in_its_own_process_reports_the_last_look_and_whether_it_lasted(lake: Lake, tmp_path: Path) -> None:
    for name in ("lasting", "killed"):
        (tmp_path / name).mkdir()
    lasting, killed = Reader(lake, tmp_path / "lasting"), Reader(lake, tmp_path / "killed")
    try:
        while not (lasting.read_report().reads and killed.read_report().reads):
            pass
        killed.kill()
        write_deltalake(folder_of(lake), make_rows(["r2"]), mode="append")
        assert (seen := lasting.stop()).ended
        assert set(seen.sentences) == {"r2 is there 2 times"}
        assert not killed.stop().ended
    finally:
        lasting.kill()
        killed.kill()


def test_verdict_on_a_lake_that_is_as_it_should_be() -> None:
    rows = [sounding("r1"), sounding("r2"), make_failed_row("r3")]
    assert verify(rows, {"r1": None, "r2": None, "r3": "not_audio"}) == GOOD


def test_verdict_counts_what_is_lost_and_what_is_there_twice() -> None:
    verdict = verify([sounding("r1"), sounding("r1"), sounding("r1")], {"r1": None, "r2": None})
    assert (verdict.expected, verdict.there, verdict.lost, verdict.duplicated) == (2, 1, 1, 2)


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([make_failed_row("r1")], "r1: failed, load: not_audio: the object is text; should be ok"),
        ([sounding("r0"), sounding("r1")], "r0: there is no such recording in the archive"),
        ([sounding("r1"), sounding("r1", fingerprint="000000000000")], "one command, 2 fingerprints"),
    ],
)
def test_verdict_names_rows_that_should_not_be(rows: list[dict[str, Any]], wrong: str) -> None:
    assert verify(rows, {"r1": None}).wrong == (wrong,)


def test_verdict_sees_texts_that_were_mixed_up() -> None:
    verdict = verify([sounding("r1"), sounding("r2", text="Another.")], {"r1": None, "r2": None})
    assert verdict.wrong == ("one sound, 2 texts",)


def test_verdict_counts_recordings_that_were_given_up_apart() -> None:
    error = {"stage": "load", "reason": "decoder_crashed", "detail": "it died", "retryable": True}
    verdict = verify([make_failed_row("r1", error=error)], {"r1": None})
    assert (verdict.crashed, verdict.lost, verdict.wrong) == (1, 0, ())


def test_expected_rows_are_all_files_and_those_in_the_archive_object(tmp_path: Path) -> None:
    expected = expect_rows(Archive.model_validate({"uri": str(write_archive(tmp_path / "archive", 40))}))
    assert len(expected) == 40
    assert Counter(expected.values()) == {None: 40 - len(BROKEN), **dict.fromkeys(BROKEN.values(), 1)}
    assert PACKED == 16


def make_report(**changes: Any) -> CycleReport:
    reader = Report(reads=9, rows=3, different=2, ended=True)
    values = {"kills": Counter(driver=2), "verdict": GOOD, "reader": reader, **changes}
    return CycleReport("local", "own", **values)


@pytest.mark.parametrize(
    "changes",
    [
        {"kills": Counter(driver=1)},
        {"violations": ["a run is stuck"]},
        {"verdict": Verdict(3, 2, 1, 0, 0, ())},
        {"verdict": Verdict(3, 3, 0, 1, 0, ())},
        {"verdict": Verdict(3, 3, 0, 0, 0, ("one sound, 2 texts",))},
        {"verdict": None},
        {"reader": Report(reads=9, rows=3, different=2, violations=1, ended=True)},
        {"reader": Report(reads=9, rows=3, different=0, ended=True)},
    ],
)
def test_anything_wrong_fails_the_whole(changes: dict[str, Any]) -> None:
    assert passed([make_report()], kills=2)
    assert not passed([make_report(**changes)], kills=2)


def test_kills_are_dealt_by_weight_and_none_is_left_out() -> None:
    kinds = ("driver", "terminate", "interrupt", "worker", "actor", "node", "sandbox", "runner")
    deck = deal(70, kinds, random.Random(1))
    assert len(deck) == 70
    assert min(Counter(deck)[kind] for kind in kinds) >= 4
    assert Counter(deck)["driver"] >= 9
    assert Counter(deck)["runner"] * 3 >= 40, "on three stores"
    assert set(deal(8, kinds, random.Random(1))) == set(kinds)
    hands = split(deck)
    assert sorted(kind for hand in hands.values() for kind in hand) == sorted(deck)
    assert not {"node", "runner"} & {*hands["own"]}
    assert "driver" in hands["nodes"]
    assert "driver" in hands["runners"]
    assert ("node" in hands["runners"], "runner" in hands["nodes"]) == (False, False)
