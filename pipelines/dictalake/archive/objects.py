"""Google Cloud Storage and S3 where fsspec does not reach: one page of a listing at a time, and an object whole, in one
request, with its checksum compared. Options and credentials are those of the fsspec file system.

gs:// goes through google-cloud-storage, which compares crc32c itself, of the bytes as they are stored; s3:// through the client
of s3fs, which compares the checksums that S3 keeps with newer objects; the ETag of others is their MD5.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import md5
from typing import Any, NamedTuple

from dictalake.archive import storage
from dictalake.archive.deadlines import running_call
from dictalake.archive.intake import Intake
from dictalake.archive.streamed import Body, take_body
from dictalake.records import Data

PAGE_ENTRIES = 1000  # the most that S3 gives
_GOOGLE = "https://storage.googleapis.com"
_CONNECTIONS = 16
_TIMEOUT_S = 60.0
_FIELDS = "items(name,size,generation,updated),prefixes,nextPageToken"
_MD5_ETAG = re.compile(r"[0-9a-f]{32}")
_ETAG = re.compile(r"[0-9a-f]{32}(-\d+)?")

_client_lock = threading.Lock()
_buckets_without_md5: set[str] = set()


class ChecksumError(OSError):
    """The bytes that came are not those of the checksum; ``digest`` is what they are."""

    def __init__(self, digest: str = "") -> None:
        super().__init__("checksum mismatch")
        self.digest = digest


@dataclass(frozen=True)
class Cursor:
    """Where a listing stands: objects of ``bucket`` below ``prefix`` whose names are in ``[start, end)``, from ``token`` on."""

    bucket: str
    prefix: str
    delimiter: str = ""
    start: str = ""
    end: str | None = None
    token: Any = None


class Page(NamedTuple):
    """Paths with their infos, in the order of their names; the prefixes where there is a delimiter; where to go on."""

    entries: Sequence[tuple[str, Mapping[str, Any]]]
    prefixes: list[str]
    token: Any


def is_paged(filesystem: Any) -> bool:
    """Whether this module can list and read it."""
    return storage.is_gcs(filesystem) or storage.is_s3(filesystem)


def split_path(filesystem: Any, path: str) -> tuple[str, str]:
    """Bucket and key; a key may hold any character."""
    if storage.is_s3(filesystem):
        bucket, key, _ = filesystem.split_path(path)  # an access point's name has slashes
        return str(bucket), str(key)
    bucket, _, key = path.partition("/")
    return bucket, key


def list_page(filesystem: Any, cursor: Cursor) -> Page:
    """One page. Raises FileNotFoundError for a bucket that is not there, else ``storage_errors()``."""
    return (_list_gcs if storage.is_gcs(filesystem) else _list_s3)(filesystem, cursor)


def read_gcs(filesystem: Any, path: str, generation: str, intake: Intake) -> Data:
    """All bytes of this generation; inflated where they are stored with ``Content-Encoding: gzip``. The bytes come as they are
    stored and their checksum is compared before they are inflated, as far as ``intake`` allows.

    Raises FileNotFoundError, ChecksumError, else ``storage_errors()`` and what ``intake`` raises.
    """
    from google.api_core.exceptions import NotFound
    from google.cloud.storage.exceptions import DataCorruption

    bucket, key = split_path(filesystem, path)
    blob = _gcs_bucket(filesystem, bucket).blob(key, generation=int(generation))
    try:
        blob.download_to_file(intake, raw_download=True, checksum="crc32c", retry=None, timeout=_timeout_s(filesystem))
    except NotFound:
        raise FileNotFoundError from None
    except DataCorruption:
        raise ChecksumError from None
    stored = intake.finish()
    return intake.inflate(stored) if blob.content_encoding == "gzip" else stored


def read_s3(filesystem: Any, path: str, version: str, wrong_digests: set[str], intake: Intake) -> Data | None:
    """All bytes of this ETag, or version id where ``filesystem`` is ``version_aware``; None where it is not what is there.

    ``wrong_digests`` are of earlier reads of this object whose checksum was wrong: bytes that come the same again are what is
    stored, and this bucket's ETags no MD5s. Raises FileNotFoundError, ChecksumError, else ``storage_errors()`` and what
    ``intake`` raises.
    """
    bucket, key = split_path(filesystem, path)
    by_version_id = filesystem.version_aware and not _ETAG.fullmatch(version)
    wanted = {"VersionId": version} if by_version_id else {"IfMatch": f'"{version}"'}

    async def ask() -> tuple[Mapping[str, Any], Body]:
        answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key, **wanted)
        body = answer["Body"]
        return answer, Body(body.read, body.aclose)

    try:
        answer = take_body(filesystem.loop, ask, intake)
    except OSError as error:
        # a version id that is malformed elsewhere is an ETag of a storage that has other ones than S3
        if storage.status_of(error) == 412 or (by_version_id and storage.status_of(error) == 400):
            return None
        raise
    data = intake.finish()
    _check_etag(data, answer, bucket, wrong_digests)
    return data


def _check_etag(data: Data, answer: Mapping[str, Any], bucket: str, wrong_digests: set[str]) -> None:
    etag = str(answer.get("ETag", "")).strip('"')
    encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer
    if encrypted or bucket in _buckets_without_md5 or not _MD5_ETAG.fullmatch(etag):
        return
    digest = md5(data, usedforsecurity=False).hexdigest()
    if digest == etag:
        return
    if digest not in wrong_digests:
        raise ChecksumError(digest)
    _buckets_without_md5.add(bucket)


def _list_gcs(filesystem: Any, cursor: Cursor) -> Page:
    from google.api_core.exceptions import NotFound

    listing = _gcs_bucket(filesystem, cursor.bucket).list_blobs(
        prefix=cursor.prefix or None,
        delimiter=cursor.delimiter or None,
        start_offset=cursor.start or None,
        end_offset=cursor.end,
        page_token=cursor.token,
        page_size=PAGE_ENTRIES,
        fields=_FIELDS,
        retry=None,
        timeout=_timeout_s(filesystem),
    )
    try:
        blobs = list(next(listing.pages, ()))
    except NotFound:
        raise FileNotFoundError from None
    entries = [
        (
            f"{cursor.bucket}/{blob.name}",
            {"size": blob.size, "generation": str(blob.generation), "updated": blob.updated},
        )
        for blob in blobs
    ]
    return Page(entries, sorted(listing.prefixes), listing.next_page_token)


def _gcs_bucket(filesystem: Any, name: str) -> Any:
    pays = filesystem.requester_pays
    return _gcs_client(filesystem).bucket(name, user_project=pays if isinstance(pays, str) or not pays else filesystem.project)


def _gcs_client(filesystem: Any) -> Any:
    """One for each file system: its connections are shared by the threads, its credentials are the file system's."""
    with _client_lock:
        client = getattr(filesystem, "_dictalake_client", None)
        if client is None:
            client = filesystem._dictalake_client = _open_gcs_client(filesystem)
        return client


def _open_gcs_client(filesystem: Any) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    endpoint = filesystem.base.removesuffix("/storage/v1/")
    client = Client(
        project=filesystem.project or "none",  # only who makes buckets needs one
        credentials=filesystem.credentials.credentials or AnonymousCredentials(),
        client_options=None if endpoint == _GOOGLE else {"api_endpoint": endpoint},
    )
    for scheme in ("https://", "http://"):  # as Google's guide does; requests keeps 10 connections
        client._http.mount(scheme, _make_adapter())
    return client


def _make_adapter() -> Any:
    """requests' adapter with connections whose socket is shut down when the call that reads from it is left behind."""
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Stoppable(HTTPConnection):
        def getresponse(self) -> Any:
            _shut_down_on_leaving(self.sock)
            return super().getresponse()

    class StoppableHTTPS(HTTPSConnection):
        def getresponse(self) -> Any:
            _shut_down_on_leaving(self.sock)
            return super().getresponse()

    class Pool(HTTPConnectionPool):
        ConnectionCls = Stoppable

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls = StoppableHTTPS

    adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
    adapter.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": HTTPSPool}
    return adapter


def _shut_down_on_leaving(sock: Any) -> None:
    if sock is not None:
        running_call().on_leaving(partial(sock.shutdown, socket.SHUT_RDWR))


def _timeout_s(filesystem: Any) -> float:
    timeout = filesystem.requests_timeout
    return float(timeout) if isinstance(timeout, (int, float)) else _TIMEOUT_S


def _list_s3(filesystem: Any, cursor: Cursor) -> Page:
    request: dict[str, Any] = {"Bucket": cursor.bucket, "Prefix": cursor.prefix, "MaxKeys": PAGE_ENTRIES}
    if cursor.delimiter:
        request["Delimiter"] = cursor.delimiter
    if filesystem.version_aware:
        method, contents, after = "list_object_versions", "Versions", "KeyMarker"
    else:
        method, contents, after = "list_objects_v2", "Contents", "StartAfter"
    if cursor.start:  # a prefix, which is excluded as a name: a name that ends with / is no recording
        request[after] = cursor.start
    answer = filesystem.call_s3(method, **{**request, **(cursor.token or {})})
    found = [entry for entry in answer.get(contents, []) if entry.get("IsLatest", True)]
    within = [entry for entry in found if cursor.start < entry["Key"] and (cursor.end is None or entry["Key"] < cursor.end)]
    token = None
    if answer.get("IsTruncated") and not (found and cursor.end is not None and found[-1]["Key"] >= cursor.end):
        token = (
            {"KeyMarker": answer.get("NextKeyMarker", ""), "VersionIdMarker": answer.get("NextVersionIdMarker", "")}
            if filesystem.version_aware
            else {"ContinuationToken": answer["NextContinuationToken"]}
        )
    entries = [(f"{cursor.bucket}/{entry['Key']}", {**entry, "size": entry["Size"]}) for entry in within]
    return Page(entries, [entry["Prefix"] for entry in answer.get("CommonPrefixes", [])], token)
