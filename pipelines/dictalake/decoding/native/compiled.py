"""The decorators for compiled functions. Machine code is kept on disk where that is possible."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def copy_read_only_cache(folder: str) -> str:
    """A copy of numba's cache that may be written to, if ``folder`` may only be read; else ``folder``.

    numba uses no cache that it may not write to. An image that is mounted read-only would compile in every process.
    """
    if not Path(folder).is_dir() or os.access(folder, os.W_OK):
        return folder
    copy = tempfile.mkdtemp(prefix="dictalake-numba-")
    shutil.copytree(folder, copy, dirs_exist_ok=True, copy_function=shutil.copy2)
    return copy


_config: Any = numba.config
if _config.CACHE_DIR:
    _config.CACHE_DIR = copy_read_only_cache(_config.CACHE_DIR)


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """For what Python calls: compiled on the first call. Later processes load the machine code from numba's cache.

    numba keeps it beside the source, else in the user's cache folder, or in ``NUMBA_CACHE_DIR``. Where it may write to none of
    them it refuses to cache, and every process compiles for itself.
    """
    try:
        return cast(Callable[_Arguments, _Result], numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(Callable[_Arguments, _Result], numba.njit(nogil=True)(function))


def compiled_part(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """For what only compiled functions call: its machine code lies in theirs. Python cannot call it."""
    options: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(Callable[_Arguments, _Result], numba.njit(**options)(function))
