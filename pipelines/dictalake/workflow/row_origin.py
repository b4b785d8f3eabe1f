"""Which object of the archive a row of the lake comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dictalake.errors import ConfigError
from dictalake.records import Recording, make_object_id, make_recording_id


def find_object(row: Mapping[str, Any]) -> Recording:
    """The object of the archive that a row comes from, at its recorded version; of a file in an archive object that object."""
    source, uri = row["source"], row["source"]["uri"]
    recording = Recording(
        row["recording_id"],
        uri,
        source["version"],
        source["size_bytes"] or 0,
        source["modified_at"],
        metadata=dict(row["metadata"] or ()),
        attempt=row["attempt"],
    )
    if row["archive_id"] in (None, row["recording_id"]):
        return recording
    for place, mark in enumerate(uri):  # names may hold a # too: the right one gives the object's id
        if mark == "#" and row["archive_id"] in (
            make_object_id(uri[:place], source["version"]),
            make_recording_id(uri[:place], source["version"]),  # of an object with a # in its name, before 0.2
        ):
            return replace(recording, recording_id=row["archive_id"], uri=uri[:place], size_bytes=0, attempt=0)
    raise ConfigError(f"the row {row['recording_id']} does not say which archive object it was in; it cannot be made again")
