"""Eight processes that write to one lake at once leave every recording there once, on every kind of storage."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from tests.writers import EACH, STORES, count_recordings, make_lakes, run_round, writers


@pytest.fixture(scope="module")
def pipes() -> Iterator[list[Connection]]:
    with writers(8) as pipes:
        yield pipes


# Each round saturates the machine: `make writers` has sixteen and runs both on every kind of storage.
@pytest.mark.parametrize("store", [store for store in STORES if store != "s3"])
def test_eight_writers_with_claims_do_each_recording_once(store: str, pipes: list[Connection]) -> None:
    with make_lakes(store) as make_lake:
        claimed = run_round(pipes, make_lake(), looks_at_claims=True)
    # Claims keep work from being done twice, except that of a writer which the machine kept waiting beyond its lease.
    assert claimed["already_there"] == 0 or claimed["buried"] > 0
    assert claimed["buried"] == 0 or claimed["expired"] > 0


@pytest.mark.parametrize("store", [store for store in STORES if store != "gcs"])
def test_eight_writers_without_claims_leave_each_recording_once(store: str, pipes: list[Connection]) -> None:
    with make_lakes(store) as make_lake:
        blind = run_round(pipes, make_lake(), looks_at_claims=False)
    # What another writer has done is left out when it comes to the commit.
    assert blind["already_there"] + blind["skipped"] == len(pipes) * EACH - count_recordings(len(pipes))
