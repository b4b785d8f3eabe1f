"""A folder on a disk as a stream of what is in it, whatever is in it: one entry that cannot be read costs itself alone.

==========================================  ========================================================================
entry                                       what becomes of it
==========================================  ========================================================================
a file                                      a recording
a link to something in the archive          an alias: counted once, as what it leads to is a recording of its own. A file
                                            below a folder's alias comes once more by that name, where
                                            ``archive.include`` may ask for it by the folder
a link out of the archive                   left out and counted; with ``archive.follow_links`` what it leads to is listed,
                                            a folder also by further names that ``archive.include`` may ask for
a link to nothing, or to itself             a failed row
a pipe, a socket, a device                  left out and counted; it is never opened
a folder of the lake                        left out; the run says once that the lake lies inside the archive
a folder that cannot be read                counted, with its reason; the run ends with exit code 3
a name that the system cannot look up       a failed row with its reason
==========================================  ========================================================================

The root itself may be a link. Nothing is recursive, and a folder is opened by the rules of ``local_files.py``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dictalake.archive import storage
from dictalake.archive.findings import Findings
from dictalake.archive.globs import FolderGlobs, State
from dictalake.archive.local_files import OutsideError, open_folder
from dictalake.config.uris import find_path, make_file_uri, resolve_links
from dictalake.errors import AccessDenied, EntryFailed, LinkLoop, NameTooLong, TranscriptionError, name_place

LINK_OUTSIDE, SPECIAL = "link_outside", "special_file"  # why an entry is left out
_FOLDER_REASONS = {
    errno.EACCES: "no_permission",
    errno.EPERM: "no_permission",
    errno.ENAMETOOLONG: "name_too_long",
    errno.ELOOP: "link_loop",
    errno.ENOENT: "vanished",
    errno.ENOTDIR: "vanished",
}


@dataclass(frozen=True)
class FolderEntry:
    """A file to transcribe, or with ``error`` a row that says why it is not: its class and its detail.

    ``relative`` is the path below the archive, ``path`` the one without links; ``link`` that of the link that leads there. An
    entry with ``alias_of`` is such a link to another entry, which has this path below the archive.
    """

    relative: str
    path: str
    state: storage.ObjectState
    error: tuple[type[TranscriptionError], str] | None = None
    link: str | None = None
    alias_of: str | None = None


@dataclass(frozen=True)
class _Folder:
    """A folder to list: below ``root``, which is the archive or what a followed link leads to.

    ``is_alias``: ``relative`` is another name of it, by a link. All that can be said of it is said under its own name.
    """

    root: str
    below: str
    relative: str
    is_alias: bool = False

    @property
    def path(self) -> str:
        return os.path.join(self.root, self.below) if self.below else self.root


class FolderWalk:
    """Lists the files below ``root``, a path without links, in the order of their names."""

    def __init__(self, root: str, findings: Findings, globs: FolderGlobs, *, follow_links: bool = False) -> None:
        self._root, self._findings, self._globs, self._follow_links = root, findings, globs, follow_links
        self._lake_folders = {find_path(uri) for uri in findings.lake_folders}
        self._seen: dict[str, frozenset[State]] = {}  # of each folder that a link leads to what it was listed for so far

    def __iter__(self) -> Iterator[FolderEntry]:
        top = _Folder(self._root, "", "")
        # Of each folder that is open the names that are left, the next one last.
        waiting = [(top, self._read_names(top, is_top=True))]
        while waiting:
            folder, names = waiting[-1]
            if not names:
                waiting.pop()
                continue
            name = names.pop()
            found: FolderEntry | _Folder | None
            try:
                if folder.is_alias:
                    found = self._look_by_alias(folder, name.rstrip("/"))
                else:
                    found = self._look(folder, name.rstrip("/"), is_folder=name.endswith("/"))
            except Exception as error:  # one entry costs itself alone, whatever the system says of it
                what = f"it cannot be looked at: {name_place(error)}"
                found = None if folder.is_alias else self._refuse(folder, name.rstrip("/"), EntryFailed, what)
            if isinstance(found, _Folder) and found.path in self._lake_folders:
                self._findings.holds_lake = True
            elif isinstance(found, _Folder):
                waiting.append((found, self._read_names(found)))
            elif found is not None:
                yield found

    def _read_names(self, folder: _Folder, *, is_top: bool = False) -> list[str]:
        """Sorted so that the next one is last; a folder's name counts with a slash at its end, so that paths are in order."""
        try:
            opened = open_folder(folder.root, folder.below)
            try:
                with os.scandir(opened) as entries:
                    names = [f"{entry.name}/" if self._is_folder(entry) else entry.name for entry in entries]
            finally:
                os.close(opened)
        except OSError as error:
            if is_top:
                raise
            if not folder.is_alias:
                self._count_unread(error)
            return []
        return sorted(names, reverse=True)

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir(follow_symlinks=self._follow_links)
        except OSError:  # a link to itself
            return False

    def _count_unread(self, error: OSError) -> None:
        reason = "replaced" if isinstance(error, OutsideError) else _FOLDER_REASONS.get(error.errno or 0, "unreadable")
        self._findings.unread_folders[reason] += 1

    def _look(self, folder: _Folder, name: str, *, is_folder: bool) -> FolderEntry | _Folder | None:
        path = os.path.join(folder.path, name)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                return self._look_at_link(folder, name, path)
        except OSError as error:
            if not is_folder:
                return self._explain(folder, name, error)
            self._count_unread(error)
            return None
        if stat.S_ISDIR(status.st_mode):
            below, relative = _join(folder.below, name), _join(folder.relative, name)
            if folder.root != self._root:
                return self._enter(folder.root, below, relative)
            return _Folder(folder.root, below, relative)
        return self._look_at_file(folder, name, path, status)

    def _look_at_file(self, folder: _Folder, name: str, path: str, status: os.stat_result) -> FolderEntry | None:
        if not stat.S_ISREG(status.st_mode):
            self._findings.left_out[SPECIAL] += 1
            return None
        return FolderEntry(_join(folder.relative, name), path, storage.make_local_state(status))

    def _look_at_link(self, folder: _Folder, name: str, path: str) -> FolderEntry | _Folder | None:
        target, relative = resolve_links(path), _join(folder.relative, name)
        is_inside = is_below(target, self._root)
        if not is_inside and not self._follow_links:
            self._count(folder, LINK_OUTSIDE)
            return None
        status = os.stat(path)  # raises for a link to nothing or to itself
        if is_inside and not folder.is_alias:
            self._findings.aliases += 1
        if stat.S_ISDIR(status.st_mode):
            return self._follow_to_folder(folder, target, relative, path, is_inside=is_inside)
        if not stat.S_ISREG(status.st_mode):
            if not is_inside:
                self._count(folder, SPECIAL)
            return None
        if is_inside:
            return self._make_alias(relative, target, status)
        return FolderEntry(relative, target, storage.make_local_state(status), link=os.path.join(self._root, relative))

    def _count(self, folder: _Folder, why: str) -> None:
        if not folder.is_alias:
            self._findings.left_out[why] += 1

    def _follow_to_folder(self, folder: _Folder, target: str, relative: str, path: str, *, is_inside: bool) -> _Folder | None:
        found = None
        if not is_below(path, target):
            root, below = (self._root, self._cut_root(target)) if is_inside else (target, "")
            found = self._enter(root, below, relative)
            self._findings.add_folder_alias(make_file_uri(os.path.join(self._root, relative)), make_file_uri(target))
        if not is_inside and not folder.is_alias and (found is None or found.is_alias):
            self._findings.aliases += 1
        return found

    def _enter(self, root: str, below: str, relative: str) -> _Folder | None:
        """The folder by one more name, if the globs may admit below it what they do not by the names that it had before. So it
        is listed no more often than the globs have parts, however many links lead to it and to each other."""
        states, path = self._globs.find_states(relative), os.path.join(root, below) if below else root
        own = self._globs.find_states(self._cut_root(path)) if is_below(path, self._root) else None
        seen = self._seen.get(path, own)
        if states <= (seen or frozenset()):
            return None
        self._seen[path] = states | (seen or frozenset())
        return _Folder(root, below, relative, is_alias=seen is not None)

    def _cut_root(self, path: str) -> str:
        return path[len(self._root.rstrip("/")) + 1 :]

    def _look_by_alias(self, folder: _Folder, name: str) -> FolderEntry | _Folder | None:
        """What ``_look`` says, by another name, and nothing is counted again."""
        path, relative = os.path.join(folder.path, name), _join(folder.relative, name)
        try:
            return self._look_again(folder, name, path, relative)
        except OSError as error:
            refused = self._explain(folder, name, error)
            return replace(refused, alias_of=self._cut_root(path)) if is_below(path, self._root) else refused

    def _look_again(self, folder: _Folder, name: str, path: str, relative: str) -> FolderEntry | _Folder | None:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            return self._enter(folder.root, _join(folder.below, name), relative)
        if stat.S_ISLNK(status.st_mode):
            return self._look_at_link(folder, name, path)
        if not stat.S_ISREG(status.st_mode):
            return None
        if is_below(path, self._root):
            return self._make_alias(relative, path, status)
        return FolderEntry(relative, path, storage.make_local_state(status))

    def _make_alias(self, relative: str, target: str, status: os.stat_result) -> FolderEntry:
        link = os.path.join(self._root, relative)
        return FolderEntry(relative, target, storage.make_local_state(status), link=link, alias_of=self._cut_root(target))

    def _explain(self, folder: _Folder, name: str, error: OSError) -> FolderEntry:
        """A row for what cannot be looked at. ``fetch`` says of it what it says of any file that is not there any more."""
        if error.errno == errno.ELOOP:
            return self._refuse(folder, name, LinkLoop, "the entry is a link that leads back to itself")
        if error.errno == errno.ENAMETOOLONG:
            return self._refuse(folder, name, NameTooLong, "the path of the entry is longer than the system can open")
        if storage.is_missing(error):
            return self._refuse(folder, name)
        if isinstance(error, PermissionError):
            return self._refuse(folder, name, AccessDenied, "this user may list the folder but not look at what is in it")
        what = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return self._refuse(folder, name, EntryFailed, f"the system does not say what the entry is ({what})")

    def _refuse(
        self, folder: _Folder, name: str, kind: type[TranscriptionError] | None = None, detail: str = ""
    ) -> FolderEntry:
        state = storage.ObjectState(storage.MISSING, 0, None)
        error = None if kind is None else (kind, detail)
        return FolderEntry(_join(folder.relative, name), os.path.join(folder.path, name), state, error)


def is_below(path: str, root: str) -> bool:
    """Whether ``path`` is ``root`` or below it; both are without links."""
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
