"""Which places a manifest or an inventory may name: those below a prefix of ``archive.allowed``, and no others.

Who may write a line of a manifest would otherwise have whatever this machine can reach: files of the system, services of the
network, other buckets. Places are compared part by part after they were written in the one way of ``config/uris.py``, so
that neither ``..`` nor links, escapes, ports or a user's name in a URL lead out.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from urllib.parse import unquote, urlsplit

from dictalake.archive.findings import MOST_PLACES, Findings
from dictalake.archive.local_files import OutsideError, open_regular
from dictalake.archive.storage import is_archive_location
from dictalake.config.locations import EMBEDDED, resolve
from dictalake.config.sections import Archive
from dictalake.config.uris import canonical_uri, find_path, make_file_uri, resolve_links, show_path, split_scheme
from dictalake.errors import ConfigError

_KEY = "archive.allowed"
_HTTP = ("http", "https")
_WITH_ACCOUNT = ("abfs", "abfss", "az")  # what is before an @ is the container, as in container@account.dfs.core.windows.net
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._@-]{0,221}")
_IPV6 = re.compile(r"[0-9a-f.]*:[0-9a-f:.]*")
_NO_FOLDER = "a folder that this machine does not have"
Parts = tuple[str, ...]


class Allowed:
    """The prefixes of one archive. Raises ConfigError for a prefix that is none."""

    def __init__(self, archive: Archive, base: str) -> None:
        """``base`` is allowed where ``archive.allowed`` is not set."""
        self._follows_links = archive.follow_links
        self.is_set = archive.allowed is not None
        given = [base] if archive.allowed is None else list(archive.allowed)
        self._prefixes: set[Parts] = set()
        for prefix in given:
            parts = split_place(resolve(prefix)) if prefix.strip() else None
            if parts is None or (parts[0] != "file" and not parts[1:]) or not (prefix == base or is_archive_location(prefix)):
                raise ConfigError(f"{_KEY} = {prefix!r}: give a folder, scheme://bucket/folder or https://host/folder")
            self._prefixes |= {parts, split_place(resolve(prefix), follow=False) or parts}

    def covers(self, location: str, uri: str | None = None) -> bool:
        """Whether the object at ``location`` is below a prefix. ``uri`` is its canonical URI, where that is known already."""
        places = [split_place(location) if uri is None else split_place(uri, follow=False)]
        if self._follows_links:
            places.append(split_place(location, follow=False))
        return any(parts is not None and any(parts[: len(p)] == p for p in self._prefixes) for parts in places)


def pin_places(archive: Archive) -> Archive:
    """``archive`` with its local places as they are now: for workers whose folder is another, and in case that a link on the
    way to them is changed while a run goes on."""

    def pin(place: str) -> str:
        path = find_path(resolve(place))
        return place if path is None else make_file_uri(resolve_links(path))

    pinned: dict[str, object] = {}
    if archive.uri is not None:
        pinned["uri"] = pin(archive.uri)
    named = archive.manifest or archive.inventory
    allowed = archive.allowed
    if named is not None:
        path = find_path(resolve(named))
        pinned["manifest" if archive.manifest else "inventory"] = (
            named if path is None else make_file_uri(os.path.abspath(path))
        )
        allowed = (find_base(archive, resolve(named)),) if allowed is None else allowed
    return archive.model_copy(update={**pinned, "allowed": None if allowed is None else tuple(map(pin, allowed))})


def open_listed(path: str, archive: Archive, *, is_listed: bool = False) -> io.FileIO:
    """Opens a file of a local archive for reading, as ``open_regular``: since it was listed, it may have become a link that
    leads out of the archive, or a pipe. A file of another archive, as a row of the lake names it, is opened without that root;
    with ``is_listed`` it is refused with OutsideError: a listing of ``archive`` names none.
    """
    root, relative = _find_root(path, archive, is_listed=is_listed)
    return open_regular(root, relative)


def _find_root(path: str, archive: Archive, *, is_listed: bool) -> tuple[str, str]:
    """The folder that ``path`` may not lead out of, and the way from there."""
    if archive.follow_links:
        return "/", path.lstrip("/")
    named = archive.manifest or archive.inventory
    given: tuple[str, ...]
    if named is None:
        given = () if archive.uri is None else (archive.uri,)
    else:
        given = (find_base(archive, resolve(named)),) if archive.allowed is None else archive.allowed
    roots = _list_roots(given)
    found = _split_below(roots, path) or _split_below(roots, resolve_links(path))  # the latter: reached by links
    if found is None and is_listed:
        raise OutsideError(errno.EXDEV, "no folder of the archive holds it any more")
    return found or os.path.split(os.path.abspath(path))


@lru_cache(maxsize=64)
def _list_roots(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Each spelling of the local folders among the places ``given``, with what it really is: asked once, not for each file."""
    roots = filter(None, (find_path(resolve(one)) for one in given))
    spelled = ((path.rstrip("/"), root) for root in roots for path in (resolve_links(root), os.path.abspath(root), root))
    return tuple((path, resolve_links(root)) for path, root in spelled if os.path.isdir(path or "/"))


def _split_below(roots: Iterable[tuple[str, str]], path: str) -> tuple[str, str] | None:
    return next(((real, path[len(spelled) + 1 :]) for spelled, real in roots if path.startswith(f"{spelled}/")), None)


def split_place(location: str, *, follow: bool = True) -> Parts | None:
    """The parts of a place, the scheme first; None for one whose parts are in doubt, which is below no prefix."""
    if "\0" in location:
        return None
    path = find_path(location)
    if path is not None:
        real = resolve_links(path) if follow else os.path.abspath(path)
        return ("file", *(part for part in real.split("/") if part))
    scheme, rest = split_scheme(canonical_uri(location))
    if scheme in _HTTP:
        return _split_url(f"{scheme}://{rest}", scheme)
    parts = rest.split("/")
    users = parts[0].count("@") - (scheme in _WITH_ACCOUNT)
    if any(part in ("..", ".") for part in parts) or users > 0 or not parts[0]:
        return None
    return (scheme, *parts)


def _split_url(url: str, scheme: str) -> Parts | None:
    """A server may take ``%2e%2e`` and a backslash for what they stand for, and a client what is before an @ for a user."""
    try:
        parsed = urlsplit(url)
    except ValueError:
        return None
    path = parsed.path
    while (plain := unquote(path)) != path:
        path = plain
    parts = [part for part in path.split("/") if part]
    if not parsed.hostname or "@" in parsed.netloc or "\\" in url or "\\" in path or any(p in ("..", ".") for p in parts):
        return None
    return (scheme, parsed.netloc, *parts)


def find_base(archive: Archive, location: str) -> str:
    """What relative URIs of the manifest or inventory at ``location`` are below: ``archive.uri``, or the file's own folder.

    The embedded demo archive, which ``demo.yaml`` names, counts for the demo's own manifest alone.
    """
    named = archive.manifest or archive.inventory or ""
    is_demo = archive.uri is not None and archive.uri.startswith(EMBEDDED) and not named.startswith(EMBEDDED)
    if archive.uri is not None and not is_demo:
        return resolve(archive.uri)
    path = find_path(location)
    return location.rsplit("/", 1)[0] if path is None else os.path.dirname(os.path.abspath(path))


def find_bucket(base: str) -> str:
    """The bucket of a place in an object store; a folder stays."""
    if find_path(base) is not None:
        return base
    scheme, rest = split_scheme(base)
    return f"{scheme}://{rest.split('/', 1)[0]}"


def name_place_above(uri: str) -> str:
    """The bucket, host or top folder of the object at ``uri``, for people, and no more: a folder or file below may be named
    after a patient. So may a bucket that cannot exist, or a top folder that this machine does not have: a list may spell its
    own folders and files as such.
    """
    path = find_path(uri)
    if path is not None:
        top = show_path(path).split("/", 2)[1:-1]
        return f"/{top[0]}" if top and top[0] in _list_top_folders() else _NO_FOLDER
    scheme, rest = split_scheme(uri)
    if scheme not in _HTTP:
        bucket, has_key, _ = rest.partition("/")
        bucket = bucket if scheme in _WITH_ACCOUNT else bucket.rpartition("@")[2]
        return f"{scheme}://{bucket}/" if has_key and _BUCKET.fullmatch(bucket) else f"{scheme}://…"
    try:
        parsed = urlsplit(uri)
        host, port = parsed.hostname or "", "" if parsed.port is None else f":{parsed.port}"
    except ValueError:
        return f"{scheme}://…"
    if not (_BUCKET.fullmatch(host) or _IPV6.fullmatch(host)):
        return f"{scheme}://…"
    return f"{scheme}://[{host}]{port}/" if ":" in host else f"{scheme}://{host}{port}/"


@cache
def _list_top_folders() -> frozenset[str]:
    """Asked of ``/`` alone: to look into what is mounted there may take long."""
    try:
        return frozenset(map(show_path, os.listdir("/")))
    except OSError:
        return frozenset()


def report_outside(findings: Findings, allowed: Allowed, key: str) -> str | None:
    """What to say before a run whose ``key`` names other places, all of them at once; None where all are allowed.

    Raises ConfigError where nothing at all is allowed and nobody chose that: each line would become a failed row.
    """
    if not findings.not_allowed:
        return None
    names = sorted(findings.places)
    more = ", …" if len(names) > MOST_PLACES else ""
    line = (
        f"{key}: {findings.not_allowed} of its lines {'names a place' if findings.not_allowed == 1 else 'name places'} outside "
        f"{_KEY}, in [{', '.join(names[:MOST_PLACES])}{more}]; if you trust it, set {_KEY} to the places that it may name. "
        "These are only where they begin: name the narrowest folders, never / or /home"
    )
    if not findings.allowed and not allowed.is_set:
        raise ConfigError(line)
    return f"{line}; now they are failed rows (not_allowed)"


def join_base(base: str, location: str) -> str:
    """``location``, or the place below ``base`` that it names if it is relative."""
    if "://" in location or location.startswith(("/", "~", "file:", "local:")):
        return location
    return f"{base.rstrip('/')}/{location.removeprefix('./')}"
