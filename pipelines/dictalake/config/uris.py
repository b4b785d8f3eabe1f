"""One object has one URI, however a person spells its place: in a listing, in a manifest and for ``dictalake forget``.

===============  ====================================================================================================
a path           absolute and without links: ``/data//wards/../a.wav``, ``file:/data/a.wav`` and a link that leads there are
                 ``file:///data/a.wav``
an object store  the scheme in small letters and by one name (``gcs://`` is ``gs://``, ``s3a://`` is ``s3://``), no slash at
                 the end. What follows stays: a key may hold ``//`` and ``..``
HTTP             scheme and host in small letters, no port that is the usual one; the rest as it is
===============  ====================================================================================================

A name on a disk is bytes. Those that are no UTF-8 are shown as Python's escapes, ``\\udc80`` for the byte 80. A name that
spells such an escape itself is shown with its backslash as ``\\u005c``, so that no two names are shown alike.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

_LOCAL = re.compile(r"(?:file|local):(?://(?:localhost(?=/))?)?", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_OTHER_NAMES = {"gcs": "gs", "s3a": "s3"}
_USUAL_PORTS = {"http": 80, "https": 443}
_ESCAPES = re.compile(r"\\u(005c|dc[89a-f][0-9a-f])")
_SPELT_ESCAPE = re.compile(r"\\(?=u(?:005c|dc[89a-f][0-9a-f]))")
_PATH_MAX = 4096  # bytes: the system opens no longer path
_MOST_CHARACTERS = 64_000  # of a URI
_MOST_LINKS = 40  # that the system follows on the way to one file


def is_too_long(location: str) -> bool:
    """Whether no storage can hold what ``location`` names. It is to be asked before anything looks at a location that others
    wrote: the time that some looks take grows with the square of its length."""
    if len(location) > _MOST_CHARACTERS:
        return True
    path = find_path(location)
    return path is not None and len(path.encode("utf-8", "replace")) >= _PATH_MAX


def resolve_links(path: str) -> str:
    """``path`` absolute and without links, whether it exists or not; as it is spelled where the system would not follow it
    either, after 40 links. ``os.path.realpath`` follows chains of links for minutes."""
    whole = path if path.startswith("/") else os.path.join(os.getcwd(), path)
    rest, at, links = whole.split("/")[::-1], "", 0
    while rest:
        part = rest.pop()
        if part == "..":
            at = at.rpartition("/")[0]
        elif part not in ("", "."):
            at = f"{at}/{part}"
            try:
                target = os.readlink(at)
            except OSError:
                target = None
            if target is not None:
                links += 1
                at = "" if target.startswith("/") else at.rpartition("/")[0]
                rest += target.split("/")[::-1]
            if links > _MOST_LINKS or len(at) > _PATH_MAX:
                return os.path.abspath(path)
    return at or "/"


def canonical_uri(location: str) -> str:
    """The one URI of the object or folder at ``location``, a path or a URI. It looks at local paths, and asks no storage."""
    path = find_path(location)
    if path is not None:
        return make_file_uri(resolve_links(path))
    scheme, rest = split_scheme(location)
    if scheme in _USUAL_PORTS:
        return f"{scheme}://{_canonical_authority(scheme, rest)}"
    return f"{scheme}://{rest.rstrip('/')}"


def spelled_uri(location: str) -> str:
    """The URI that dictalake before 0.2 wrote for ``location``: of a path as it was spelled, only absolute."""
    from fsspec.implementations.local import LocalFileSystem

    path = find_path(location)
    if path is None:
        scheme, rest = split_scheme(location)
        return f"{scheme}://{rest}" if scheme in _USUAL_PORTS else canonical_uri(location)
    return f"file://{LocalFileSystem._strip_protocol(path)}".encode("utf-8", "backslashreplace").decode()


def list_spellings(location: str) -> list[str]:
    """The URIs that the lake may hold for what a person calls ``location``: today's first, then those of older versions.
    ``URI#PATH`` is a file in an archive object, or an object with a ``#`` in its name."""
    path = find_path(location)
    if path is None:
        return list(dict.fromkeys((canonical_uri(location), spelled_uri(location))))
    found, inside = split_member(path)
    shown = show_path(inside)
    spelled = spelled_uri(found.rstrip("/") or "/") + shown
    return list(
        dict.fromkeys((make_file_uri(resolve_links(found)) + shown, make_file_uri(os.path.abspath(found)) + shown, spelled))
    )


def today_uri(uri: str) -> str:
    """What a listing of today calls the object whose URI an older version wrote. Links are followed in the folders above it
    alone: a file that has become a link since is another one."""
    path = find_path(uri)
    if path is None:
        return canonical_uri(uri)
    found, inside = split_member(path)
    folder, name = os.path.split(found)
    return make_file_uri(os.path.join(resolve_links(folder), name) + inside)


def leads_through_link(uri: str) -> bool:
    """Whether the folder of a local object is reached through a link, which may lead elsewhere another day."""
    path = find_path(uri)
    if path is None:
        return False
    folder = os.path.dirname(split_member(path)[0])
    return resolve_links(folder) != os.path.normpath(f"/{folder.lstrip('/')}")


def split_member(path: str) -> tuple[str, str]:
    """The path of an object, and ``#PATH`` of a file in it, which is no path of this machine."""
    marks = [place for place, mark in enumerate(path) if mark == "#"]
    if not marks or os.path.lexists(path):
        return path, ""
    place = next((place for place in marks if os.path.isfile(path[:place])), marks[0])
    return path[:place], path[place:]


def split_scheme(location: str) -> tuple[str, str]:
    """The scheme by its one name, ``file`` for a path, and what follows."""
    path = find_path(location)
    if path is not None:
        return "file", path
    found = _SCHEME.fullmatch(location)
    assert found is not None
    scheme = found[1].lower()
    return _OTHER_NAMES.get(scheme, scheme), found[2]


def find_path(location: str) -> str | None:
    """The path on this machine that ``location`` names, as the system knows it and as it is spelled; None for a URI of another
    kind."""
    is_file = _LOCAL.match(location)
    if is_file is None:
        if _SCHEME.fullmatch(location):
            return None
        path = os.path.expanduser(location)
        return path if os.path.lexists(path) or not _ESCAPES.search(path) else read_path(path)
    return os.path.expanduser(read_path(location[is_file.end() :]))


def make_file_uri(path: str) -> str:
    """``file://`` and the path as people can read it."""
    return f"file://{show_path(path)}"


def show_path(path: str) -> str:
    """A path as text. Two paths are never shown alike."""
    return _SPELT_ESCAPE.sub(r"\\u005c", path).encode("utf-8", "backslashreplace").decode()


def read_path(shown: str) -> str:
    """The path that ``show_path`` showed."""
    return _ESCAPES.sub(lambda escape: chr(int(escape[1], 16)), shown)


def _canonical_authority(scheme: str, rest: str) -> str:
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:  # no host that there can be
        return rest
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{host}]" if ":" in host else host
    if port is not None and port != _USUAL_PORTS[scheme]:
        host = f"{host}:{port}"
    return f"{user}{at}{host}{rest[len(parts.netloc) :]}"
