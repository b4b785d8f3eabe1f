"""The index of ``dictalake search`` holds what the view ``transcripts`` shows, no more and no less."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from dictalake.lake import search
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.fingerprints import FingerprintLog, promote
from dictalake.lake.runs import RunLog
from dictalake.lake.search import TextIndex
from tests.truth_lake import A, B, commit, make_lake, make_version, name_recording


def test_what_was_replaced_is_not_found_and_its_bytes_go_when_it_is_erased_later(tmp_path: Path) -> None:
    lake = make_lake(tmp_path)
    RunLog(lake)
    commit(lake, make_version("gs://a/1", 1, text="Oldfangled fracture."), make_version("gs://a/2", 1, text="Clear."))
    FingerprintLog(lake).promote_first(A, "run-1")
    index = TextIndex(lake, tmp_path / "index")
    index.refresh()
    first = (tmp_path / "index/current").read_text(encoding="utf-8")
    commit(lake, make_version("gs://a/1", 2, day=2, text="Newfangled fracture."))
    index.refresh()
    assert [hit.recording_id for hit in index.search("fracture", 10)] == [name_recording("gs://a/1", 2)]
    before = (tmp_path / "index/current").read_text(encoding="utf-8")
    assert before == first, "what was replaced is taken out of the index that is there"
    forget(lake, Subjects(uris=("gs://a/1",)))
    index.refresh()
    assert (tmp_path / "index/current").read_text(encoding="utf-8") != before, "its bytes may be in the old one still"
    assert index.search("fracture", 10) == []
    held = b"".join(path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file())
    assert b"Oldfangled" not in held
    assert b"oldfangl" not in held


def test_the_index_follows_a_promotion_and_does_not_find_experiments(tmp_path: Path) -> None:
    lake = make_lake(tmp_path)
    commit(lake, make_version("gs://a/1", text="A fracture."))
    FingerprintLog(lake).promote_first(A, "run-1")
    index = TextIndex(lake, tmp_path / "index")
    commit(lake, make_version("gs://a/1", day=2, fingerprint=B, text="A rupture."))
    index.refresh()
    assert (len(index.search("fracture", 10)), len(index.search("rupture", 10))) == (1, 0)
    promote(lake, B)
    index.refresh()
    assert (len(index.search("fracture", 10)), len(index.search("rupture", 10))) == (0, 1)


def test_the_index_of_a_table_that_was_restored_from_a_backup_is_built_anew(tmp_path: Path) -> None:
    lake = make_lake(tmp_path)
    commit(lake, make_version("gs://a/1", text="A fracture."))
    shutil.copytree(f"{lake.uri}/transcripts", tmp_path / "backup")
    commit(lake, make_version("gs://a/2", text="A rupture."))
    index = TextIndex(lake, tmp_path / "index")
    index.refresh()
    shutil.rmtree(f"{lake.uri}/transcripts")
    shutil.copytree(tmp_path / "backup", f"{lake.uri}/transcripts")
    commit(lake, make_version("gs://a/3", text="A fissure."))  # as many versions as the index has seen
    assert index.refresh().added == 2
    assert [len(index.search(word, 10)) for word in ("fracture", "rupture", "fissure")] == [1, 0, 1]


def test_who_waits_for_another_search_does_not_build_its_index_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = make_lake(tmp_path)
    commit(lake, make_version("gs://a/1"))
    index, others = TextIndex(lake, tmp_path / "index"), [TextIndex(lake, tmp_path / "index")]
    index.refresh()

    def lock_late(path: Path) -> FileLock:
        if others:  # it took in what came meanwhile
            other = others.pop()
            commit(lake, make_version("gs://a/2"))
            assert other.refresh().added == 1
        return FileLock(path)

    before = (tmp_path / "index/current").read_text(encoding="utf-8")
    monkeypatch.setattr(search, "FileLock", lock_late)
    assert index.refresh().added == 0
    assert (tmp_path / "index/current").read_text(encoding="utf-8") == before
