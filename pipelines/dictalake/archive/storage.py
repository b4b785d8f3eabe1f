"""The edge to fsspec: file systems cached per process, the state of one object, and what a storage error means."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import fsspec
from fsspec.core import split_protocol

from dictalake import retries
from dictalake.archive.deadlines import REQUEST_S, call_within
from dictalake.config.uris import make_file_uri, read_path, split_scheme
from dictalake.errors import ConfigError, DictalakeError, RunError
from dictalake.records import make_local_version as make_local_version

MISSING = "missing"  # the version of an object that was not there when its manifest was read
_OBJECT_STORES = ("gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "http", "https")
_MOST_BYTES = 2**63 - 1  # of an object: what the lake's tables can hold
_TRANSIENT_ERRNOS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    getattr(errno, "EREMOTEIO", errno.EIO),
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}
# Libraries below fsspec whose errors come up as they are; their modules are looked up, not imported: gcsfs takes a second.
_LIBRARY_ERRORS = (
    ("urllib3.exceptions", "HTTPError"),
    ("aiohttp", "ClientError"),
    ("requests", "RequestException"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("google.api_core.exceptions", "GoogleAPIError"),
    ("gcsfs.retry", "HttpError"),
    ("gcsfs.retry", "ChecksumError"),
    ("gcsfs.retry", "NonRetryableError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
)
Result = TypeVar("Result")
_filesystems: dict[tuple[str, str, int], tuple[Any, float]] = {}  # with when each was opened, on the monotonic clock
_FRESH_S = 5.0  # a file system younger than this has the newest credentials that there are

# What says that credentials were good once: botocore's codes, and the exceptions of those who renew them.
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_EXPIRED_ERRORS = {
    "RefreshError",
    "UnauthorizedSSOTokenError",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "CredentialRetrievalError",
}

for _name in ("gcsfs", "s3fs", "fsspec", "aiobotocore", "botocore", "google", "urllib3"):
    # they log paths, and gcsfs whole error texts: a source URI may name a patient
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class UnknownStorageError(ConfigError):
    """A location of a kind that fsspec does not know: a wrong key, or a wrong line in a manifest."""


class RefusedOptionsError(ConfigError):
    """Options or credentials with which no file system can be opened: a wrong key, or a token that is no longer valid."""


@dataclass(frozen=True)
class ObjectState:
    """What the storage says about an object: its version, size and UTC time of modification."""

    version: str
    size_bytes: int
    modified_at: datetime | None


def open_location(location: str, options: Mapping[str, Any], key: str) -> tuple[Any, str]:
    """The fsspec file system of ``location`` and the path in it. ``options`` are for remote storage, a local path needs none.

    Raises ConfigError naming ``key`` where the kind of storage is unknown, its package is missing or its options are refused,
    and transient errors (the credential service does not answer) unchanged, for ``call_with_retries``.
    """
    protocol = split_protocol(location)[0] or "file"
    used = {} if protocol in ("file", "local") else dict(options)
    emulator = _find_emulator(used) if protocol in ("gs", "gcs") else None
    try:
        kind = fsspec.get_filesystem_class(protocol) if emulator is None else _import_plain_gcsfs()
    except ValueError:
        raise UnknownStorageError(f"{key}: there is no storage of this kind; use a path, gs://bucket/… or s3://…") from None
    except ImportError:
        package = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "abfs": "adlfs", "az": "adlfs"}.get(protocol)
        missing = f"needs the package {package}: pip install {package}" if package else "needs a package that is not installed"
        raise ConfigError(f"{key}: {protocol}:// {missing}") from None
    if emulator is not None:
        used = {"token": "anon", **used, "endpoint_url": emulator}
    try:
        filesystem = _open_filesystem(kind, protocol, used)
    except TypeError:
        raise ConfigError(f"archive.storage_options: {protocol}:// has no such option; check their names") from None
    except storage_errors() as error:
        if is_transient(error) and not is_expired(error):
            raise
        cause = type(error).__name__
        raise RefusedOptionsError(
            f"archive.storage_options: {protocol}:// refuses them ({cause}); check their values, and log in again"
        ) from None
    return filesystem, str(kind._strip_protocol(location))


def is_archive_location(location: str) -> bool:
    """Whether ``location`` is a path or in an object store, and not of a kind of which fsspec alone knows (``zip://``)."""
    return split_scheme(location)[0] in ("file", *_OBJECT_STORES)


def _open_filesystem(kind: Any, protocol: str, options: dict[str, Any]) -> Any:
    """fsspec itself caches per thread, which would open one connection pool for each thread of a worker."""
    key = (protocol, json.dumps(options, sort_keys=True, default=repr), os.getpid())
    if key not in _filesystems:
        # listings that a file system remembers would hide later changes from `fetch`
        extra = {"use_listings_cache": False} if protocol in _OBJECT_STORES else {}
        used = {**extra, **options, "skip_instance_cache": True}
        if protocol in ("s3", "s3a"):  # retries happen in call_with_retries, where they are bounded and counted
            config = dict(options.get("config_kwargs") or {})
            used["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": 1}, **config}
        if protocol in ("http", "https"):
            from dictalake.archive.http_objects import HttpObjects

            kind = HttpObjects
        filesystem = kind(**used)
        if protocol in ("s3", "s3a"):
            filesystem.retries = 1
        _filesystems[key] = filesystem, time.monotonic()
    return _filesystems[key][0]


def _forget_filesystems() -> None:
    """The next ``open_location`` looks for credentials anew."""
    for key, (_, opened_s) in list(_filesystems.items()):
        if time.monotonic() - opened_s > _FRESH_S:
            _filesystems.pop(key, None)


def _find_emulator(options: Mapping[str, Any]) -> str | None:
    """The address of a GCS emulator, if one is configured; with it in the cache key another emulator is another file system."""
    endpoint = str(options.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST") or "default")
    if endpoint == "default" or "googleapis.com" in endpoint:
        return None
    return endpoint if "://" in endpoint else f"http://{endpoint}"


def _import_plain_gcsfs() -> Any:
    """gcsfs's newer class asks a gRPC service first, which no emulator has, and waits for minutes. The variable keeps other
    users of fsspec in this process from it; whoever imported gcsfs earlier has it already, so the plain class is taken by name.
    """
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    from gcsfs.core import GCSFileSystem

    return GCSFileSystem


def is_local(filesystem: Any) -> bool:
    return "file" in _protocols(filesystem)


def is_gcs(filesystem: Any) -> bool:
    return "gs" in _protocols(filesystem)


def is_s3(filesystem: Any) -> bool:
    return "s3" in _protocols(filesystem)


def is_http(filesystem: Any) -> bool:
    return "http" in _protocols(filesystem)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def make_uri(filesystem: Any, path: str) -> str:
    """The full URI: ``file:///abs/path``, ``gs://bucket/key``. Names on a disk that are no UTF-8 are shown with escapes."""
    if is_local(filesystem):
        return make_file_uri(path)
    uri = path if "://" in path else f"{_protocols(filesystem)[0]}://{path}"
    return uri.encode("utf-8", "backslashreplace").decode("utf-8")


def decode_local_path(path: str) -> str:
    """The path that ``make_uri`` shows with escapes, as the operating system knows it: a name that is no UTF-8."""
    return read_path(path)


def describe(filesystem: Any, path: str, info: Mapping[str, Any] | None = None) -> ObjectState:
    """Version, size and time of one object, from ``info`` (a listing's entry) or by asking. Raises ``storage_errors()``."""
    if is_local(filesystem):
        return describe_local(path)
    entry = filesystem.info(path) if info is None else info
    if entry.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, "not an object")
    modified_at = _read_time(entry)
    size = int(entry.get("size") or 0)
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError("a size that no object has")
    # A listing of S3 names no version ids, a question about one object does: only a file system that uses them always has them.
    version_id = entry.get("VersionId") if getattr(filesystem, "version_aware", False) else None
    version = entry.get("generation") or (version_id if version_id != "null" else None) or entry.get("ETag")
    if not version:
        nanoseconds = 0 if modified_at is None else round(modified_at.timestamp() * 1_000_000) * 1000
        version = f"{nanoseconds}-{size}"
    return ObjectState(str(version).strip('"'), size, modified_at)


def describe_local(path: str) -> ObjectState:
    """Raises OSError, also for what is no regular file: it is not opened."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a file")
    return make_local_state(status)


def make_local_state(status: os.stat_result) -> ObjectState:
    try:
        modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):  # a disk can hold times that no calendar has
        modified_at = None
    return ObjectState(make_local_version(status), status.st_size, modified_at)


def _read_time(entry: Mapping[str, Any]) -> datetime | None:
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = entry.get(name)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return None


def storage_errors() -> tuple[type[BaseException], ...]:
    """Everything that a file system may raise about an object, for an ``except`` clause."""
    loaded = [getattr(sys.modules[module], name) for module, name in _LIBRARY_ERRORS if module in sys.modules]
    # gcsfs: 400 is a ValueError, a file system that lost its session a RuntimeError
    return (OSError, EOFError, ValueError, RuntimeError, *loaded)


def status_of(error: BaseException) -> int | None:
    """The HTTP status inside an error, if there is one."""
    for name in ("code", "status"):
        value = getattr(error, name, None)
        if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
            return int(value)
    value = _boto_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return value if isinstance(value, int) else None


def _boto_answer(error: BaseException) -> Mapping[str, Any]:
    """s3fs translates botocore's errors, and leaves the original as the cause."""
    for candidate in (error, error.__cause__):
        answer = getattr(candidate, "response", None)
        if isinstance(answer, dict):
            return answer
    return {}


def _package_of(error: BaseException) -> str:
    return type(error).__module__.split(".")[0]


def is_missing(error: BaseException) -> bool:
    """There is no such object, folder or bucket."""
    return isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)) or status_of(error) == 404


def is_expired(error: BaseException) -> bool:
    """The credentials were valid once; there may be fresh ones."""
    if status_of(error) == 401 or type(error).__name__ in _EXPIRED_ERRORS:
        return True
    return _boto_answer(error).get("Error", {}).get("Code") in _EXPIRED_CODES


def is_denied(error: BaseException) -> bool:
    """The credentials are missing or not sufficient."""
    if is_expired(error):
        return False
    if isinstance(error, PermissionError) or status_of(error) == 403:
        return True
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):  # how gcsfs says 403
        return True
    name = type(error).__name__
    # google-auth: anonymous credentials, refused and asked to renew themselves
    return "Credentials" in name or "NoAuth" in name or (name == "InvalidOperation" and _package_of(error) == "google")


def is_transient(error: BaseException) -> bool:
    """It may go away by itself: throttling, server errors, timeouts, resets, truncated answers, expired credentials."""
    if is_expired(error):
        return True
    if is_denied(error):
        return False
    if isinstance(error, (TimeoutError, ConnectionError, EOFError)) or type(error).__name__ == "ChecksumError":
        return True
    status = status_of(error)
    if status is not None:
        return status in (408, 409, 425, 429) or status >= 500
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    return _package_of(error) in ("aiohttp", "requests", "urllib3", "botocore", "google")


def call_with_retries(
    call: Callable[[], Result],
    tries: int,
    sleep: Callable[[float], None] | None = None,
    on_retry: Callable[[], None] | None = None,
    within_s: float | None = REQUEST_S,
) -> Result:
    """``call()``, again after a jittered, doubling pause while its errors are transient and ``tries`` are left.

    A ``call`` that has not ended after ``within_s`` seconds is left behind (``deadlines.py``) and was a TimeoutError; with None
    it sees to its end itself. A ``call`` that opens its location itself finds fresh credentials after expired ones, if there
    are any.
    """

    def call_once() -> Result:
        return call() if within_s is None else call_within(call, time.monotonic() + within_s)

    return retries.call_with_retries(call_once, tries, _may_pass, sleep, on_retry)


def _may_pass(error: BaseException) -> bool:
    if not isinstance(error, storage_errors()):
        return False
    if is_expired(error):
        _forget_filesystems()
    return is_transient(error)


def explain(error: BaseException, key: str, given: str | None = None) -> DictalakeError:
    """The error for a person whose ``key`` names a place that cannot be listed or read.

    ``given`` is the value of the configuration key, where that is the place itself: only this value is ever repeated.
    """
    place = key if given is None else f"{key} = {given!r}"
    if is_missing(error):
        return ConfigError(f"{place}: there is nothing at this place; give a folder, file or bucket that exists")
    if is_denied(error) or is_expired(error):
        return ConfigError(
            f"{place}: access refused; for gs:// run `gcloud auth application-default login` or set "
            "archive.storage_options.token, for s3:// set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "or AWS_PROFILE, for a path allow this user to read it"
        )
    status = status_of(error)
    cause = type(error).__name__ if status is None else f"HTTP {status}"
    if is_transient(error):
        return RunError(f"{place}: the storage does not answer ({cause}); check the network and the endpoint, then run again")
    return ConfigError(f"{place}: the storage refuses the request ({cause}); check the location and archive.storage_options")
