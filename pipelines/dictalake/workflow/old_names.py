"""Under which URIs and ids an older version may have put a recording into the lake.

Before 0.2 a path was kept as it was spelled, folders were walked through links, and an object with a ``#`` in its name could
have the id of a file inside another object. What such a lake holds is not transcribed again: a recording that it knows under
an older name keeps that name, with all its attempts and with the files inside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dictalake.records import make_object_id, make_recording_id

_MOST_URIS = 16  # of one recording
_MOST_LINKS = 3  # that one path went through


def list_old_names(recording_id: str, uris: Sequence[str], version: str) -> Iterator[tuple[str, str]]:
    """(id, URI) of each name that a recording with the URIs ``uris``, today's first, may have had."""
    seen = {recording_id}
    for uri in uris:
        for old_id in (make_object_id(uri, version), make_recording_id(uri, version)):
            if old_id not in seen:
                seen.add(old_id)
                yield old_id, uri


def find_old_uris(uri: str, folder_aliases: Mapping[str, Sequence[str]]) -> list[str]:
    """The URIs of a file by other names of the folders that it is in, as ``Findings.folder_aliases`` has them."""
    found, newest = [uri], [uri]
    for _ in range(_MOST_LINKS):
        newest = [old for one in newest for old in _rename_once(one, folder_aliases) if old not in found]
        found += newest
        if not newest or len(found) > _MOST_URIS:
            break
    return found[1 : _MOST_URIS + 1]


def _rename_once(uri: str, folder_aliases: Mapping[str, Sequence[str]]) -> Iterator[str]:
    at = uri.rfind("/")
    while at > 0:
        folder = uri[:at]
        for old in folder_aliases.get(folder, ()):
            yield old.rstrip("/") + uri[at:]
        at = uri.rfind("/", 0, at)
