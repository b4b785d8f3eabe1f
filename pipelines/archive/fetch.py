"""The bytes of one recording, of exactly the version that it was found with.

==========  ====================================================================================
storage     how the version is held
==========  ====================================================================================
gs://       the request names the generation
s3://       the request says If-Match the ETag; with ``version_aware: true`` it names the version id
a path      mtime and size of the open file, before and after reading
others      the object's state, before and after reading
==========  ====================================================================================
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.archive import storage
from pipelines.config import Archive, Limits
from pipelines.errors import (
    AccessDenied,
    ChangedDuringRead,
    ConfigError,
    EmptyObject,
    FetchFailed,
    NotFound,
    ObjectTooLarge,
)
from pipelines.records import Recording


def fetch(
    recording: Recording, archive: Archive, sleep: Callable[[float], None] = time.sleep, *, limits: Limits | None = None
) -> bytes:
    """All bytes of ``recording``; transient errors are tried ``archive.fetch_tries`` times with jittered, doubling pauses.

    Raises NotFound, AccessDenied, ChangedDuringRead, EmptyObject, ObjectTooLarge or FetchFailed; their details name no URI.
    """
    limits = limits or Limits()  # type: ignore[call-arg]
    _check_size(recording.size_bytes, recording, limits)
    try:
        filesystem, path = storage.open_location(recording.uri, archive.storage_options, "archive.uri")
    except ConfigError:  # a manifest may name any kind of storage; on this machine it may lack its package
        raise NotFound(
            recording.recording_id, "this kind of storage cannot be opened here; install its fsspec package"
        ) from None
    try:
        data = storage.call_with_retries(lambda: _read(filesystem, path, recording), archive.fetch_tries, sleep)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(recording.recording_id, "the object is not there (any more); restore it or leave it out") from None
    except IsADirectoryError:
        raise NotFound(recording.recording_id, "the name is of a folder, not of an object") from None
    except storage.storage_errors() as error:
        raise _name_failure(error, recording, archive.fetch_tries) from None
    if not data:
        raise EmptyObject(recording.recording_id, "the object has no bytes; the upload or the recorder stopped too early")
    _check_size(len(data), recording, limits)  # more than the storage said: it unpacked gzip
    return data


def _check_size(size_bytes: int, recording: Recording, limits: Limits) -> None:
    if size_bytes > limits.object_mb * 1e6:
        raise ObjectTooLarge(
            recording.recording_id,
            f"the object has {size_bytes / 1e6:.1f} MB, limits.object_mb allows {limits.object_mb:g}: split it, or raise the "
            "limit",
        )


def _name_failure(error: BaseException, recording: Recording, tries: int) -> AccessDenied | FetchFailed:
    if storage.is_denied(error):
        return AccessDenied(
            recording.recording_id, "the credentials of this run may not read the object; grant read access to it"
        )
    status = storage.status_of(error)
    cause = type(error).__name__ if status is None else f"HTTP {status}"
    if storage.is_transient(error):
        return FetchFailed(
            recording.recording_id, f"{tries} tries to read the object failed, the last with {cause}; try again later"
        )
    return FetchFailed(recording.recording_id, f"the storage refused to give the object ({cause})")


def _read(filesystem: Any, path: str, recording: Recording) -> bytes:
    if recording.version == storage.MISSING:
        storage.describe(filesystem, path)  # raises what is the matter with it, most likely that it is not there
        raise ChangedDuringRead(
            recording.recording_id, "the object was not there when the manifest was read, now it is; run again"
        )
    if storage.is_local(filesystem):
        return _read_local(path, recording)
    if storage.is_gcs(filesystem):
        data = _read_gcs(filesystem, path, recording)
    elif storage.is_s3(filesystem):
        data = _read_s3(filesystem, path, recording)
    else:
        _require_version(storage.describe(filesystem, path).version, recording)
        data = filesystem.cat_file(path)
        _require_version(storage.describe(filesystem, path).version, recording)
    if len(data) < recording.size_bytes:  # more is possible: gzip that the server unpacks
        raise EOFError("truncated answer")
    return bytes(data)


def _read_local(path: str, recording: Recording) -> bytes:
    if not os.path.lexists(path):
        path = storage.decode_local_path(path)
    with Path(path).open("rb") as file:
        _require_version(storage.make_local_version(os.fstat(file.fileno())), recording)
        data = file.read()
        _require_version(storage.make_local_version(os.fstat(file.fileno())), recording)
    return data


def _read_gcs(filesystem: Any, path: str, recording: Recording) -> bytes:
    try:
        return bytes(filesystem.cat_file(path, generation=recording.version))
    except FileNotFoundError:
        storage.describe(filesystem, path)  # raises FileNotFoundError when not only the generation is gone
        raise _changed(recording) from None


def _read_s3(filesystem: Any, path: str, recording: Recording) -> bytes:
    with filesystem.open(path, "rb", cache_type="none") as file:  # its requests are bound to the ETag or version in `details`
        if storage.describe(filesystem, path, file.details).version == recording.version:
            try:
                return bytes(file.read())
            except OSError as error:
                if storage.is_transient(error) or storage.describe(filesystem, path).version == recording.version:
                    raise
    if filesystem.version_aware:  # a bucket that keeps old versions may still have this one
        try:
            return bytes(filesystem.cat_file(path, version_id=recording.version))
        except OSError as error:
            if storage.is_transient(error) or storage.is_denied(error):
                raise
    raise _changed(recording)


def _require_version(version: str, recording: Recording) -> None:
    if version != recording.version:
        raise _changed(recording)


def _changed(recording: Recording) -> ChangedDuringRead:
    return ChangedDuringRead(
        recording.recording_id, "the object was written again after it was listed; run again to take the new version"
    )
