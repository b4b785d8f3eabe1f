"""All retry policies of dictalake: what is retried, and how long the pauses are.

=================  ==========================================  =======================  =======================
policy             applies to                                  pauses, doubling         random share
=================  ==========================================  =======================  =======================
STORAGE_REQUEST    one request to the archive or the lake      0.5 s, 1 s … 30 s        up to half
COMMIT_REQUEST     a commit whose storage fails                1 s, 2 s … 15 s          up to half
COMMIT_CONFLICT    a commit that another writer overtook       0.04 s, 0.08 s … 2 s     all
TABLE_CONFLICT     a table change that was overtaken           0.1 s, 0.2 s … 2 s       all
=================  ==========================================  =======================  =======================

Each pause is shortened by a random share, so that processes which were refused together do not retry together.
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
    """Pauses that double from ``first_s`` to ``longest_s`` seconds. Each is shortened by up to ``random_share`` (0–1) of it."""

    first_s: float
    longest_s: float
    random_share: float

    def pause_s(self, failures: int) -> float:
        """The seconds to wait after this many failures (1 or more)."""
        longest_s = min(self.longest_s, self.first_s * 2 ** min(failures - 1, 30))
        return random.uniform((1 - self.random_share) * longest_s, longest_s)

    def __call__(self, retry_state: RetryCallState) -> float:
        """The pause, as tenacity asks for it: at least what the server asked for (``Retry-After``), at most ``longest_s``."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked_s = 0.0 if error is None else find_retry_after_s(error)
        return max(self.pause_s(retry_state.attempt_number), min(asked_s, self.longest_s))


STORAGE_REQUEST = Backoff(0.5, 30.0, 0.5)
COMMIT_REQUEST = Backoff(1.0, 15.0, 0.5)
COMMIT_CONFLICT = Backoff(0.04, 2.0, 1.0)
TABLE_CONFLICT = Backoff(0.1, 2.0, 1.0)


def pause(seconds: float) -> None:
    """Waits before a retry. Code without its own way to wait calls this function, so tests can replace it."""
    time.sleep(seconds)


def call_with_retries(
    call: Callable[[], Result],
    tries: int,
    is_transient: Callable[[BaseException], bool],
    sleep: Callable[[float], None] | None = None,
    on_retry: Callable[[], None] | None = None,
) -> Result:
    """Returns ``call()``. Retries while its errors are transient, up to ``tries`` tries. Raises the last error unchanged.

    The pauses follow STORAGE_REQUEST, and ``sleep`` waits (by default ``pause``). ``on_retry`` is called before each retry.
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
    """The seconds that the server behind ``error`` asked us to wait; 0 if it did not ask, or named a date."""
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
