"""When something is tried again, and after which pause: every policy of dictalake in one place.

=================  ==========================================  =======================  =======================
policy             of what                                     pauses, doubling          random share
=================  ==========================================  =======================  =======================
STORAGE_REQUEST    one request to the archive or the lake      0.5 s, 1 s … 30 s         up to a half is left out
COMMIT_REQUEST     a commit whose storage fails                1 s, 2 s … 15 s           up to a half is left out
COMMIT_CONFLICT    a commit that another writer overtook       0.04 s, 0.08 s … 2 s      all of it
TABLE_CONFLICT     a change of a table that was overtaken      0.1 s, 0.2 s … 2 s        all of it
=================  ==========================================  =======================  =======================

The pauses are random so that many processes that were refused together do not come back together.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_base

Result = TypeVar("Result")


@dataclass(frozen=True)
class Backoff(wait_base):
    """Pauses that double from ``first_s`` to ``longest_s`` seconds, less a random part of at most ``random_share`` (0–1)."""

    first_s: float
    longest_s: float
    random_share: float

    def pause_s(self, failures: int) -> float:
        """The seconds to wait after so many failures (from 1)."""
        longest_s = min(self.longest_s, self.first_s * 2 ** min(failures - 1, 30))
        return random.uniform((1 - self.random_share) * longest_s, longest_s)

    def __call__(self, retry_state: RetryCallState) -> float:
        """The pause for tenacity. It is no shorter than the server asked for (``Retry-After``), up to ``longest_s``."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked_s = 0.0 if error is None else find_retry_after_s(error)
        return max(self.pause_s(retry_state.attempt_number), min(asked_s, self.longest_s))


STORAGE_REQUEST = Backoff(0.5, 30.0, 0.5)
COMMIT_REQUEST = Backoff(1.0, 15.0, 0.5)
COMMIT_CONFLICT = Backoff(0.04, 2.0, 1.0)
TABLE_CONFLICT = Backoff(0.1, 2.0, 1.0)


def pause(seconds: float) -> None:
    """Waits before a new try. Whatever does not bring its own way to wait waits here, so a test can replace this one."""
    time.sleep(seconds)


def call_with_retries(
    call: Callable[[], Result],
    tries: int,
    is_transient: Callable[[BaseException], bool],
    sleep: Callable[[float], None] | None = None,
    on_retry: Callable[[], None] | None = None,
) -> Result:
    """Returns ``call()``; tries again while its errors are transient, at most ``tries`` times. Raises the last error as it is.

    The pauses are those of STORAGE_REQUEST; ``sleep`` (``pause`` unless given) waits. ``on_retry`` is called before each try
    but the first.
    """

    def count(state: RetryCallState) -> None:
        if state.attempt_number > 1 and on_retry is not None:
            on_retry()

    retrying = Retrying(
        retry=retry_if_exception_type(Exception) & retry_if_exception(is_transient),
        stop=stop_after_attempt(tries),
        wait=STORAGE_REQUEST,
        sleep=sleep or (lambda seconds: pause(seconds)),
        before=count,
        reraise=True,
    )
    return retrying(call)


def find_retry_after_s(error: BaseException) -> float:
    """How many seconds the server that answered with ``error`` asked us to wait; 0 if it did not ask, or gave a date."""
    response = getattr(error, "response", None)
    for headers in (
        getattr(error, "headers", None),  # aiohttp
        getattr(response, "headers", None),  # requests, google-cloud-storage
        response.get("ResponseMetadata", {}).get("HTTPHeaders") if isinstance(response, dict) else None,  # botocore
    ):
        value = str((headers or {}).get("Retry-After") or (headers or {}).get("retry-after") or "")
        if value.isdigit():
            return float(value)
    return find_retry_after_s(error.__cause__) if error.__cause__ is not None else 0.0
