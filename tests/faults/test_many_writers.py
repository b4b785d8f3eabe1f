"""Sixteen processes that write to one lake at once leave every recording there once, on every kind of storage."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from tests.writers import EACH, RECORDINGS, STORES, WRITERS, make_lakes, run_round, writers


@pytest.fixture(scope="module")
def pipes() -> Iterator[list[Connection]]:
    with writers() as pipes:
        yield pipes


@pytest.mark.parametrize("store", STORES)
def test_sixteen_writers_leave_each_recording_once(store: str, pipes: list[Connection]) -> None:
    with make_lakes(store) as make_lake:
        claimed = run_round(pipes, make_lake(), looks_at_claims=True)
        blind = run_round(pipes, make_lake(), looks_at_claims=False)
    # Claims keep work from being done twice, except that of a writer which the machine kept waiting beyond its lease;
    # without claims it is done, and left out when it comes to the commit.
    assert claimed["already_there"] == 0 or claimed["buried"] > 0
    assert claimed["buried"] == 0 or claimed["expired"] > 0
    assert blind["already_there"] + blind["skipped"] == WRITERS * EACH - RECORDINGS
