"""Views of the list that people gave a name. They stay in the data folder of the server's account.

A view is kept with its conditions, so one that may name a patient is not taken: with words, places, metadata or an id.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from platformdirs import user_data_path

from dictalake.lake.search import default_folder
from dictalake.review.listing import BadFilter, View

_MOST_VIEWS, _MOST_CHARACTERS = 100, 60
_OF_ONE = ("recording_id",)


@dataclass(frozen=True)
class SavedView:
    name: str
    query: str  # of the address


class SavedViews:
    """Those of one lake. All who use the server see them; servers of one account share them. Raises BadFilter."""

    def __init__(self, uri: str) -> None:
        self._path = user_data_path("dictalake") / "review" / default_folder(uri).name / "views.json"

    def read(self) -> list[SavedView]:
        """By name. A file that something else wrote counts as none."""
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            return [SavedView(str(one["name"]), str(one["query"])) for one in known]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def save(self, name: str, view: View) -> None:
        """In place of one of the same name."""
        if not name or len(name) > _MOST_CHARACTERS or not name.isprintable():
            raise BadFilter(f"give the view a name of at most {_MOST_CHARACTERS} letters")
        if view.search or any(one.is_private or one.column in _OF_ONE for one in view.filters):
            raise BadFilter("a view with words, places, metadata or an id may name a patient and is not kept: remove these")
        with self._changing() as views:
            kept = [one for one in views if one.name != name]
            if len(kept) >= _MOST_VIEWS:
                raise BadFilter(f"there are {_MOST_VIEWS} views; remove one first")
            views[:] = sorted([*kept, SavedView(name, view.link().partition("?")[2])], key=lambda one: one.name.casefold())

    def remove(self, name: str) -> None:
        with self._changing() as views:
            views[:] = [one for one in views if one.name != name]

    @contextmanager
    def _changing(self) -> Iterator[list[SavedView]]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            views = self.read()
            yield views
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps([asdict(one) for one in views]), encoding="utf-8")
            os.replace(new, self._path)
