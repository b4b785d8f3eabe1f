"""Passwords are tried one at a time, and a refused name takes as long as any."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from dictalake.review.sessions import Users

QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


class _Hasher:
    """Counts the passwords that are checked, and how many at once. ``gate`` holds them."""

    def __init__(self) -> None:
        self.checked = self.now = self.most = 0
        self.gate = threading.Event()

    def verify(self, hashed: str, password: str) -> bool:
        self.checked, self.now = self.checked + 1, self.now + 1
        self.most = max(self.most, self.now)
        self.gate.wait()
        self.now -= 1
        if password != "right":
            raise VerifyMismatchError
        return True


@pytest.fixture
def users(tmp_path: Path) -> Any:
    file = tmp_path / "users.txt"
    file.write_text(f"Ann:{QUICK.hash('right')}\n")
    users: Any = Users(file)
    users._hasher = _Hasher()
    return users


def test_many_tries_at_once_are_no_more_tries(users: Any) -> None:
    with ThreadPoolExecutor(40) as crowd:
        tries = [crowd.submit(users.check, "Ann", "wrong") for _ in range(40)]
        assert not any(one.result() for one in islice(as_completed(tries), 32))  # for these there is no room to wait
        users._hasher.gate.set()
    assert not any(one.result() for one in tries)
    assert (users._hasher.checked, users._hasher.most) == (8, 1)
    assert not users.check("Ann", "right")  # five of them were wrong


def test_a_refused_name_is_checked_as_any_other(users: Any) -> None:
    users._hasher.gate.set()
    for number in range(1, 8):
        for name in ("Ann", "Bob"):
            assert not users.check(name, "wrong")
        assert users._hasher.checked == 2 * number
    assert not users.check("Bob", "right")
