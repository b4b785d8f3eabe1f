"""The decorators for compiled functions. Machine code is kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """For what Python calls: compiled on the first call. Later processes load the machine code from numba's cache.

    numba keeps it beside the source, else in the user's cache folder, or in ``NUMBA_CACHE_DIR``. Where it may write to none of
    them it refuses to cache, and every process compiles for itself.
    """
    try:
        return cast(Callable[_Arguments, _Result], njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(Callable[_Arguments, _Result], njit(nogil=True)(function))


def compiled_part(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """For what only compiled functions call: its machine code lies in theirs."""
    return cast(Callable[_Arguments, _Result], njit(nogil=True)(function))
