"""Storage that means harm: it sends without end, or nothing, or a byte now and then, or a small object that inflates to a huge
one. Each object takes bounded memory and time, and becomes one failed row."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dictalake.archive import deadlines, disks, intake, objects, storage
from dictalake.archive import fetch as fetching
from dictalake.archive.fetch import fetch
from dictalake.archive.listing import list_recordings
from dictalake.archive.manifest import find_recordings
from dictalake.config.sections import Archive, Limits
from dictalake.errors import ChangedDuringRead, CorruptAudio, EmptyObject, FetchFailed, LoadError, ObjectTooLarge, RunError
from dictalake.records import Recording
from tests.emulators import ObjectStore
from tests.hostile_server import (
    MOST_BYTES,
    OBJECT_BYTES,
    Connection,
    HostileServer,
    drip_the_body,
    drip_the_headers,
    run_hostile,
    say_nothing,
    say_nothing_after_the_headers,
    send_without_end,
)

LIMITS = Limits.model_validate({"object_mb": 1.0})
SCHEMES = ("http", "s3", "gs")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.retries.pause", lambda pause_s: None)


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def point_at(server: HostileServer, scheme: str, **keys: float) -> tuple[Archive, Recording]:
    """An archive on ``server``, and an object in it as a listing found it."""
    options = {
        "http": {},
        "s3": {"endpoint_url": server.url, "key": "testing", "secret": "testing"},
        "gs": {"endpoint_url": server.url, "token": "anon"},
    }[scheme]
    uri = f"{server.url}/CANARY.wav" if scheme == "http" else f"{scheme}://bucket/CANARY.wav"
    version = "7" if scheme == "gs" else "0" * 32
    archive = Archive.model_validate({"uri": uri, "storage_options": options, "fetch_tries": 1, **keys})
    if scheme == "s3":
        with suppress(FileNotFoundError):  # the first call of a client takes a second, which is no part of what is tested
            storage.open_location(uri, options, "test")[0].call_s3("get_object", Bucket="bucket", Key="warm-up")
    return archive, Recording("id", uri, version, OBJECT_BYTES, None)


def fail(recording: Recording, archive: Archive, limits: Limits = LIMITS) -> LoadError:
    with pytest.raises(LoadError) as caught:
        fetch(recording, archive, lambda pause_s: None, limits=limits)
    assert "CANARY" not in str(caught.value)
    return caught.value


def test_answer_without_end_is_taken_to_the_limit_and_refused(scheme: str) -> None:
    with run_hostile(send_without_end) as server:
        archive, recording = point_at(server, scheme)
        error = fail(recording, archive)
        assert isinstance(error, ObjectTooLarge)
        assert "not read further" in error.detail
        assert server.hung_up.wait(30)
        assert server.sent < MOST_BYTES / 3  # with what the sockets on both sides hold


@pytest.mark.parametrize("answer", [say_nothing, say_nothing_after_the_headers, drip_the_headers, drip_the_body])
def test_silence_ends_the_try_and_the_connection(scheme: str, answer: Callable[[Connection], None]) -> None:
    with run_hostile(answer) as server:
        archive, recording = point_at(server, scheme, silence_s=0.5, fetch_tries=2)
        told: list[None] = []
        with pytest.raises(FetchFailed, match=r"2 tries .* archive\.silence_s") as caught:
            fetch(recording, archive, lambda pause_s: None, on_retry=lambda: told.append(None))
        assert caught.value.retryable
        assert len(told) == 1
        assert server.hung_up.wait(30)  # what was left behind holds no connection
        assert not server.gave_up


@pytest.mark.parametrize("answer", [say_nothing, drip_the_headers, drip_the_body])
def test_deadline_is_for_all_tries_together(scheme: str, answer: Callable[[Connection], None]) -> None:
    with run_hostile(answer) as server:
        archive, recording = point_at(server, scheme, fetch_s=1.0, silence_s=0.7, fetch_tries=20)
        error = fail(recording, archive)
        assert isinstance(error, FetchFailed)
        assert error.retryable
        assert "within the 1 s of archive.fetch_s" in error.detail
        assert server.hung_up.wait(30)
        assert not server.gave_up


def test_pauses_between_tries_count_for_the_deadline() -> None:
    def refuse(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 503 Slow Down\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n")

    with run_hostile(refuse) as server:
        archive, recording = point_at(server, "gs", fetch_s=20.0, fetch_tries=3)
        pauses: list[float] = []
        with pytest.raises(FetchFailed, match=r"archive\.fetch_s"):
            fetch(recording, archive, pauses.append, limits=LIMITS)
        assert pauses == []  # the first would have ended after the deadline


def test_object_of_a_bucket_that_inflates_beyond_the_limit_is_not_held(gcs: ObjectStore) -> None:
    archive, recording = upload_gzip(gcs, gzip.compress(bytes(300_000_000), 1))
    fail(recording, archive)  # imports what there is to import
    peak, error = measure(lambda: fail(recording, archive))
    assert isinstance(error, ObjectTooLarge)
    assert peak < 12e6


def test_damaged_compression_of_a_bucket_is_a_failure_of_the_object(gcs: ObjectStore) -> None:
    archive, recording = upload_gzip(gcs, gzip.compress(os.urandom(1000))[:-20])
    assert isinstance(fail(recording, archive), CorruptAudio)
    archive, recording = upload_gzip(gcs, b"never compressed")
    assert fetch(recording, archive) == b"never compressed"


def upload_gzip(gcs: ObjectStore, stored: bytes) -> tuple[Archive, Recording]:
    archive = Archive(uri=gcs.make_bucket(), storage_options=gcs.fsspec_options, fetch_tries=1)
    filesystem, path = storage.open_location(str(archive.uri), gcs.fsspec_options, "test")
    blob = objects._gcs_client(filesystem).bucket(path).blob("CANARY.wav")
    blob.content_encoding = "gzip"
    blob.upload_from_string(stored)
    (recording,) = list_recordings(archive)
    return archive, replace(recording, size_bytes=min(recording.size_bytes, 1000))


def measure(call: Callable[[], LoadError]) -> tuple[int, LoadError]:
    """The most bytes that Python held during ``call``, and its result."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def test_http_answer_that_inflates_beyond_the_limit_is_not_held() -> None:
    bomb = gzip.compress(bytes(300_000_000), 1)

    def answer(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb))
        connection.send(bomb)

    with run_hostile(answer) as server:
        archive, recording = point_at(server, "http")
        peak, error = measure(lambda: fail(recording, archive))
    assert isinstance(error, ObjectTooLarge)
    assert peak < 12e6


def test_http_redirect_to_another_host_is_not_followed() -> None:
    secret = {"headers": {"Authorization": "CANARY"}}
    with run_hostile(say_nothing) as other:

        def answer(connection: Connection) -> None:
            there = f"{other.url}/x" if connection.path != "/same" else "/inside"
            connection.send(f"HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode())

        with run_hostile(answer) as server:
            archive, recording = point_at(server, "http")
            error = fail(recording, archive.model_copy(update={"storage_options": secret}))
        assert isinstance(error, FetchFailed)
        assert "RefusedRedirect" in error.detail
        assert other.requests == []


def test_http_redirect_on_the_same_host_is_followed() -> None:
    def answer(connection: Connection) -> None:
        if connection.path == "/CANARY.wav":
            connection.send(b"HTTP/1.1 302 Found\r\nLocation: /inside\r\nContent-Length: 0\r\n\r\n")
        else:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789")

    with run_hostile(answer) as server:
        archive, recording = point_at(server, "http")
        assert fetch(recording, archive) == b"0123456789"


def test_listing_and_manifest_that_never_come_end_the_run(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(storage.call_with_retries, "__kwdefaults__", None)
    monkeypatch.setattr(storage.call_with_retries, "__defaults__", (None, None, 1.0))
    with run_hostile(drip_the_headers) as server:
        archive, _ = point_at(server, scheme)
        if scheme != "http":
            with pytest.raises(RunError, match="the storage does not answer"):
                list_recordings(archive)
        manifest = Archive(manifest=archive.uri, storage_options=archive.storage_options, fetch_tries=1)
        with pytest.raises(RunError, match="the storage does not answer"):
            list(find_recordings(manifest))
        assert not server.gave_up


@pytest.fixture
def listed(tmp_path: Path) -> tuple[Archive, Recording, Path]:
    path = tmp_path / "CANARY.wav"
    path.write_bytes(b"twelve bytes")
    archive = Archive(uri=str(tmp_path), fetch_tries=1)
    (recording,) = list_recordings(archive)
    return archive, recording, path


def test_local_file_that_grows_while_it_is_read_is_left(
    listed: tuple[Archive, Recording, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, recording, path = listed
    asked: list[int] = []

    class Growing(io.FileIO):
        def read(self, count: int = -1, /) -> bytes:
            asked.append(count)
            with path.open("ab") as end:
                end.write(bytes(100_000))
            return super().read(count)

    monkeypatch.setattr(fetching, "open_listed", lambda path, *_, **__: Growing(path))
    assert isinstance(fail(recording, archive), ChangedDuringRead)
    assert sum(asked) <= len(b"twelve bytes") + 1


def test_pipe_in_place_of_a_listed_file_is_not_waited_for(listed: tuple[Archive, Recording, Path]) -> None:
    archive, recording, path = listed
    path.unlink()
    os.mkfifo(path)
    assert isinstance(fail(recording, archive.model_copy(update={"fetch_s": 5.0})), ChangedDuringRead)
    of_same_time = replace(recording, version=storage.make_local_version(os.stat(path)))
    assert not isinstance(fail(of_same_time, archive.model_copy(update={"fetch_s": 5.0})), (EmptyObject, FetchFailed))


def test_local_file_that_never_answers_is_left_behind_at_the_deadline(
    listed: tuple[Archive, Recording, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive, recording, _ = listed
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ended = threading.Event()

    def hang(*_: Any, **__: Any) -> io.FileIO:
        try:
            return io.FileIO(pipe)  # the kernel waits for a writer, as for a server that is gone
        finally:
            ended.set()

    monkeypatch.setattr(fetching, "open_listed", hang)
    error = fail(recording, archive.model_copy(update={"fetch_s": 0.5}))
    assert isinstance(error, FetchFailed)
    assert not ended.is_set()
    monkeypatch.undo()
    with pipe.open("wb"):
        assert ended.wait(30)


def test_only_folders_on_a_disk_are_read_without_a_thread_to_leave_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [tmp_path / f"{n}.wav" for n in range(3)]
    for name in names:
        name.write_bytes(b"x")
    archive = Archive(uri=str(tmp_path))
    recordings = list(list_recordings(archive))
    readers: list[str] = []

    class Noting(io.FileIO):
        def read(self, count: int = -1, /) -> bytes:
            readers.append(threading.current_thread().name)
            return super().read(count)

    monkeypatch.setattr(fetching, "open_listed", lambda path, *_, **__: Noting(path))
    for kind, others in ((0xEF53, threading.current_thread().name), (0x6969, "storage"), (None, "storage")):  # ext4, NFS
        monkeypatch.setattr(disks, "find_kind", lambda file, kind=kind: kind)
        monkeypatch.setattr(disks, "_known", {})
        readers.clear()
        for recording in recordings:
            assert fetch(recording, archive) == b"x"
        assert set(readers[:2]) == {"storage"}  # each file is read twice: to its end
        assert set(readers[2:]) == {others}
    monkeypatch.undo()
    with Path("/proc/self/stat").open() as file:
        assert disks.find_kind(file.fileno()) == 0x9FA0


def test_large_object_is_not_in_memory_and_its_file_goes_with_it(tmp_path: Path) -> None:
    size = intake.MOST_IN_MEMORY + 50_000_000
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.truncate(size)
        file.write(b"RIFF")
    archive = Archive(uri=str(tmp_path))
    (recording,) = list_recordings(archive)
    before = set(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    try:
        data = fetch(recording, archive)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(data, mmap.mmap)
    assert (len(data), data[:4]) == (size, b"RIFF")
    with pytest.raises(TypeError):
        data[0] = 1
    assert peak < intake.MOST_IN_MEMORY + 4e6
    del data
    assert set(os.listdir("/proc/self/fd")) <= before


def test_full_disk_is_said_and_costs_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.wav").open("wb") as file:
        file.truncate(intake.MOST_IN_MEMORY + 1_000_000)
    archive = Archive(uri=str(tmp_path))
    (recording,) = list_recordings(archive)
    monkeypatch.setattr(intake.tempfile, "TemporaryFile", partial(open, "/dev/full", "w+b"))
    told: list[None] = []
    with pytest.raises(FetchFailed, match=r"temporary folder cannot hold the object .* set TMPDIR"):
        fetch(recording, archive, on_retry=lambda: told.append(None))
    assert told == []


def test_byte_now_and_then_is_silence() -> None:
    left = threading.Event()

    def drip() -> None:
        try:
            for _ in range(3000):
                deadlines.running_call().hear(1)
                time.sleep(0.01)
        except deadlines.LeftBehind:
            left.set()

    with pytest.raises(deadlines.SilentStorage):
        deadlines.call_within(drip, time.monotonic() + 60, silence_s=0.2)
    assert left.wait(30)


def test_calls_side_by_side_keep_their_results_and_threads_are_used_again() -> None:
    with ThreadPoolExecutor(16) as pool:
        deadline = time.monotonic() + 60
        results = list(pool.map(lambda n: deadlines.call_within(lambda: n * n, deadline), range(1000)))
    assert results == [n * n for n in range(1000)]
    assert sum(thread.name == "storage" for thread in threading.enumerate()) <= 16 + deadlines._MOST_IDLE
