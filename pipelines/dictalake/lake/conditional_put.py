"""Writes an object to a bucket only where there is none: what makes one writer win a version of a Delta log. Lists a bucket
page by page.

obstore is the object_store library below delta-rs, so both have the same defaults and retries. They also find the same
credentials, but for one place: at AWS itself delta-rs and pyarrow ask the AWS SDK, which knows profiles, single sign-on and
assumed roles; object_store knows the environment and the machine's role alone. botocore is the SDK of Python.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

# dictalake.lake.storage's canonical names → obstore's, by scheme. What is not named here concerns the HTTP client.
_NAMES = {
    "s3": {
        "access_key": "access_key_id",
        "secret_key": "secret_access_key",
        "session_token": "session_token",
        "region": "region",
        "endpoint": "endpoint",
        "virtual": "virtual_hosted_style_request",
        "anonymous": "skip_signature",
    },
    "gs": {"endpoint": "base_url", "anonymous": "skip_signature"},
}
_CLIENT = {"allow_http": "allow_http", "proxy": "proxy_url"}
_PAGE = 1000
_RENEWED_AFTER = timedelta(minutes=9)
_TIMES = ("timeout", "connect_timeout", "pool_idle_timeout", "pool_max_idle_per_host", "user_agent")


def open_objects(scheme: str, bucket: str, prefix: str, canonical: Mapping[str, str], options: Mapping[str, str]) -> Any:
    """The objects below ``prefix`` of a bucket (gs or s3). ``options`` are delta-rs's, ``canonical`` the same renamed."""
    from obstore.store import GCSStore, S3Store  # buckets alone need it

    bare = {key.lower().removeprefix("aws_").removeprefix("google_"): value for key, value in options.items()}
    settings: dict[str, Any] = {ours: canonical[name] for name, ours in _NAMES[scheme].items() if name in canonical}
    if "service_account_key" in bare:
        settings["service_account_key"] = bare["service_account_key"]
    client: Any = {ours: canonical[name] for name, ours in _CLIENT.items() if name in canonical}
    client |= {name: bare[name] for name in _TIMES if name in bare}
    if settings.get("endpoint", settings.get("base_url", "")).startswith("http://"):
        client.setdefault("allow_http", "true")
    if scheme == "s3":
        settings |= find_credentials(settings)
    retry: Any = {"max_retries": int(bare["max_retries"])} if "max_retries" in bare else None
    store = S3Store if scheme == "s3" else GCSStore
    return store(bucket, prefix=prefix or None, client_options=client or None, retry_config=retry, **settings)


def find_credentials(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a store at AWS whose credentials are in none of ``settings`` and the environment: they are asked for
    again and again, since they expire. Empty where object_store finds them, or botocore is not installed or knows none."""
    places = {*settings, *(name.lower().removeprefix("aws_") for name in os.environ if name.startswith("AWS_"))}
    if places & {"access_key_id", "endpoint", "endpoint_url", "endpoint_url_s3", "skip_signature"}:
        return {}
    try:
        from botocore.session import Session
    except ImportError:
        return {}
    session = Session()
    found = session.get_credentials()
    if found is None:
        return {}

    def read_credentials() -> dict[str, Any]:
        keys = found.get_frozen_credentials()  # botocore renews them ten minutes before they expire
        expires_at = datetime.now(UTC) + _RENEWED_AFTER
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": expires_at,
        }

    region = None if places & {"region", "default_region"} else session.get_config_variable("region")
    return {"credential_provider": read_credentials} | ({"region": region} if region else {})


def create_object(objects: Any, path: str, content: bytes) -> bool:
    """Writes an object of ``open_objects`` if there is none; returns False if there is one. Raises OSError."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        obstore.put(objects, path, content, mode="create")
    except AlreadyExistsError:
        return False
    except BaseError as error:  # its message may quote the request
        raise OSError(f"{type(error).__name__} while writing {path}") from error
    return True


def list_objects(objects: Any) -> Iterator[list[tuple[str, float]]]:
    """All objects of ``open_objects``, a thousand at a time: path and time of the last change, in seconds since 1970. Raises
    OSError."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        for page in obstore.list(objects, chunk_size=_PAGE):
            yield [(one["path"], one["last_modified"].timestamp()) for one in page]
    except BaseError as error:  # its message may quote the request
        raise OSError(f"{type(error).__name__} while listing a folder of the lake") from error
