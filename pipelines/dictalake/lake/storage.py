"""Opens the storage of the lake, for two libraries: delta-rs writes the transaction log, pyarrow the data files.

Each has its own names for endpoints and credentials. ``lake.storage_options`` use those of delta-rs; this module translates
them for pyarrow. Only pyarrow's native file systems are used: one that calls Python from pyarrow's threads can abort the
interpreter at exit. A version of the log must be written only where there is none yet, which pyarrow cannot ask of an object
store: obstore does that, and lists a bucket page by page. It is the library below delta-rs, so it means the same by the same
options.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError
from dictalake.lake.conditional_put import create_object, list_objects, open_objects
from dictalake.retries import call_with_retries

# delta-rs's names (object_store 0.13, AmazonS3ConfigKey and GoogleConfigKey) → one canonical name each.
_S3_NAMES = {
    "access_key_id": "access_key",
    "secret_access_key": "secret_key",
    "session_token": "session_token",
    "token": "session_token",
    "region": "region",
    "default_region": "region",
    "endpoint_url_s3": "endpoint",
    "endpoint_url": "endpoint",
    "endpoint": "endpoint",
    "virtual_hosted_style_request": "virtual",
    "skip_signature": "anonymous",
    "allow_http": "allow_http",
    "proxy_url": "proxy",
}
_GCS_NAMES = {"base_url": "endpoint", "skip_signature": "anonymous", "allow_http": "allow_http"}

# Options that concern only delta-rs's own requests; data files do not need them.
_DELTA_ONLY = {
    "conditional_put",
    "copy_if_not_exists",
    "timeout",
    "connect_timeout",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "user_agent",
    "max_retries",
    "retry_timeout",
}
_INSTEAD = {
    "s3_allow_unsafe_rename": "with it two writers overwrite each other's commits; remove it",
    "service_account": "set the environment variable GOOGLE_APPLICATION_CREDENTIALS to that file on every machine instead",
    "service_account_path": "set the environment variable GOOGLE_APPLICATION_CREDENTIALS to that file on every machine instead",
    "service_account_key": "set the environment variable GOOGLE_APPLICATION_CREDENTIALS to a key file instead",
    "application_credentials": "set the environment variable GOOGLE_APPLICATION_CREDENTIALS on every machine instead",
    "server_side_encryption": "set the default encryption of the bucket instead, it covers the data files too",
    "sse_kms_key_id": "set the default encryption of the bucket instead, it covers the data files too",
}
# object_store 0.13 honours skip_signature when it reads, but requests a token when it writes (apache/arrow-rs-object-store
# issue 520). A key without a secret is its own way to switch signing off.
_GCS_UNSIGNED = '{"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": true}'
TRIES = 5  # for one object; the clients below also retry a few times
_RETRY_TIME = timedelta(seconds=60)


class StoredFile(NamedTuple):
    """A file or object by its path below the folder, and when it was last changed, in seconds since 1970."""

    path: str
    modified_s: float


@dataclass(frozen=True)
class Storage:
    """One folder of the lake: ``uri`` and ``delta_options`` for delta-rs, ``filesystem`` (rooted at the folder) for pyarrow.

    ``given_options`` are the user's; ``delta_options`` are these and what delta-rs needs in addition.
    """

    uri: str
    given_options: Mapping[str, str]
    delta_options: Mapping[str, str]
    is_local: bool

    @cached_property
    def filesystem(self) -> fs.SubTreeFileSystem:
        if self.is_local:
            return fs.SubTreeFileSystem(self.uri, fs.LocalFileSystem())
        parts = urlsplit(self.uri)
        base = _s3_filesystem(self.given_options) if parts.scheme == "s3" else _gcs_filesystem(self.given_options)
        return fs.SubTreeFileSystem(parts.netloc + unquote(parts.path), base)

    def write_bytes(self, path: str, content: Any, on_retry: Callable[[], None] | None = None) -> None:
        """Writes one object at ``path`` below the folder. Readers see the whole object or none.

        If an object store refuses a request, it is made up to ``TRIES`` times. Raises OSError.
        """
        if self.is_local:  # object stores have no folders to make, and show no half-written object
            target = Path(self.uri) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
            try:
                partial.write_bytes(content)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            return

        def put() -> None:
            with self.filesystem.open_output_stream(path) as stream:
                stream.write(content)

        call_with_retries(put, TRIES, is_transient, on_retry=on_retry)

    def create_bytes(self, path: str, content: bytes) -> bool:
        """Writes one object at ``path`` below the folder, unless there is one: then it returns False and changes nothing.

        Of several that do so at the same time one succeeds. False can also mean that this call wrote the object, and that the
        answer was lost: read it to find out. Raises OSError.
        """
        if not self.is_local:
            return create_object(self._objects, path, content)
        target = Path(self.uri) / path
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            partial.write_bytes(content)
            os.link(partial, target)
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
        return True

    def list_files(self) -> Iterator[list[StoredFile]]:
        """All files below the folder, some at a time, so that memory is flat in their number. Raises OSError.

        pyarrow names no folder of a GCS bucket, so a walk from folder to folder would find nothing there.
        """
        if not self.is_local:
            for page in list_objects(self._objects):
                yield [StoredFile(*one) for one in page]
            return
        for folder, _, names in os.walk(self.uri, onerror=_raise):
            found = list[StoredFile]()
            for name in names:
                with suppress(FileNotFoundError):
                    path = Path(folder, name)
                    found.append(StoredFile(path.relative_to(self.uri).as_posix(), path.stat().st_mtime))
            if found:
                yield found

    @cached_property
    def _objects(self) -> Any:
        parts = urlsplit(self.uri)
        given = find_canonical(self.given_options, parts.scheme)
        return open_objects(parts.scheme, parts.netloc, unquote(parts.path).strip("/"), given, self.delta_options)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # not made yet, or removed meanwhile
        raise error


def is_transient(error: BaseException) -> bool:
    """Whether a new try may succeed. pyarrow's errors differ by their messages alone, so only the clear cases are excluded."""
    return isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError))


def open_storage(lake: Lake, folder: str) -> Storage:
    """The place of ``folder`` below ``lake.uri``.

    Raises ConfigError for a ``lake.uri`` that is missing, unsupported or a file, and for storage options that data files could
    not honour.
    """
    if not lake.uri:
        raise ConfigError("lake.uri is not set: give the folder of the lake, a path, gs://bucket/folder or s3://bucket/folder")
    scheme, separator, _ = lake.uri.partition("://")
    if not separator or scheme == "file":
        root = unquote(urlsplit(lake.uri).path) if separator else lake.uri
        place = Path(root).expanduser().resolve()
        if place.is_file():
            raise ConfigError(f"lake.uri = {lake.uri}: this is a file, and a lake is a folder; name a folder, new or old")
        return Storage(str(place / folder), {}, {}, is_local=True)
    if scheme not in ("gs", "s3"):
        raise ConfigError(f"lake.uri starts with {scheme}://: allowed are a path, file://, gs:// and s3://")
    options = dict(lake.storage_options)
    canonical = find_canonical(options, scheme)
    if canonical.get("endpoint", "").startswith("http://") and "allow_http" not in canonical:
        options["allow_http"] = "true"
    if scheme == "s3":
        _require_conditional_put(options)
    elif _is_true(canonical.get("anonymous")):
        options["google_service_account_key"] = _GCS_UNSIGNED
    return Storage(f"{lake.uri.rstrip('/')}/{folder}", lake.storage_options, options, is_local=False)


def _bare(key: str) -> str:
    """``AWS_ENDPOINT_URL`` → ``endpoint_url``: delta-rs takes each option with and without its prefix, in any case."""
    return key.lower().removeprefix("aws_").removeprefix("google_")


def find_canonical(options: Mapping[str, str], scheme: str) -> dict[str, str]:
    """The options under pyarrow's names. Raises ConfigError for an option that only one of the libraries would obey."""
    names = _S3_NAMES if scheme == "s3" else _GCS_NAMES
    found = {}
    for key, value in options.items():
        bare = _bare(key)
        if bare in names:
            found[names[bare]] = value
        elif bare not in _DELTA_ONLY:
            allowed = ", ".join(sorted({*names, *_DELTA_ONLY}))
            hint = _INSTEAD.get(bare, f"allowed for {scheme}:// (with or without their prefix): {allowed}")
            raise ConfigError(f"lake.storage_options.{key} is not supported: {hint}")
    return found


def _require_conditional_put(options: dict[str, str]) -> None:
    """Requires what commits depend on: writing a table version that another writer has just written must fail."""
    given = [key for key in options if _bare(key) == "conditional_put"]
    for key in given:
        if options[key].lower() != "etag":
            raise ConfigError(f"lake.storage_options.{key} = {options[key]!r}: allowed is etag, without it commits can be lost")
    if not given:
        options["aws_conditional_put"] = "etag"


def _is_true(text: str | None) -> bool:
    return str(text).lower() in ("1", "true", "yes", "on")


def _endpoint(url: str | None) -> dict[str, str]:
    if not url:
        return {}
    parts = urlsplit(url)
    return {"scheme": parts.scheme, "endpoint_override": parts.netloc + parts.path.rstrip("/")}


def _s3_filesystem(options: Mapping[str, str]) -> fs.S3FileSystem:
    """Like delta-rs it falls back to the ``AWS_*`` variables, since both libraries must reach the same place."""
    environment = {key: value for key, value in os.environ.items() if key.startswith("AWS_") and _bare(key) in _S3_NAMES}
    given = {**find_canonical(environment, "s3"), **find_canonical(options, "s3")}
    arguments: dict[str, Any] = {k: given[k] for k in ("access_key", "secret_key", "session_token", "region") if k in given}
    if "proxy" in given:
        arguments["proxy_options"] = given["proxy"]
    return fs.S3FileSystem(
        anonymous=_is_true(given.get("anonymous")),
        force_virtual_addressing=_is_true(given.get("virtual")),
        **_endpoint(given.get("endpoint")),
        **arguments,
    )


def _gcs_filesystem(options: Mapping[str, str]) -> fs.GcsFileSystem:
    """The credentials are Google's application default credentials, which both libraries find."""
    given = find_canonical(options, "gs")
    return fs.GcsFileSystem(
        anonymous=_is_true(given.get("anonymous")),
        retry_time_limit=_RETRY_TIME,  # the default is 15 minutes of silence
        **_endpoint(given.get("endpoint")),
    )
