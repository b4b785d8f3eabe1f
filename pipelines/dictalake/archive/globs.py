"""Patterns of paths (``archive.include``): which files they admit, and which folders they may admit something of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from fsspec.utils import glob_translate

from dictalake.errors import ConfigError


def compile_globs(patterns: Iterable[str], key: str) -> Callable[[str], bool]:
    """Whether one of ``patterns`` (of the configuration key ``key``) matches a path. Raises ConfigError for a bad pattern."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(glob_translate(pattern.lstrip("/"))))
        except (ValueError, re.error):
            raise ConfigError(f"{key} = {pattern!r}: ** must stand alone between slashes, as in **/*.wav or 2026/**") from None
    return lambda path: any(pattern.match(path) for pattern in compiled)


State = tuple[int, int]  # which pattern, and which of its parts the next name has to match


class FolderGlobs:
    """What ``patterns``, none of them a bad one, say of a folder before anything in it is known."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = [pattern.lstrip("/") for pattern in patterns]
        everything = "**"  # beside it no other says anything
        self._patterns = [_compile_parts(one) for one in ([everything] if everything in given else given)]

    def find_states(self, folder: str) -> frozenset[State]:
        """What is left of the patterns below this path: two paths with the same states have the same files admitted below them,
        and below one without a state none is. There are no more states than the patterns have parts."""
        states = self._skip_folders({(number, 0) for number in range(len(self._patterns))})
        for name in folder.split("/") if folder else ():
            states = self._skip_folders({after for state in states if (after := self._match(state, name)) is not None})
        return frozenset(states)

    def _match(self, state: State, name: str) -> State | None:
        number, place = state
        part = self._patterns[number][place]
        if part is None:
            return state
        return (number, place + 1) if part.match(name) else None

    def _skip_folders(self, states: set[State]) -> set[State]:
        """Of ``**`` also what comes after it; and none at the end of a pattern, which leaves nothing for a file."""
        found = set[State]()
        for number, first in states:
            pattern, place = self._patterns[number], first
            while place < len(pattern):
                found.add((number, place))
                if pattern[place] is not None:
                    break
                place += 1
        return found


_Part = re.Pattern[str] | None  # None: any number of folders


def _compile_parts(pattern: str) -> list[_Part]:
    return [None if part == "**" else re.compile(glob_translate(part)) for part in pattern.split("/")]
