"""Recordings from the listing of a folder or bucket, as a stream: memory does not grow with their number.

=============  ====================================================================================================
storage        how it is listed
=============  ====================================================================================================
a path         folder by folder, in the order of the names; folders.py says what becomes of links and other entries
gs://, s3://   page by page; what has more than one page is cut into ranges of names that are listed in parallel
others         by fsspec's ``find``, which holds the infos of all objects in memory
=============  ====================================================================================================
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from dictalake import logs
from dictalake.archive import objects, storage
from dictalake.archive.deadlines import LISTING_S
from dictalake.archive.findings import Findings
from dictalake.archive.folders import LINK_OUTSIDE, FolderEntry, FolderWalk
from dictalake.archive.globs import FolderGlobs, compile_globs
from dictalake.config.locations import resolve
from dictalake.config.sections import Archive
from dictalake.config.uris import find_path, make_file_uri, resolve_links, spelled_uri
from dictalake.errors import ConfigError, EntryFailed, name_place
from dictalake.records import Recording, find_ending, make_object_id

_KEY = "archive.uri"
_THREADS = 16
_ENOUGH_PREFIXES = 32  # prefixes are looked into, breadth first, until there are so many
_MOST_LOOKS = 32  # pages of prefixes
_RANGES = 64

Selection = Callable[[str, storage.ObjectState], bool]
Entry = tuple[str, Mapping[str, Any]]  # a path, and what the listing says about it


def list_recordings(archive: Archive, findings: Findings | None = None) -> Iterator[Recording]:
    """Every object below ``archive.uri`` that ``include`` and ``since`` admit; of a path in the order of their names.

    ``findings`` takes in what is not listed. The listing begins at the call: ConfigError (nothing there, no access, package
    missing, bad glob) and RunError (the storage does not answer) come then, or while iterating where they come up later. No
    match gives an empty iterator.
    """
    if archive.uri is None:
        raise ConfigError(f"{_KEY} is not set; give a folder, gs://bucket/prefix or s3://bucket/prefix")
    select = make_selection(archive)
    location = resolve(archive.uri)
    try:
        filesystem, root = storage.call_with_retries(
            lambda: storage.open_location(location, archive.storage_options, _KEY), archive.fetch_tries
        )
        if storage.is_local(filesystem):
            return _list_local(location, archive, select, Findings() if findings is None else findings)
        root = root.rstrip("/")
        entries = _find(filesystem, root, archive)
        first = list(islice(entries, 1))
    except storage.storage_errors() as error:
        raise storage.explain(error, _KEY, archive.uri) from None
    findings = Findings() if findings is None else findings
    return _iterate(archive, filesystem, select, root, chain(first, entries), findings)


def _list_local(location: str, archive: Archive, select: Selection, findings: Findings) -> Iterator[Recording]:
    """Raises OSError at the call where the root is not there, or neither a folder nor a file."""
    root = resolve_links(find_path(location) or location)
    old = spelled_uri(location)
    status = os.stat(root)
    if not stat.S_ISDIR(status.st_mode):
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{_KEY}: this is a pipe or a device; give a folder or a file")
        entry = FolderEntry(os.path.basename(root), root, storage.make_local_state(status))
        recording, findings.has_entries = _make_local(entry), True
        named = os.path.basename(find_path(location) or location)  # it may be a link with another name
        recording = name_ending(replace(recording, old_uris=(old,) if old != recording.uri else ()), named, archive)
        return iter([recording] if select(entry.relative, entry.state) or select(named, entry.state) else [])
    findings.add_folder_alias(old, make_file_uri(root))
    walk = iter(FolderWalk(root, findings, FolderGlobs(archive.include), follow_links=archive.follow_links))
    first = list(islice(walk, 1))  # a root that cannot be read ends the run at once
    return _describe_entries(chain(first, walk), archive, select, findings)


def _describe_entries(
    entries: Iterator[FolderEntry], archive: Archive, select: Selection, findings: Findings
) -> Iterator[Recording]:
    for entry in entries:
        findings.has_entries = True
        # What a link leads to is listed by itself; where only the link's name is asked for, it would be in no listing at all.
        is_listed_itself = entry.alias_of is not None and select(entry.alias_of, entry.state)
        if select(entry.relative, entry.state) and not is_listed_itself:
            yield name_ending(_make_local(entry), entry.relative, archive)
    findings.has_entries |= bool(findings.left_out or findings.unread_folders or findings.aliases)
    if count := findings.left_out[LINK_OUTSIDE]:
        what = "1 link leads" if count == 1 else f"{count} links lead"
        line = f"{what} out of the archive; archive.follow_links: true follows {'it' if count == 1 else 'them'}"
        logs.log_event("listing", line, level=logs.WARNING)


def _make_local(entry: FolderEntry) -> Recording:
    recording = make_recording(make_file_uri(entry.path), entry.state)
    if entry.link is not None:
        recording = replace(recording, old_uris=(make_file_uri(entry.link),))
    if entry.error is None:
        return recording
    kind, detail = entry.error
    return replace(recording, error=kind(recording.recording_id, detail))


def _find(filesystem: Any, root: str, archive: Archive) -> Iterator[Entry]:
    if objects.is_paged(filesystem):
        return _list_objects(archive, filesystem, root)
    found = storage.call_with_retries(lambda: filesystem.find(root, detail=True), archive.fetch_tries, within_s=LISTING_S)
    return iter(sorted(found.items()))


def _list_objects(archive: Archive, filesystem: Any, root: str) -> Iterator[Entry]:
    bucket, key = objects.split_path(filesystem, root)
    if not bucket:
        raise FileNotFoundError

    def list_page(cursor: objects.Cursor) -> objects.Page:
        return storage.call_with_retries(
            lambda: objects.list_page(_open(archive), cursor),  # anew: with expired credentials it is another file system
            archive.fetch_tries,
        )

    whole = objects.Cursor(bucket, f"{key}/" if key else "")
    page = list_page(whole)
    if page.token is None:
        if key and not page.entries:  # it may be an object itself
            yield from _find_object(filesystem, root, archive)
        yield from page.entries
    elif bucket.endswith("--x-s3"):  # a directory bucket of S3 lists in no order
        yield from _follow([replace(whole, token=page.token)], list_page, page.entries)
    else:
        yield from _follow(_cut(whole, list_page), list_page)


def _open(archive: Archive) -> Any:
    return storage.open_location(resolve(archive.uri or ""), archive.storage_options, _KEY)[0]


def _find_object(filesystem: Any, path: str, archive: Archive) -> Iterator[Entry]:
    try:
        info = storage.call_with_retries(lambda: filesystem.info(path), archive.fetch_tries)
    except FileNotFoundError:
        return
    if info.get("type") != "directory":
        yield path, info


def _cut(whole: objects.Cursor, list_page: Callable[[objects.Cursor], objects.Page]) -> list[objects.Cursor]:
    """``whole`` as ranges of names that can be listed side by side, cut where folders begin. Whatever is found here, a name
    is in exactly one of them, so that nothing is lost or doubled. Without folders it is one range, listed page after page."""
    starts: set[str] = set()
    level = deque([replace(whole, delimiter="/")])
    for _ in range(_MOST_LOOKS):
        if not level or (len(starts) >= _ENOUGH_PREFIXES and level[0].token is None):
            break
        cursor = level.popleft()
        page = list_page(cursor)
        if page.token is not None and page.prefixes:
            level.appendleft(replace(cursor, token=page.token))
        starts.update(page.prefixes)
        level.extend(replace(whole, delimiter="/", prefix=prefix) for prefix in page.prefixes)
    ordered = sorted(starts)
    chosen = ordered[:: max(1, -(-len(ordered) // _RANGES))]
    ends: list[str | None] = [*chosen, None]
    return [replace(whole, start=start, end=end) for start, end in zip(["", *chosen], ends, strict=True)]


def _follow(
    cursors: list[objects.Cursor], list_page: Callable[[objects.Cursor], objects.Page], first: Iterable[Entry] = ()
) -> Iterator[Entry]:
    """All entries, in any order. Of each of up to 16 cursors one page is asked for ahead, so memory is bounded."""
    yield from first
    waiting = deque(cursors)
    running: dict[Future[objects.Page], objects.Cursor] = {}
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="listing")
    try:
        while waiting or running:
            while waiting and len(running) < _THREADS:
                cursor = waiting.popleft()
                running[pool.submit(list_page, cursor)] = cursor
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                cursor, page = running.pop(done), done.result()
                if page.token is not None:
                    going_on = replace(cursor, token=page.token)
                    running[pool.submit(list_page, going_on)] = going_on
                yield from page.entries
    finally:
        pool.shutdown(cancel_futures=True)


def _iterate(
    archive: Archive,
    filesystem: Any,
    select: Selection,
    root: str,
    entries: Iterator[Entry],
    findings: Findings,
) -> Iterator[Recording]:
    try:
        for path, info in entries:
            if path != root and not path.startswith(f"{root}/"):
                continue  # object stores match prefixes: `dictations-old/` begins with `dictations`
            relative = path[len(root) + 1 :] if path != root else path.rsplit("/", 1)[-1]
            recording = _describe_object(filesystem, path, info)
            if findings.lake_folders and findings.is_of_lake(recording.uri):
                continue
            findings.has_entries |= not relative.endswith("/") and relative != ""
            if select(relative, storage.ObjectState(recording.version, recording.size_bytes, recording.modified_at)):
                yield recording
    except storage.storage_errors() as error:
        raise storage.explain(error, _KEY, archive.uri) from None


def _describe_object(filesystem: Any, path: str, info: Mapping[str, Any]) -> Recording:
    uri = storage.make_uri(filesystem, path)
    try:
        return make_recording(uri, storage.describe(filesystem, path, info))
    except Exception as error:  # whatever the listing says of one object costs that object alone
        recording = make_recording(uri, storage.ObjectState(storage.MISSING, 0, None))
        detail = f"what the storage lists of it cannot be read: {name_place(error)}"
        return replace(recording, error=EntryFailed(recording.recording_id, detail))


def make_recording(uri: str, state: storage.ObjectState) -> Recording:
    return Recording(make_object_id(uri, state.version), uri, state.version, state.size_bytes, state.modified_at)


def name_ending(recording: Recording, name: str, archive: Archive) -> Recording:
    """``recording`` with the ending of the ``name`` that was asked for, where that is a link to something of another ending.
    It matters for headerless sound alone; of other names nothing is kept."""
    ending = find_ending(name)
    if ending == find_ending(recording.uri) or archive.find_headerless(ending) is None:
        return recording
    return replace(recording, ending=ending)


def make_selection(archive: Archive) -> Selection:
    """Whether ``archive`` asks for the object at this path below it: ``include`` and ``since``, and no folder's own name.

    Raises ConfigError for a bad pattern.
    """
    admits, since = compile_globs(archive.include, "archive.include"), archive.since

    def select(relative: str, state: storage.ObjectState) -> bool:
        if relative.endswith("/") or not admits(relative):
            return False
        return since is None or state.modified_at is None or state.modified_at >= since

    return select
