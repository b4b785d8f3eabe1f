"""The decorators for compiled functions. Machine code is kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

from dictalake.decoding.native.machine_code import open_folder

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_config: Any = numba.config
_FOLDER = open_folder()


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """For what Python calls: compiled on the first call. Later processes load the machine code from ``machine_code``'s folder.

    Where no folder may be written to, every process compiles for itself.
    """
    if _FOLDER is None:
        return cast(Callable[_Arguments, _Result], numba.njit(nogil=True)(function))
    # numba reads it while it decorates; the functions of others have their own places.
    others, _config.CACHE_DIR = _config.CACHE_DIR, _FOLDER
    try:
        return cast(Callable[_Arguments, _Result], numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # nothing can be written there all the same, as beyond a quota
        return cast(Callable[_Arguments, _Result], numba.njit(nogil=True)(function))
    finally:
        _config.CACHE_DIR = others


def compiled_part(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """For what only compiled functions call: its machine code lies in theirs. Python cannot call it."""
    options: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(Callable[_Arguments, _Result], numba.njit(**options)(function))
