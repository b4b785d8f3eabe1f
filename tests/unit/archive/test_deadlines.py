"""Calls to a storage: what they keep while they run, and what stays behind of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dictalake.archive import deadlines
from dictalake.archive import fetch as fetching
from dictalake.archive.fetch import fetch
from dictalake.archive.listing import list_recordings
from dictalake.config.sections import Archive
from dictalake.errors import FetchFailed
from dictalake.records import Recording


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)


def test_a_call_keeps_nothing_of_the_pieces_that_came(loop: asyncio.AbstractEventLoop) -> None:
    async def piece() -> bytes:
        return bytes(1000)

    def take() -> int:
        for _ in range(100):
            deadlines.run_coroutine(loop, piece())
        return len(deadlines.running_call()._stops)

    assert deadlines.call_within(take, time.monotonic() + 60) == 0


def test_a_coroutine_is_cancelled_when_its_call_is_left_behind(loop: asyncio.AbstractEventLoop) -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(deadlines.TooLate):
        deadlines.call_within(lambda: deadlines.run_coroutine(loop, hang()), time.monotonic() + 0.2)
    assert cancelled.wait(30)


def test_what_begins_after_the_call_was_left_behind_is_stopped_at_once() -> None:
    call, stopped = deadlines.Call(), threading.Event()
    call.leave()
    with pytest.raises(deadlines.LeftBehind):
        call.on_leaving(stopped.set)
    assert stopped.is_set()
    call.end()


def test_a_storage_that_hangs_takes_a_bounded_number_of_threads_and_may_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "_MOST_STUCK", 5)
    monkeypatch.setattr("dictalake.retries.pause", lambda pause_s: None)
    (tmp_path / "a.wav").write_bytes(b"sound")
    archive = Archive(uri=str(tmp_path), fetch_tries=1, silence_s=0.05)
    (recording,) = list_recordings(archive)
    back = threading.Event()
    begun: list[None] = []

    def hang(path: str, archive: Archive, *, is_listed: bool) -> None:
        begun.append(None)
        back.wait(60)
        raise ConnectionResetError

    with monkeypatch.context() as broken:
        broken.setattr(fetching, "open_listed", hang)
        failures = [fail(archive, recording) for _ in range(9)]
    assert all(failure.retryable for failure in failures)
    assert len(begun) == 5
    assert "archive.silence_s" in failures[0].detail
    assert "still hanging" in failures[-1].detail
    back.set()
    until = time.monotonic() + 30
    while deadlines._stuck and time.monotonic() < until:
        time.sleep(0.01)
    assert fetch(recording, archive) == b"sound"


def fail(archive: Archive, recording: Recording) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        fetch(recording, archive)
    return caught.value
