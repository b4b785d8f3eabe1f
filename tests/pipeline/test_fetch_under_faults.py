"""Storage that throttles, fails, hangs up, cuts short and corrupts costs time, never a wrong byte, and ends in a row."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from google.oauth2.credentials import Credentials

from dictalake.archive import storage
from dictalake.archive.fetch import fetch
from dictalake.archive.listing import list_recordings
from dictalake.archive.manifest import scan_recordings
from dictalake.archive.storage import open_location
from dictalake.config.sections import Archive
from dictalake.errors import CredentialsExpired, FetchFailed, LoadError
from dictalake.records import Recording
from tests.emulators import ObjectStore
from tests.fault_proxy import KINDS, run_faulty

OBJECTS = 200


def no_pause(pause_s: float) -> None:
    """In place of sleeping."""


def make_bytes(name: str) -> bytes:
    return hashlib.shake_128(name.encode()).digest(5000)


def fill(store: ObjectStore) -> str:
    bucket = store.make_bucket()
    writer, path = open_location(bucket, store.fsspec_options, "test")

    def write(name: str) -> None:
        writer.pipe_file(f"{path}/{name}", make_bytes(name))

    with ThreadPoolExecutor(4) as pool:  # of more at once, the emulator lets some wait for a second
        list(pool.map(write, (f"{n % 4}/{n:03d}.wav" for n in range(OBJECTS))))
    return bucket


@pytest.fixture(scope="module")
def full_buckets(gcs: ObjectStore, s3: ObjectStore) -> dict[str, str]:
    """A bucket of 200 objects on each emulator."""
    return {store.scheme: fill(store) for store in (gcs, s3)}


@pytest.fixture
def full_bucket(object_store: ObjectStore, full_buckets: dict[str, str]) -> str:
    return full_buckets[object_store.scheme]


def list_archive(bucket: str, store: ObjectStore, tries: int = 10) -> tuple[Archive, list[Recording]]:
    archive = Archive(uri=bucket, storage_options=store.fsspec_options, fetch_tries=tries)
    return archive, list(list_recordings(archive))


def test_faults_that_pass_cost_retries_and_no_byte(object_store: ObjectStore, full_bucket: str) -> None:
    retries: Counter[str] = Counter()

    def fetch_one(recording: Recording) -> bytes:
        return fetch(recording, archive, no_pause, on_retry=lambda: retries.update([recording.recording_id]))

    with run_faulty(object_store, 0.6, seed=7, kinds=[*KINDS, "slow"]) as (store, count):
        archive, recordings = list_archive(full_bucket, store, tries=20)
        assert len(recordings) == OBJECTS
        with ThreadPoolExecutor(16) as pool:
            fetched = list(pool.map(fetch_one, recordings))
        injected = count()
    assert fetched == [make_bytes(recording.uri.removeprefix(f"{full_bucket}/")) for recording in recordings]
    assert all(injected[kind] > 10 for kind in KINDS)
    # aiohttp, below s3fs, asks again by itself where a connection that was used before is reset
    assert 0 <= sum(injected[kind] for kind in KINDS) - retries.total() <= injected["reset"] * (object_store.scheme == "s3")
    assert injected["requests"] == OBJECTS + sum(injected[kind] for kind in KINDS)  # one request for each try


@pytest.mark.parametrize("kind", ["503", "corrupt", "truncate", "reset"])
def test_faults_that_do_not_pass_end_in_a_row_after_the_tries(object_store: ObjectStore, full_bucket: str, kind: str) -> None:
    with run_faulty(object_store, 1.0, seed=7, kinds=[kind]) as (store, count):
        archive, recordings = list_archive(full_bucket, store, tries=3)
        retries: list[None] = []
        with pytest.raises(FetchFailed, match="3 tries to read the object failed") as caught:
            fetch(recordings[0], archive, no_pause, on_retry=lambda: retries.append(None))
        assert len(retries) == 2
        assert count()[kind] == (6 if (kind, store.scheme) == ("reset", "s3") else 3)  # aiohttp asks again by itself
    expected = {"503": "HTTP 503", "corrupt": "Checksum"}.get(kind, "")
    assert expected in caught.value.detail


def with_token(store: ObjectStore) -> ObjectStore:
    """With an access token instead of anonymous: who has no credentials has none that expire."""
    token = {"token": Credentials("a token")} if store.scheme == "gs" else {}
    return replace(store, fsspec_options={**store.fsspec_options, **token})


@pytest.fixture
def watch_credentials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The file systems that are opened; credentials that failed are looked for anew at once."""
    monkeypatch.setattr(storage, "_FRESH_S", -1.0)
    opened: list[str] = []
    opener = storage._open_filesystem

    def watch(kind: object, protocol: str, options: dict[str, object]) -> object:
        before = len(storage._filesystems)
        filesystem = opener(kind, protocol, options)
        if len(storage._filesystems) > before:
            opened.append(protocol)
        return filesystem

    monkeypatch.setattr(storage, "_open_filesystem", watch)
    return opened


def test_expired_credentials_are_looked_for_anew_and_then_a_row(
    object_store: ObjectStore, full_bucket: str, watch_credentials: list[str]
) -> None:
    with run_faulty(object_store, 1.0, seed=7, kinds=["401"]) as (store, count):
        archive, recordings = list_archive(full_bucket, with_token(store), tries=3)
        watch_credentials.clear()
        with pytest.raises(CredentialsExpired, match="log in again") as caught:
            fetch(recordings[0], archive, no_pause)
        assert count()["401"] == 3
    assert (caught.value.reason, caught.value.retryable) == ("credentials_expired", True)
    assert len(watch_credentials) == 2  # after each failure but the last
    with run_faulty(object_store, 0.3, seed=8, kinds=["401"]) as (store, count):
        archive, recordings = list_archive(full_bucket, with_token(store))
        assert all(fetch(recording, archive, no_pause) for recording in recordings[:40])
        assert count()["401"] > 5


def test_listing_goes_on_through_faults(object_store: ObjectStore, full_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.archive.objects.PAGE_ENTRIES", 25)
    monkeypatch.setattr("dictalake.retries.pause", no_pause)
    with run_faulty(object_store, 0.3, 7, ["429", "500", "503", "reset", "truncate"], path=".") as (store, count):
        started_s = time.monotonic()
        assert len({recording.uri for recording in list_archive(full_bucket, store)[1]}) == OBJECTS
        assert count().total() - count()["requests"] > 0
    assert time.monotonic() - started_s < 20


def test_manifest_is_read_on_from_where_a_fault_met_it(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.retries.pause", no_pause)
    monkeypatch.setattr("dictalake.archive.streams._STREAM_BYTES", 10_000)
    bucket = s3.make_bucket()
    writer, path = open_location(bucket, s3.fsspec_options, "test")
    lines = [f"unknown://x/{n:05d}.wav,word {n}" for n in range(10_000)]
    writer.pipe_file(f"{path}/list.csv", "\n".join(["uri,reference", *lines]).encode())
    with run_faulty(s3, 0.3, 7, ["503", "reset", "truncate"]) as (store, count):
        archive = Archive(manifest=f"{bucket}/list.csv", storage_options=store.fsspec_options, fetch_tries=10)
        found = [r.uri for r in scan_recordings(archive)]  # each names its line, and a digest of it
        assert count().total() - count()["requests"] > 3
    whole = Archive(manifest=f"{bucket}/list.csv", storage_options=s3.fsspec_options)
    assert found == [r.uri for r in scan_recordings(whole)]
    assert len(set(found)) == len(lines)


def test_error_says_nothing_of_the_object(s3: ObjectStore) -> None:
    bucket = s3.make_bucket()
    writer, path = open_location(bucket, s3.fsspec_options, "test")
    writer.pipe_file(f"{path}/CANARY.wav", b"x" * 100)
    for kind in ("503", "corrupt", "401", "truncate"):
        with run_faulty(s3, 1.0, seed=7, kinds=[kind]) as (store, _):
            archive, (recording,) = list_archive(bucket, store, tries=1)
            with pytest.raises(LoadError) as caught:
                fetch(recording, archive, no_pause)
            assert "CANARY" not in str(caught.value)
            assert caught.value.__suppress_context__
