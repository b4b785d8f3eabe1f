"""doctor's look at a lake: what a run does to it is tried, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.probes import probe_objects
from dictalake.lake.storage import Storage


def test_a_lake_that_overwrites_versions_of_its_log_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    assert abs(probe_objects(lake)) < 60

    def overwrite(storage: Storage, path: str, content: bytes) -> bool:
        storage.write_bytes(path, content)
        return True

    monkeypatch.setattr(Storage, "create_bytes", overwrite)
    with pytest.raises(RunError, match="writes an object that is there already"):
        probe_objects(lake)
    assert list(tmp_path.iterdir()) == []
