"""A session keeps one child for several calls, and files travel to it as open descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dictalake.errors import DecoderCrashed
from dictalake.sandbox.messages import MOST_FILES, CallLimits
from dictalake.sandbox.pool import Sandbox
from tests.unit.sandbox.functions import use_files


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    opened = Sandbox(use_files, CallLimits(cpu_s=5.0, memory_mb=150.0))
    yield opened
    opened.close()


def test_files_are_read_by_the_child_and_stay_open_here(sandbox: Sandbox, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"this is {name}")
    opened = [os.open(tmp_path / name, os.O_RDONLY) for name in ("a", "b")]
    assert sandbox.call(b"read", "r1", {}, opened)[0]["read"] == ["this is a", "this is b"]
    assert sandbox.call(b"read", "r2", {})[0]["read"] == []  # not those of the call before
    assert sandbox.call(bytearray(b"read"), "r3", {}, opened[1:])[0]["read"] == ["this is b"]
    for file in opened:
        assert os.pread(file, 4, 0) == b"this"
        os.close(file)


def test_more_files_than_one_call_carries_are_a_mistake_of_the_caller(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="files for one call"):
        sandbox.call(b"read", "r1", {}, [0] * (MOST_FILES + 1))


def test_a_session_keeps_its_child_and_another_call_does_not_get_it(sandbox: Sandbox) -> None:
    with sandbox.session() as session:
        assert session.is_fresh
        first = session.call(b"x", "r1", {})[0]
        assert not session.is_fresh
        assert sandbox.call(b"x", "other", {})[0]["pid"] != first["pid"]
        assert session.call(b"x", "r2", {})[0] == {"read": [], "seen": ["r1", "r2"], "pid": first["pid"]}


def test_a_session_whose_child_died_goes_on_with_a_fresh_one(sandbox: Sandbox) -> None:
    with sandbox.session() as session:
        session.call(b"x", "r1", {})
        with pytest.raises(DecoderCrashed, match="SIGABRT"):
            session.call(b"die", "r2", {})
        assert session.is_fresh
        assert session.call(b"x", "r3", {})[0]["seen"] == ["r3"]
