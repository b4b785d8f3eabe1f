"""The bytes of one recording, of exactly the version that it was found with.

==========  ====================================================================================
storage     how the version is held
==========  ====================================================================================
gs://       the request names the generation; the crc32c is compared
s3://       the request says If-Match the ETag; with ``version_aware: true`` it names the version id; the MD5 is compared
a path      mtime and size of the open file, before and after reading; it is opened below the archive (local_files.py)
others      the object's state, before and after reading
==========  ====================================================================================
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import Any

from dictalake.archive import objects, storage
from dictalake.archive.deadlines import HangingStorage, SilentStorage, TooLate, call_within, running_call
from dictalake.archive.disks import is_on_disk, learn
from dictalake.archive.intake import PIECE, Intake
from dictalake.archive.local_files import NotRegularError, OutsideError
from dictalake.archive.members import check_size
from dictalake.archive.pace import pace_of
from dictalake.archive.places import open_listed
from dictalake.config.sections import Archive, Limits
from dictalake.config.uris import find_path
from dictalake.errors import (
    AccessDenied,
    ChangedDuringRead,
    ConfigError,
    CredentialsExpired,
    EmptyObject,
    FetchFailed,
    NotFound,
)
from dictalake.records import Data, Recording

_BLOCK = 2**22  # asked for at a time, at most
_LOCAL_BLOCK = 2**17  # the same of a network file system, whose pages the kernel reads ahead
Open = Callable[[str], io.FileIO]
_EXPIRED = "the credentials of this run expired and no fresh ones were found; log in again or renew the token, then run again"


class _NoTimeLeft(Exception):
    """``archive.fetch_s`` is over: no error of the storage, which would be tried again."""


def fetch(
    recording: Recording,
    archive: Archive,
    sleep: Callable[[float], None] = time.sleep,
    *,
    limits: Limits | None = None,
    on_retry: Callable[[], None] | None = None,
    is_listed: bool = False,
) -> Data:
    """All bytes of ``recording``; transient errors are tried ``archive.fetch_tries`` times with jittered, doubling pauses, all
    within ``archive.fetch_s``. No more than ``limits.object_mb`` are ever taken, whatever the storage announced or sends.

    ``on_retry`` is called before each try but the first. ``is_listed`` says that ``archive`` itself names the recording: what
    is at its place on a disk is then not read where it is outside of ``archive``.

    Raises NotFound, AccessDenied, CredentialsExpired, ChangedDuringRead, EmptyObject, ObjectTooLarge or FetchFailed; their
    details name no URI.
    """
    limits = limits or Limits()  # type: ignore[call-arg]
    check_size(recording.size_bytes, recording.recording_id, limits)
    wrong_digests: set[str] = set()
    deadline = time.monotonic() + archive.fetch_s

    def open_file(path: str) -> io.FileIO:
        return open_listed(path, archive, is_listed=is_listed)

    def read() -> Data:  # the file system anew each time: with expired credentials it is another one
        filesystem, path = storage.open_location(recording.uri, archive.storage_options, "archive.uri")
        intake = Intake(recording.recording_id, limits, running_call())
        return _read(filesystem, path, recording, open_file, wrong_digests, intake, archive.silence_s)

    def read_in_time() -> Data:
        if is_on_disk(recording.uri):
            return read()
        try:
            return call_within(read, deadline, archive.silence_s)
        except TooLate:
            raise _NoTimeLeft from None

    def pause(seconds: float) -> None:
        if time.monotonic() + seconds >= deadline:
            raise _NoTimeLeft
        sleep(seconds)

    try:
        data = storage.call_with_retries(read_in_time, archive.fetch_tries, pause, on_retry, within_s=None)
    except _NoTimeLeft:
        raise FetchFailed(
            recording.recording_id,
            f"the object did not come within the {archive.fetch_s:g} s of archive.fetch_s; check the network and the storage, "
            "or raise this key for large objects on a slow line",
        ) from None
    except storage.RefusedOptionsError:  # they were good when the recording was found
        raise CredentialsExpired(recording.recording_id, _EXPIRED) from None
    except ConfigError:  # a manifest may name any kind of storage; on this machine it may lack its package
        raise NotFound(
            recording.recording_id, "this machine cannot open this kind of storage; install its fsspec package"
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(recording.recording_id, "the object is not there (any more); restore it or leave it out") from None
    except IsADirectoryError:
        raise NotFound(recording.recording_id, "this is a folder, not an object") from None
    except storage.storage_errors() as error:
        raise _name_failure(error, recording, archive.fetch_tries) from None
    if not data:
        raise EmptyObject(recording.recording_id, "the object is empty: the upload or the recorder stopped too early")
    return data


def _name_failure(error: BaseException, recording: Recording, tries: int) -> AccessDenied | CredentialsExpired | FetchFailed:
    if storage.is_expired(error):
        return CredentialsExpired(recording.recording_id, _EXPIRED)
    if storage.is_denied(error):
        return AccessDenied(
            recording.recording_id, "the credentials of this run may not read the object; grant read access to it"
        )
    status = storage.status_of(error)
    cause = type(error).__name__ if status is None else f"HTTP {status}"
    if isinstance(error, SilentStorage):
        cause = "next to nothing coming for the seconds of archive.silence_s"
    if isinstance(error, HangingStorage):
        cause = "many earlier reads of this worker still hanging, as when a network file system's server is gone"
    if storage.is_transient(error):
        return FetchFailed(
            recording.recording_id, f"{tries} tries to read the object failed, the last with {cause}; try again later"
        )
    return FetchFailed(recording.recording_id, f"the storage refused to give the object ({cause})")


def _read(
    filesystem: Any,
    path: str,
    recording: Recording,
    open_file: Open,
    wrong_digests: set[str],
    intake: Intake,
    silence_s: float,
) -> Data:
    if storage.is_local(filesystem):
        path = _find_path(recording, path)
    if recording.version == storage.MISSING:
        storage.describe(filesystem, path)  # raises what is the matter with it, most likely that it is not there
        raise ChangedDuringRead(
            recording.recording_id, "the object did not exist when the manifest was read, and now it does; run again"
        )
    if storage.is_local(filesystem):
        return _read_local(filesystem, path, recording, open_file, intake, silence_s)
    if storage.is_gcs(filesystem):
        return _read_gcs(filesystem, path, recording, intake)
    if storage.is_s3(filesystem):
        data = _read_s3(filesystem, path, recording, wrong_digests, intake)
    else:
        _require_version(storage.describe(filesystem, path).version, recording)
        _read_other(filesystem, path, intake, silence_s)
        data = intake.finish()
        _require_version(storage.describe(filesystem, path).version, recording)
    if len(data) < recording.size_bytes:
        raise EOFError("truncated answer")
    return data


def _find_path(recording: Recording, shown: str) -> str:
    """As the operating system knows it. Rows of before 0.2 may name a file literally whose name looks like an escape."""
    path = find_path(recording.uri) or shown
    return path if os.path.lexists(path) else shown


def _read_local(filesystem: Any, path: str, recording: Recording, open_file: Open, intake: Intake, silence_s: float) -> Data:
    try:
        file = open_file(path)
    except (OutsideError, NotRegularError):  # what was listed was a file
        raise _changed(recording) from None
    with file:
        status = os.fstat(file.fileno())
        _require_version(storage.make_local_version(status), recording)
        pace = None if is_on_disk(recording.uri) else pace_of(filesystem, _LOCAL_BLOCK)  # of a disk nobody waits for a piece
        while room := status.st_size + 1 - intake.size:  # no more of one that grows
            piece = file.read(min(PIECE, room)) if pace is None else pace.ask(room, silence_s, file.read)[0]
            if not piece:
                break
            intake.write(piece)
        _require_version(storage.make_local_version(os.fstat(file.fileno())), recording)
        learn(recording.uri, file.fileno())
    return intake.finish()


def _read_gcs(filesystem: Any, path: str, recording: Recording, intake: Intake) -> Data:
    try:
        return objects.read_gcs(filesystem, path, recording.version, intake)
    except FileNotFoundError:
        storage.describe(filesystem, path)  # raises FileNotFoundError when not only the generation is gone
        raise _changed(recording) from None


def _read_s3(filesystem: Any, path: str, recording: Recording, wrong_digests: set[str], intake: Intake) -> Data:
    try:
        data = objects.read_s3(filesystem, path, recording.version, wrong_digests, intake)
    except objects.ChecksumError as error:
        wrong_digests.add(error.digest)
        raise
    except FileNotFoundError:
        if not filesystem.version_aware:
            raise
        storage.describe(filesystem, path)
        data = None
    if data is None:
        raise _changed(recording)
    return data


def _read_other(filesystem: Any, path: str, intake: Intake, silence_s: float) -> None:
    if storage.is_http(filesystem):
        from dictalake.archive.http_objects import read_http

        read_http(filesystem, path, intake)
        return
    pace, is_full = pace_of(filesystem, _BLOCK), True
    while is_full:
        begin = intake.size
        block, is_full = pace.ask(
            intake.room,
            silence_s,
            lambda most, begin=begin: filesystem.cat_file(path, start=begin, end=begin + most),  # type: ignore[misc]
        )
        intake.write(block)


def _require_version(version: str, recording: Recording) -> None:
    if version != recording.version:
        raise _changed(recording)


def _changed(recording: Recording) -> ChangedDuringRead:
    return ChangedDuringRead(
        recording.recording_id, "the object was overwritten after it was listed; run again to take the new version"
    )
