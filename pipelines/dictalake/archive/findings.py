"""What a listing or a manifest has beside recordings: counts and reasons for people, never a path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_PLACES = 50  # named in one message
_MOST_ALIASES = 10_000
_MOST_OF_FOLDER = 4  # names of one folder: an older version walked it under the first


@dataclass
class Findings:
    """Filled while recordings are listed.

    ``aliases`` are links to something else in the archive, which have no row of their own; ``left_out`` counts other entries
    without a row, ``unread_folders`` the folders that could not be listed, by reason. ``folder_aliases`` maps the URI of a
    folder to others that an older version may have given it. ``not_allowed`` and ``allowed`` count the lines of a manifest that
    name a place outside ``archive.allowed``, and the others; ``places`` are the buckets, hosts and top folders of the former.
    Objects below ``lake_folders`` (URIs) are not listed; ``holds_lake`` says that there are any. ``has_entries`` says that
    there is something else, whether ``archive.include`` and ``archive.since`` admit it or not.
    """

    aliases: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    unread_folders: Counter[str] = field(default_factory=Counter)
    folder_aliases: dict[str, list[str]] = field(default_factory=dict)
    not_allowed: int = 0
    allowed: int = 0
    places: set[str] = field(default_factory=set)
    lake_folders: tuple[str, ...] = ()
    holds_lake: bool = False
    has_entries: bool = False

    def add_folder_alias(self, old: str, new: str) -> None:
        """Notes one more URI of the folder ``new``."""
        if old != new and len(self.folder_aliases) < _MOST_ALIASES:
            names = self.folder_aliases.setdefault(new, [])
            if len(names) < _MOST_OF_FOLDER:
                names.append(old)

    def add_place(self, place: str) -> None:
        """Notes a place of ``not_allowed``. Memory is bounded."""
        if len(self.places) <= MOST_PLACES:
            self.places.add(place)

    def is_of_lake(self, uri: str) -> bool:
        """Whether the object at ``uri`` is below ``lake_folders``; notes it."""
        is_inside = any(uri.startswith(f"{folder}/") for folder in self.lake_folders)
        self.holds_lake |= is_inside
        return is_inside


def describe_counts(counts: Mapping[str, int]) -> str:
    """``2 (link_outside 1, special_file 1)``."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return f"{sum(counts.values())} ({', '.join(f'{reason} {count}' for reason, count in by_count)})"
