"""What a listing or a manifest has beside recordings: counts and reasons for people, never a path."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MOST_PREFIXES = 50  # named in one message
_MOST_ALIASES = 100_000


@dataclass(frozen=True)
class Alias:
    """A folder had URIs that begin with ``old`` in the lakes of dictalake before 0.2; now they begin with ``new``."""

    old: str
    new: str


@dataclass
class Findings:
    """Filled while recordings are listed.

    ``aliases`` are links to something else in the archive, which have no row of their own; ``left_out`` counts other entries
    without a row, ``unread_folders`` the folders that could not be listed, by reason. ``folder_aliases`` are the URIs that
    folders had for older versions. ``not_allowed`` and ``allowed`` count the lines of a manifest that name a place outside
    ``archive.allowed``, and the others; ``prefixes`` are the buckets and top folders of the former.
    """

    aliases: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    unread_folders: Counter[str] = field(default_factory=Counter)
    folder_aliases: list[Alias] = field(default_factory=list)
    not_allowed: int = 0
    allowed: int = 0
    prefixes: set[str] = field(default_factory=set)

    def add_folder_alias(self, old: str, new: str) -> None:
        if old != new and len(self.folder_aliases) < _MOST_ALIASES:
            self.folder_aliases.append(Alias(old, new))

    def add_prefix(self, prefix: str) -> None:
        if len(self.prefixes) <= MOST_PREFIXES:
            self.prefixes.add(prefix)

    @property
    def numbers(self) -> dict[str, object]:
        """For machines."""
        return {
            "aliases": self.aliases,
            "left_out": dict(sorted(self.left_out.items())),
            "unread_folders": dict(sorted(self.unread_folders.items())),
        }


def describe_counts(counts: Counter[str] | dict[str, int]) -> str:
    """``2 (link_outside 1, special 1)``."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return f"{sum(counts.values())} ({', '.join(f'{reason} {count}' for reason, count in by_count)})"
