"""The one way in which something is tried again: a bounded number of times, after jittered, doubling pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

BACKOFF_S, LONGEST_PAUSE_S = 0.5, 30.0
Result = TypeVar("Result")


def call_with_retries(
    call: Callable[[], Result],
    tries: int,
    is_transient: Callable[[BaseException], bool],
    sleep: Callable[[float], None] = time.sleep,
    on_retry: Callable[[], None] | None = None,
) -> Result:
    """``call()``, again while its errors are transient and ``tries`` are left; the last error comes up as it is.

    The pauses are half a second, a second, two … up to 30 s, each shortened by up to a half at random, so that many who were
    refused together do not come again together. Where the server said when to come again (``Retry-After``), the pause is no
    shorter, up to the same 30 s. ``on_retry`` is called before each try but the first.
    """
    for attempt in range(1, tries):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            asked_s = find_retry_after_s(error)
        pause_s = min(BACKOFF_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
        sleep(max(random.uniform(pause_s / 2, pause_s), min(asked_s, LONGEST_PAUSE_S)))
        if on_retry is not None:
            on_retry()
    return call()


def find_retry_after_s(error: BaseException) -> float:
    """What the server that answered with ``error`` asked for in seconds; 0 where it did not, or gave a date."""
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
