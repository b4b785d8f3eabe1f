"""Fetching gives the bytes of the listed version, tries again what may pass, and says why it gave up."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from dictalake.archive import objects
from dictalake.archive.fetch import fetch
from dictalake.archive.listing import list_recordings
from dictalake.archive.manifest import find_recordings
from dictalake.archive.storage import open_location
from dictalake.config.sections import Archive, Limits
from dictalake.errors import (
    AccessDenied,
    ChangedDuringRead,
    ConfigError,
    CredentialsExpired,
    EmptyObject,
    FetchFailed,
    NotFound,
    ObjectTooLarge,
    RunError,
    TranscriptionError,
)
from dictalake.records import Recording
from tests.emulators import ObjectStore


class ShakyStorage(MemoryFileSystem):
    """A real file system in memory whose next reads fail with ``failures``; bytes instead of an error are what is read."""

    protocol = "shaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures: ClassVar[list[Exception | bytes]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("shaky://", "memory://")))

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        self._fail()
        if self.failures and isinstance(self.failures[0], bytes):
            return self.failures.pop(0)  # type: ignore[return-value]
        return bytes(super().cat_file(path, *arguments, **options))

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._fail()
        return super().find(path, *arguments, **options)

    def _fail(self) -> None:
        if self.failures and isinstance(self.failures[0], Exception):
            raise self.failures.pop(0)  # type: ignore[misc]


ARCHIVE = Archive(uri="shaky://box", fetch_tries=3)


@pytest.fixture
def recording() -> Iterator[Recording]:
    fsspec.register_implementation("shaky", ShakyStorage, clobber=True)
    ShakyStorage().pipe_file("/box/CANARY.wav", b"twelve bytes")
    (found,) = list_recordings(ARCHIVE)
    yield found
    ShakyStorage.store.clear()
    ShakyStorage.failures.clear()


def make_http_error(status: int) -> aiohttp.ClientResponseError:
    url = URL("http://storage/CANARY")
    request = aiohttp.RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url)
    return aiohttp.ClientResponseError(request, (), status=status, message="CANARY")


TRANSIENT = [
    TimeoutError("CANARY"),
    ConnectionResetError("CANARY"),
    OSError(errno.EIO, "CANARY"),
    make_http_error(429),
    make_http_error(503),
    aiohttp.ClientPayloadError("CANARY"),
    b"twelve",
]


@pytest.mark.parametrize("failure", TRANSIENT, ids=repr)
def test_what_may_pass_is_tried_again(recording: Recording, failure: Exception | bytes) -> None:
    ShakyStorage.failures[:] = [failure, failure]
    pauses: list[float] = []
    assert fetch(recording, ARCHIVE, pauses.append) == b"twelve bytes"
    assert len(pauses) == 2
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0


def test_throttling_by_gcs_is_tried_again(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # decides at the import what later tests of GCS get
    from gcsfs.retry import HttpError

    ShakyStorage.failures[:] = [HttpError({"code": 429, "message": "CANARY"})]
    assert fetch(recording, ARCHIVE, lambda pause_s: None) == b"twelve bytes"
    ShakyStorage.failures[:] = [HttpError({"code": 403, "message": "CANARY"})]
    with pytest.raises(AccessDenied):
        fetch(recording, ARCHIVE, lambda pause_s: None)


@pytest.mark.parametrize("failure", TRANSIENT, ids=repr)
def test_tries_end(recording: Recording, failure: Exception | bytes) -> None:
    ShakyStorage.failures[:] = [failure] * 3
    with pytest.raises(FetchFailed, match="3 tries to read the object failed") as caught:
        fetch(recording, ARCHIVE, lambda pause_s: None)
    assert caught.value.retryable
    assert ShakyStorage.failures == []
    assert_says_nothing(caught.value)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (PermissionError("CANARY"), AccessDenied),
        (OSError("Forbidden: CANARY"), AccessDenied),
        (make_http_error(403), AccessDenied),
        (FileNotFoundError("CANARY"), NotFound),
        (IsADirectoryError("CANARY"), NotFound),
        (make_http_error(400), FetchFailed),
        (ValueError("Bad Request: CANARY"), FetchFailed),
    ],
    ids=repr,
)
def test_what_will_not_pass_is_not_tried_again(
    recording: Recording, failure: Exception, error: type[TranscriptionError]
) -> None:
    ShakyStorage.failures[:] = [failure]
    pauses: list[float] = []
    with pytest.raises(error) as caught:
        fetch(recording, ARCHIVE, pauses.append)
    assert pauses == []
    assert_says_nothing(caught.value)


def test_expired_credentials_are_tried_again_and_are_not_called_denied(recording: Recording) -> None:
    pauses: list[float] = []
    ShakyStorage.failures[:] = [make_http_error(401)]
    assert fetch(recording, ARCHIVE, pauses.append) == b"twelve bytes"
    for failure in (make_http_error(401), make_boto_error("ExpiredToken"), make_boto_error("ExpiredTokenException")):
        ShakyStorage.failures[:] = [failure] * 3
        with pytest.raises(CredentialsExpired, match="no fresh ones were found; log in again") as caught:
            fetch(recording, ARCHIVE, pauses.append)
        assert (caught.value.reason, caught.value.retryable) == ("credentials_expired", True)
        assert_says_nothing(caught.value)
    assert len(pauses) == 1 + 3 * 2


def make_boto_error(code: str) -> OSError:
    """As s3fs hands it on."""
    from botocore.exceptions import ClientError

    error = PermissionError("CANARY")
    error.__cause__ = ClientError({"Error": {"Code": code, "Message": "CANARY"}}, "GetObject")
    return error


def test_each_retry_is_told(recording: Recording) -> None:
    told: list[str] = []
    ShakyStorage.failures[:] = [TimeoutError(), b"twelve"]
    assert fetch(recording, ARCHIVE, lambda pause_s: None, on_retry=lambda: told.append("again")) == b"twelve bytes"
    assert told == ["again", "again"]
    ShakyStorage.failures[:] = [PermissionError()]
    with pytest.raises(AccessDenied):
        fetch(recording, ARCHIVE, lambda pause_s: None, on_retry=lambda: told.append("again"))
    assert told == ["again", "again"]


@pytest.mark.parametrize(("asked", "pause_s"), [("7", 7.0), ("3600", 30.0)])
def test_pause_that_the_server_asks_for_is_kept_within_bounds(recording: Recording, asked: str, pause_s: float) -> None:
    error = make_http_error(429)
    error.headers = CIMultiDictProxy(CIMultiDict({"Retry-After": asked}))
    pauses: list[float] = []
    ShakyStorage.failures[:] = [error]
    assert fetch(recording, ARCHIVE, pauses.append) == b"twelve bytes"
    assert pauses == [pause_s]


@pytest.fixture
def encrypting(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> tuple[Archive, list[Recording]]:
    """Two objects of a storage that encrypts: its ETags look like MD5s and are none."""
    monkeypatch.setattr(objects, "_buckets_without_md5", set())
    bucket = s3.make_bucket()
    writer, path = open_location(bucket, s3.fsspec_options, "test")
    writer.pipe({f"{path}/{name}.wav": name.encode() for name in ("one", "two")})
    archive = Archive(uri=bucket, storage_options=s3.fsspec_options)
    monkeypatch.setattr(objects, "md5", lambda data, **options: hashlib.md5(b"other" + data, **options))
    return archive, list(list_recordings(archive))


def test_etags_that_are_no_md5_are_found_out_by_reading_twice(encrypting: tuple[Archive, list[Recording]]) -> None:
    archive, (one, two) = encrypting
    told: list[str] = []
    assert fetch(one, archive, lambda pause_s: None, on_retry=lambda: told.append("one")) == b"one"
    assert fetch(two, archive, lambda pause_s: None, on_retry=lambda: told.append("two")) == b"two"
    assert told == ["one"]  # once for a bucket


@pytest.mark.parametrize("said", [{"ServerSideEncryption": "aws:kms"}, {"SSECustomerAlgorithm": "AES256"}, {"ETag": '"0-3"'}])
def test_etags_that_are_no_md5_by_what_the_answer_says_are_not_compared(said: dict[str, str]) -> None:
    objects._check_etag(b"bytes", {"ETag": f'"{"0" * 32}"', **said}, "bucket", set())
    with pytest.raises(objects.ChecksumError):
        objects._check_etag(b"bytes", {"ETag": f'"{"0" * 32}"'}, "bucket", set())


def test_object_stored_with_gzip_is_unpacked_and_no_false_alarm(gcs: ObjectStore) -> None:
    bucket = gcs.make_bucket()
    filesystem, path = open_location(bucket, gcs.fsspec_options, "test")
    blob = objects._gcs_client(filesystem).bucket(path).blob("a.wav")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"sound" * 1000))
    archive = Archive(uri=bucket, storage_options=gcs.fsspec_options, fetch_tries=1)
    (recording,) = list_recordings(archive)
    assert fetch(recording, archive) == b"sound" * 1000


def assert_says_nothing(error: TranscriptionError) -> None:
    assert "CANARY" not in str(error)
    assert error.__suppress_context__  # a traceback that is printed must not show the storage's own words
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args) == (type(error), error.args)


def test_listing_says_when_the_storage_does_not_answer(recording: Recording) -> None:
    ShakyStorage.failures[:] = [TimeoutError("CANARY")]
    with pytest.raises(RunError, match=r"archive.uri = 'shaky://box': the storage does not answer \(TimeoutError\)"):
        list_recordings(Archive(uri="shaky://box", fetch_tries=1))
    ShakyStorage.failures[:] = [PermissionError("CANARY")]
    with pytest.raises(ConfigError, match=r"archive\.uri = '.*': access refused") as caught:
        list_recordings(ARCHIVE)
    assert "CANARY" not in str(caught.value)


def test_object_without_bytes_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    archive = Archive(uri=str(tmp_path))
    (recording,) = list_recordings(archive)
    with pytest.raises(EmptyObject):
        fetch(recording, archive)


def test_file_that_changed_since_the_listing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old words")
    archive = Archive(uri=str(tmp_path))
    (recording,) = list_recordings(archive)
    assert fetch(recording, archive) == b"old words"
    path.write_bytes(b"new words")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ChangedDuringRead) as caught:
        fetch(recording, archive)
    assert (caught.value.reason, caught.value.retryable) == ("changed_during_read", True)


def test_memory_object_that_changed_since_the_listing_is_refused(recording: Recording) -> None:
    with pytest.raises(ChangedDuringRead):
        fetch(replace(recording, version="1-12"), ARCHIVE)


def test_file_that_came_after_the_manifest_was_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri\nlate.wav\n")
    archive = Archive(manifest=str(tmp_path / "list.csv"))
    (recording,) = find_recordings(archive)
    (tmp_path / "late.wav").write_bytes(b"late")
    with pytest.raises(ChangedDuringRead):
        fetch(recording, archive)


def test_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    archive = Archive(uri=str(tmp_path))
    (recording,) = list_recordings(archive)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(NotFound):
        fetch(recording, archive)


def test_object_above_the_limit_is_refused_without_being_read(recording: Recording) -> None:
    ShakyStorage.failures[:] = [AssertionError("it was read")]
    with pytest.raises(ObjectTooLarge, match=r"limits\.object_mb allows 1e-05"):
        fetch(recording, ARCHIVE, limits=Limits.model_validate({"object_mb": 1e-5}))
    ShakyStorage.failures.clear()
