"""An audit of erasure: afterwards the word is in no byte of the lake, wherever it was, and the others are untouched."""

from __future__ import annotations

from pathlib import Path

import pytest

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake import erase, erasers, places
from dictalake.lake.contract import TABLES
from dictalake.lake.erase import forget
from dictalake.lake.erasers import ERASERS, list_steps
from dictalake.lake.places import PLACES, Place
from dictalake.lake.query import open_lake
from dictalake.workflow import private_ray
from tests.audited_lake import NAMED, NOTES, UNTOUCHED, fill_lake, list_leaks, register


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """It has a place more than today's, to which only a line in the table leads."""
    monkeypatch.setattr(erasers, "PLACES", (*PLACES, NOTES))
    monkeypatch.setattr(erase, "PLACES", (*PLACES, NOTES))
    monkeypatch.setattr(places, "PLACES", (*PLACES, NOTES))
    monkeypatch.setitem(TABLES, NOTES.folder, TABLES["runs"])
    register(NOTES)
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    fill_lake(lake, (*PLACES, NOTES))
    return lake


def test_the_word_is_in_every_place_that_can_hold_it_and_afterwards_in_no_byte(lake: Lake) -> None:
    for place in (*PLACES, NOTES):
        assert bool(list_leaks(lake, place.folder)) == (place.personal in ("content", "archive")), place.folder
    assert {path.name for path in Path(str(lake.uri)).iterdir()} == {place.folder for place in (*PLACES, NOTES)}
    receipt = forget(lake, NAMED, leave_unhashed=True)
    assert list_leaks(lake) == []
    assert (receipt.unknown, receipt.unfinished_left, receipt.log_files_left) == (0, 0, 0)
    counts = (receipt.run_records, receipt.lineage_events, receipt.report_lines, receipt.rechecks, receipt.superseded)
    assert counts == (2, 2, 1, 1, 1)
    assert (receipt.corrections, receipt.accesses) == (1, 1)
    assert (receipt.manifest_rows, receipt.other_rows) == (4, 3)
    rows = open_lake(str(lake.uri)).to_table().to_pylist()
    assert {row["recording_id"] for row in rows} == UNTOUCHED
    assert len(rows) == 4


@pytest.mark.parametrize("folder", sorted(ERASERS))
def test_a_place_whose_step_is_left_out_fails_the_audit(lake: Lake, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setitem(ERASERS, folder, lambda lake, forbidden: {})
    forget(lake, NAMED, leave_unhashed=True)
    assert {path.split("/")[0] for path in list_leaks(lake)} == {folder}


def test_the_table_names_the_folder_where_a_run_starts_its_ray() -> None:
    assert any(f"`{private_ray._PREFIX}*`" in place.where for place in places.OUTSIDE)


def test_a_place_that_erasure_does_not_know_stops_it_before_it_begins() -> None:
    strange = Place("strange", "content", "texts", "nothing")
    with pytest.raises(RunError, match=r"^erasure does not know what to do in strange/"):
        list(list_steps((*PLACES, strange)))
