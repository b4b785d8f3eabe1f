"""What attacks on archives share."""

from __future__ import annotations

from pathlib import Path

import pytest

GOOD = ["a.wav", "ward/b.wav", "ward/deep/c.wav"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of the files GOOD, beside another ward's folder."""
    folder = tmp_path / "archive"
    for name in GOOD:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret.wav").write_bytes(b"another ward")
    return folder
