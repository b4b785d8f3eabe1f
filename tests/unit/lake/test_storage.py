"""One set of storage options reaches delta-rs and pyarrow alike, or is refused."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyarrow import fs

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError
from dictalake.lake.conditional_put import find_credentials
from dictalake.lake.storage import open_storage


def make_lake(uri: str | None, **options: str) -> Lake:
    return Lake.model_validate({"uri": uri, "storage_options": options})


@pytest.mark.parametrize("form", ["{folder}", "file://{folder}", "{folder}/"])
def test_a_folder_of_this_machine_in_any_spelling(tmp_path: Path, form: str) -> None:
    storage = open_storage(make_lake(form.format(folder=tmp_path / "my lake")), "runs")
    assert storage.uri == str(tmp_path / "my lake" / "runs")
    storage.write_bytes("a=1/part.bin", b"seven")
    assert (tmp_path / "my lake" / "runs" / "a=1" / "part.bin").read_bytes() == b"seven"


def test_a_relative_folder_does_not_follow_later_changes_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage(make_lake("lake"), "runs").uri == str(tmp_path / "lake" / "runs")


def test_no_lake_uri_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r"^lake\.uri is not set: give the folder of the lake"):
        open_storage(make_lake(None), "runs")


def test_an_unsupported_scheme_says_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"^lake\.uri starts with ftp://: allowed are a path, file://, gs:// and s3://$"):
        open_storage(make_lake("ftp://host/lake"), "runs")


def test_s3_commits_are_conditional_without_being_asked() -> None:
    storage = open_storage(make_lake("s3://bucket/lake/", AWS_REGION="eu-central-1"), "runs")
    assert storage.uri == "s3://bucket/lake/runs"
    assert storage.delta_options == {"AWS_REGION": "eu-central-1", "aws_conditional_put": "etag"}


def test_plain_http_endpoints_are_allowed_by_being_given() -> None:
    storage = open_storage(make_lake("s3://bucket/lake", endpoint_url="http://127.0.0.1:9000"), "runs")
    assert storage.delta_options["allow_http"] == "true"


@pytest.mark.parametrize("prefix", ["AWS_", "aws_", ""])
def test_s3_options_reach_pyarrow_in_any_spelling(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    options = {
        f"{prefix}access_key_id": "key",
        f"{prefix}secret_access_key": "secret",
        f"{prefix}region": "eu-central-1",
        f"{prefix}endpoint_url": "http://127.0.0.1:9000",
    }
    expected = fs.S3FileSystem(
        access_key="key", secret_key="secret", region="eu-central-1", scheme="http", endpoint_override="127.0.0.1:9000"
    )
    filesystem = open_storage(make_lake("s3://bucket/lake", **options), "runs").filesystem
    assert filesystem.base_fs.equals(expected)
    assert filesystem.base_path == "bucket/lake/runs/"


def test_an_s3_endpoint_of_the_environment_counts_below_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    keys = {"access_key_id": "key", "secret_access_key": "secret", "region": "eu-central-1"}
    expected = fs.S3FileSystem(
        access_key="key", secret_key="secret", region="eu-central-1", scheme="http", endpoint_override="127.0.0.1:9000"
    )
    assert open_storage(make_lake("s3://bucket/lake", **keys), "runs").filesystem.base_fs.equals(expected)


@pytest.mark.parametrize(
    ("uri", "option", "value", "message"),
    [
        ("s3://b/lake", "aws_conditional_put", "disabled", "allowed is etag, without it commits can be lost"),
        ("s3://b/lake", "AWS_S3_ALLOW_UNSAFE_RENAME", "true", "with it two writers overwrite each other's commits; remove it"),
        ("s3://b/lake", "aws_sse_kms_key_id", "arn", "set the default encryption of the bucket instead"),
        ("s3://b/lake", "aws_reegion", "x", "is not supported: allowed for s3://"),
        ("gs://b/lake", "google_service_account", "key.json", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("gs://b/lake", "aws_region", "x", "is not supported: allowed for gs://"),
    ],
)
def test_options_that_half_of_the_lake_would_ignore_are_refused(uri: str, option: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_storage(make_lake(uri, **{option: value}), "runs")
    assert str(refused.value).startswith(f"lake.storage_options.{option}")
    assert message in str(refused.value)


def test_an_object_is_made_once_and_its_first_content_stays(tmp_path: Path) -> None:
    storage = open_storage(make_lake(str(tmp_path)), "")
    assert [storage.create_bytes("one", content) for content in (b"first", b"second")] == [True, False]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("one", b"first")]


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only credentials of this machine are those of a profile."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "keys").write_text("[default]\naws_access_key_id = of-profile\naws_secret_access_key = secret\n")
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.mark.usefixtures("profile")
def test_a_bucket_at_aws_is_written_with_the_credentials_of_a_profile_as_it_is_read() -> None:
    """delta-rs and pyarrow find them by the AWS SDK, and object_store alone does not."""
    found = find_credentials({})
    now, keys = datetime.now(UTC), found["credential_provider"]()
    assert (found["region"], keys["access_key_id"], keys["secret_access_key"]) == ("eu-west-3", "of-profile", "secret")
    assert now < keys["expires_at"] < now + timedelta(minutes=10)  # it asks again before they can have expired
    assert open_storage(make_lake("s3://bucket/lake"), "runs")._objects.config["region"] == "eu-west-3"
    assert "region" not in find_credentials({"region": "us-east-2"})


@pytest.mark.usefixtures("profile")
def test_credentials_that_are_given_come_before_those_of_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_credentials({"access_key_id": "key"}) == find_credentials({"endpoint": "http://127.0.0.1:9000"}) == {}
    assert find_credentials({"skip_signature": "true"}) == {}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-environment")
    assert find_credentials({}) == {}


@pytest.mark.parametrize("prefix", ["AWS_", "aws_", ""])
def test_s3_options_reach_the_conditional_put_too(prefix: str) -> None:
    options = {
        f"{prefix}access_key_id": "key",
        f"{prefix}secret_access_key": "secret",
        f"{prefix}region": "eu-central-1",
        f"{prefix}endpoint_url_s3": "http://127.0.0.1:9000",
        "proxy_url": "http://127.0.0.1:3128",
        "connect_timeout": "3s",
        "max_retries": "2",
    }
    store = open_storage(make_lake("s3://bucket/lake", **options), "runs")._objects
    assert store.config == {
        "bucket": "bucket",
        "access_key_id": "key",
        "secret_access_key": "secret",
        "region": "eu-central-1",
        "endpoint": "http://127.0.0.1:9000",
    }
    assert {name: str(value).lower() for name, value in store.client_options.items()} == {
        "allow_http": "true",
        "proxy_url": "http://127.0.0.1:3128",
        "connect_timeout": "3s",
    }
    assert (store.prefix, store.retry_config["max_retries"]) == ("lake/runs", 2)


def test_gcs_options_reach_the_conditional_put_too() -> None:
    options = {"google_base_url": "http://127.0.0.1:4443", "google_skip_signature": "true"}
    store = open_storage(make_lake("gs://bucket/lake", **options), "runs")._objects
    assert store.config["base_url"] == "http://127.0.0.1:4443"
    assert "disable_oauth" in store.config["service_account_key"]  # object_store asks for a token before it writes, else


def test_files_of_a_folder_that_is_not_there_or_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(Lake.model_validate({"uri": str(tmp_path)}), "findings")
    assert list(storage.list_files()) == []
    storage.write_bytes("month/part.parquet", b"x")

    def refuse(path: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list(storage.list_files())
