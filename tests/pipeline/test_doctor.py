"""``dictalake doctor`` on object storage: real clients against real servers on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyarrow import fs

from jobs.doctor import FAIL, OK, Finding, examine
from pipelines.config import Config, Lake
from pipelines.lake.storage import open_storage

if TYPE_CHECKING:
    from tests.emulators import ObjectStore

OF_THE_LAKE = ("lake: objects", "lake: commits", "lake: table")


def examine_lake(lake: Lake) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(Config().model_copy(update={"lake": lake}))}


def test_a_bucket_that_takes_everything_is_ok_and_left_as_it_was(object_store: ObjectStore) -> None:
    lake = object_store.make_lake()
    found = examine_lake(lake)
    assert [(found[name].state, found[name].what) for name in OF_THE_LAKE if found[name].state != OK] == []
    storage = open_storage(lake, "")
    root = storage.filesystem.base_fs
    there = root.get_file_info(fs.FileSelector(storage.filesystem.base_path.rstrip("/"), recursive=True, allow_not_found=True))
    assert [info.path for info in there if info.type == fs.FileType.File] == []


def test_a_bucket_that_is_not_there_fails_each_check_of_the_lake(object_store: ObjectStore) -> None:
    lake = object_store.make_lake()
    lake = lake.model_copy(update={"uri": str(lake.uri).replace("://", "://no-such-")})
    found = examine_lake(lake)
    assert [found[name].state for name in OF_THE_LAKE[:2]] == [FAIL, FAIL]
    assert all(found[name].what for name in OF_THE_LAKE)
