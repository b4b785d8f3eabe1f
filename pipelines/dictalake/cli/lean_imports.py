"""Keeps pandas out of commands that only read a lake: importing it takes longer than they do.

pyarrow looks for pandas when it first makes an array from a Python list, to tell a list from a Series, and remembers for the
process whether it is there. Asked while pandas cannot be imported, it remembers that there is none. This is the only place
where that is done, and only for a process that runs one such command.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any


class _NoPandas(MetaPathFinder):
    """Finds no module; refuses pandas."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ImportError("pandas is left out of commands that only read a lake")


def leave_pandas_out() -> None:
    """After this call pyarrow never imports pandas in this process; others still may."""
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
