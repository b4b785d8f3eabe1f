"""A storage that is slow but honest is not taken for a silent one, and a fast one is asked for much at once."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dictalake.archive import disks, storage
from dictalake.archive import fetch as fetching
from dictalake.archive.fetch import fetch
from dictalake.archive.listing import list_recordings
from dictalake.archive.pace import Pace
from dictalake.config.sections import Archive

SIZE = 300_000
RATE = 100_000.0  # bytes a second: two and a half times what silence is below
SILENCE_S = 0.4


class Slow(MemoryFileSystem):
    """Sends ``RATE`` bytes a second, beyond the first ``swift`` bytes of an object."""

    protocol = "slow"
    swift = 0
    asked: ClassVar[list[int]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:  # type: ignore[override]
        return str(super()._strip_protocol(path.replace("slow://", "memory://")))

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        piece = bytes(super().cat_file(path, start=start, end=end, **options))
        Slow.asked.append(end - start)
        if start + len(piece) > Slow.swift:
            time.sleep(len(piece) / RATE)
        return piece


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Archive:
    fsspec.register_implementation("slow", Slow, clobber=True)
    monkeypatch.setattr("dictalake.retries.pause", lambda pause_s: None)
    monkeypatch.setattr(storage, "_filesystems", {})
    monkeypatch.setattr(Slow, "asked", [])
    monkeypatch.setattr(Slow, "swift", 0)
    Slow().pipe_file("/slow/a.wav", bytes(SIZE))
    return Archive.model_validate({"uri": "slow://slow", "silence_s": SILENCE_S, "fetch_tries": 1})


def test_slow_answers_are_waited_for(slow: Archive) -> None:
    (recording,) = list_recordings(slow)
    assert len(fetch(recording, slow)) == SIZE


def test_a_storage_that_becomes_slow_is_asked_for_less_at_the_next_try(slow: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "swift", 200_000)
    (recording,) = list_recordings(slow)
    assert len(fetch(recording, slow.model_copy(update={"fetch_tries": 3}))) == SIZE


def test_fast_storage_is_asked_for_much_at_once(slow: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "swift", SIZE)
    (recording,) = list_recordings(slow)
    relaxed = slow.model_copy(update={"silence_s": 60.0})
    for _ in range(2):
        assert len(fetch(recording, relaxed)) == SIZE
    assert len(Slow.asked) <= 5
    assert Slow.asked[-1] > SIZE, "the second object comes with one request"


def test_slow_network_file_system_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.wav").write_bytes(bytes(SIZE))
    monkeypatch.setattr(disks, "_known", {})
    monkeypatch.setattr(storage, "_filesystems", {})

    class SlowFile(io.FileIO):
        def read(self, count: int = -1, /) -> bytes:
            piece = super().read(count)
            time.sleep(len(piece) / RATE)
            return piece

    monkeypatch.setattr(fetching, "open_listed", lambda path, archive, **_: SlowFile(path))
    archive = Archive.model_validate({"uri": str(tmp_path), "silence_s": SILENCE_S, "fetch_tries": 1})
    (recording,) = list_recordings(archive)
    assert len(fetch(recording, archive)) == SIZE


def test_round_trips_that_take_long_do_not_keep_the_pieces_small() -> None:
    pace = Pace(2**22)
    for _ in range(5):
        pace.ask(2**23, 30.0, lambda size: time.sleep(0.02) or bytes(size))
    assert pace.size == 2**22


def test_what_was_once_too_much_is_asked_for_again_only_after_many_fast_answers() -> None:
    pace = Pace(2**18)
    pace.slow_down()
    for _ in range(20):
        pace.ask(2**23, 60.0, bytes)
    assert pace.size == 2**14
    for _ in range(3000):
        pace.ask(2**23, 60.0, bytes)
    assert pace.size == 2**18
