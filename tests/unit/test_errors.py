"""A reason is written in ``errors.py`` alone: rows take it from an error, never from a literal."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pipelines"


def test_no_other_exception_is_made_into_a_row() -> None:
    sources = [path for path in PACKAGE.rglob("*.py") if path.name != "errors.py"]
    assert sources
    assert not [
        path.name for path in sources if re.search(r"""["']reason["']: ["'][a-z_]+["']""", path.read_text(encoding="utf-8"))
    ]
