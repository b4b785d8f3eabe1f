"""Views with a name, and the way back in a list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dictalake.review.listing import BadFilter, Filter, View
from dictalake.review.paging import find_previous, remember_next
from dictalake.review.saved_views import SavedView, SavedViews
from dictalake.review.sessions import Session

UNSURE = View((Filter("confidence", "lt", "0.8"),), "newest")


@pytest.fixture
def views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SavedViews:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return SavedViews("./lake")


def test_a_view_is_kept_replaced_by_its_name_and_removed(views: SavedViews, tmp_path: Path) -> None:
    views.save("Unsure", View())
    views.save("Unsure", UNSURE)
    views.save("all", View())
    assert SavedViews("./lake").read() == [
        SavedView("all", "sort=confidence"),
        SavedView("Unsure", "f=confidence~lt~0.8&sort=newest"),
    ]
    assert SavedViews("./other").read() == []
    views.remove("Unsure")
    assert [one.name for one in views.read()] == ["all"]
    [kept] = tmp_path.rglob("views.json")
    kept.write_text(json.dumps({"name": 1}))
    assert views.read() == []


@pytest.mark.parametrize(
    "view",
    [
        View(search="1a2b"),
        View((Filter("uri", "has", "smith"),)),
        View((Filter("metadata", "has", "smith"),)),
        View((Filter("recording_id", "eq", "ab"),)),
    ],
)
def test_a_view_that_may_name_a_patient_is_not_kept(views: SavedViews, view: View) -> None:
    with pytest.raises(BadFilter, match="may name a patient"):
        views.save("mine", view)
    assert views.read() == []


@pytest.mark.parametrize("name", ["", "x" * 61, "a\nb"])
def test_a_name_is_short_and_on_one_line(views: SavedViews, name: str) -> None:
    with pytest.raises(BadFilter, match="a name of at most 60"):
        views.save(name, View())


def test_the_page_before_is_the_one_that_led_here() -> None:
    session = Session("Ann")
    remember_next(session, "v", "", "b")
    remember_next(session, "v", "b", "c")
    remember_next(session, "v", "c", None)
    assert [find_previous(session, "v", here) for here in ("c", "b", "")] == ["b", "", None]
    assert find_previous(session, "other", "c") is None
    for number in range(600):
        remember_next(session, "v", "", str(number))
    assert len(session.came_from) == 500
