"""Every reason that a row can carry is explained in README."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dictalake import errors

README = Path(__file__).parents[2] / "README.md"


def all_kinds(kind: type[errors.TranscriptionError]) -> Iterator[type[errors.TranscriptionError]]:
    for below in kind.__subclasses__():
        yield below
        yield from all_kinds(below)


def test_readme_lists_every_reason_and_no_other() -> None:
    reasons = {kind.reason for kind in all_kinds(errors.TranscriptionError)} - {errors.TranscriptionError.reason}
    rows = re.search(r"\| reason \|.*?\n\n", README.read_text(encoding="utf-8"), re.DOTALL)
    assert rows is not None
    listed = [name for row in rows[0].strip().splitlines()[2:] for name in re.findall(r"`([a-z_0-9]+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(reasons)


def test_no_other_exception_is_made_into_a_row() -> None:
    """A reason is written in ``errors.py`` alone: rows take it from an error, never from a literal."""
    sources = [path for path in (README.parent / "pipelines").rglob("*.py") if path.name != "errors.py"]
    assert not [path.name for path in sources if re.search(r"""["']reason["']: ["']""", path.read_text(encoding="utf-8"))]
