"""Which object of the archive a row of the lake comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dictalake.errors import ConfigError
from dictalake.records import Recording, list_subject_uris, make_object_id, make_recording_id


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
    _, *objects = list_subject_uris(uri, source["version"], row["archive_id"])
    for of in objects:  # before 0.2 an object with a # in its name had an id of another rule
        if row["archive_id"] in (make_object_id(of, source["version"]), make_recording_id(of, source["version"])):
            return replace(recording, recording_id=row["archive_id"], uri=of, size_bytes=0, attempt=0)
    raise ConfigError(f"the row {row['recording_id']} does not say which archive object it was in; it cannot be made again")
