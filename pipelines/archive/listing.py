"""Recordings by listing a folder or bucket."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fsspec.utils import glob_translate

from pipelines.archive import storage
from pipelines.config import Archive, resolve
from pipelines.errors import ConfigError
from pipelines.records import Recording, make_recording_id

_KEY = "archive.uri"


def list_recordings(archive: Archive) -> Iterator[Recording]:
    """Every object below ``archive.uri`` that ``include`` and ``since`` admit, in the order of their names.

    The listing itself happens at the call: ConfigError (nothing there, no access, package missing, bad glob) and RunError
    (the storage does not answer) come then. No match gives an empty iterator.
    """
    if archive.uri is None:
        raise ConfigError(f"{_KEY} is not set; give a folder, gs://bucket/prefix or s3://bucket/prefix")
    admits = compile_globs(archive.include, "archive.include")
    filesystem, root = storage.open_location(resolve(archive.uri), archive.storage_options, _KEY)
    root = root.rstrip("/")
    try:
        found = storage.call_with_retries(lambda: _find(filesystem, root), archive.fetch_tries)
    except storage.storage_errors() as error:
        raise storage.explain(error, _KEY) from None
    return _iterate(archive, filesystem, root, admits, found)


def _find(filesystem: Any, root: str) -> dict[str, dict[str, Any]]:
    """Path → info of every object."""
    if not storage.is_local(filesystem):
        return dict(filesystem.find(root, detail=True))
    start = root or "/"
    filesystem.info(start)  # raises when there is nothing
    return {path: {} for path in (_walk(start) if os.path.isdir(start) else [start])}


def _walk(root: str) -> Iterator[str]:
    """Every file below a local folder, through links to folders too, each folder once. A folder that cannot be read raises:
    fsspec's own walk leaves it, and what links lead to, out without a word."""
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, onerror=_raise, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders.sort()
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path) or os.path.islink(path):  # no pipes and sockets; a link to nothing becomes a failed row
                yield path


def _raise(error: OSError) -> None:
    raise error


def _iterate(
    archive: Archive, filesystem: Any, root: str, admits: Callable[[str], bool], found: dict[str, dict[str, Any]]
) -> Iterator[Recording]:
    for path in sorted(found):
        if path != root and not path.startswith(f"{root}/"):
            continue  # object stores match prefixes: `dictations-old/` begins with `dictations`
        relative = path[len(root) + 1 :] if path != root else path.rsplit("/", 1)[-1]
        if path.endswith("/") or not admits(relative):
            continue
        try:
            state = storage.describe(filesystem, path, found[path])
        except FileNotFoundError:  # gone since the listing: it becomes a failed row, not a gap
            state = storage.ObjectState(storage.MISSING, 0, None)
        if archive.since is not None and state.modified_at is not None and state.modified_at < archive.since:
            continue
        uri = storage.make_uri(filesystem, path)
        yield Recording(make_recording_id(uri, state.version), uri, state.version, state.size_bytes, state.modified_at)


def compile_globs(patterns: Iterable[str], key: str) -> Callable[[str], bool]:
    """Whether one of ``patterns`` (of the configuration key ``key``) matches a path. Raises ConfigError for a bad pattern."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(glob_translate(pattern.lstrip("/"))))
        except (ValueError, re.error):
            raise ConfigError(f"{key} = {pattern!r}: ** must stand alone between slashes, as in **/*.wav or 2026/**") from None
    return lambda path: any(pattern.match(path) for pattern in compiled)
