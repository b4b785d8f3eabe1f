"""Patterns of paths (``archive.include``): which files they admit, and which folders they may admit something of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from fsspec.utils import glob_translate

from dictalake.errors import ConfigError

_ANYWHERE = re.compile(r"\*\*/[^/]+")  # the folder does not matter


def compile_globs(patterns: Iterable[str], key: str) -> Callable[[str], bool]:
    """Whether one of ``patterns`` (of the configuration key ``key``) matches a path. Raises ConfigError for a bad pattern."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(glob_translate(pattern.lstrip("/"))))
        except (ValueError, re.error):
            raise ConfigError(f"{key} = {pattern!r}: ** must stand alone between slashes, as in **/*.wav or 2026/**") from None
    return lambda path: any(pattern.match(path) for pattern in compiled)


class FolderGlobs:
    """What ``patterns``, none of them a bad one, say of a folder before anything in it is known."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = [pattern.lstrip("/") for pattern in patterns]
        self._all = [_compile_parts(pattern) for pattern in given]
        by_folder = [] if "**" in given else [one for one in given if not _ANYWHERE.fullmatch(one)]
        self._by_folder = [_compile_parts(pattern) for pattern in by_folder]

    def may_admit_below(self, folder: str) -> bool:
        """Whether a file below this path can be admitted."""
        return _may_match(self._all, folder)

    def may_tell_apart(self, folder: str) -> bool:
        """Whether a file below this path can be admitted because it is there, and not for its own name alone."""
        return _may_match(self._by_folder, folder)


_Part = re.Pattern[str] | None  # None: any number of folders


def _compile_parts(pattern: str) -> list[_Part]:
    return [None if part == "**" else re.compile(glob_translate(part)) for part in pattern.split("/")]


def _may_match(patterns: Iterable[Sequence[_Part]], folder: str) -> bool:
    names = folder.split("/")
    return any(_may_match_one(pattern, names) for pattern in patterns)


def _may_match_one(pattern: Sequence[_Part], names: Sequence[str]) -> bool:
    for part, name in zip(pattern, names, strict=False):
        if part is None:
            return True
        if not part.match(name):
            return False
    return len(pattern) > len(names)  # something is left for the file
