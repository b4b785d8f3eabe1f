"""What a killed process spilled is removed by the next one, and what is in use is not."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from unittest.mock import Mock

import pytest

from dictalake.lake.spills import make_spill_folder


def test_a_folder_whose_process_is_gone_is_removed_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    in_use, remove = make_spill_folder("dictalake-review-")
    killed, other, target = (tmp_path / name for name in ("dictalake-review-killed", "dictalake-other-killed", "target"))
    for folder in (killed, other, target):
        folder.mkdir()
        (folder / "rows").touch()
    link = tmp_path / "dictalake-review-link"
    link.symlink_to(target)
    new, remove_new = make_spill_folder("dictalake-review-")
    assert {path.name for path in tmp_path.iterdir()} == {one.name for one in (in_use, new, other, target, link)}
    assert (target / "rows").exists()
    assert (in_use.stat().st_mode & 0o777, new.stat().st_mode & 0o777) == (0o700, 0o700)
    for one in (remove, remove_new):
        one()
    assert not in_use.exists()
    assert not new.exists()


def test_where_the_file_system_has_no_locks_folders_are_made_and_none_is_taken_for_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.ENOSYS, "Function not implemented")))
    first, remove_first = make_spill_folder("dictalake-review-")
    second, remove_second = make_spill_folder("dictalake-review-")
    assert sorted(tmp_path.iterdir()) == sorted((first, second))
    remove_first(), remove_second()
    assert list(tmp_path.iterdir()) == []
