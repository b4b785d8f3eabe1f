"""Where the machine code of the search is kept, and when it is made."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from filelock import FileLock, Timeout
from numba.core import caching

from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.native import compiled, frame_loop, kenlm_lookup, steps
from dictalake.decoding.native.language_model import OpenModel
from dictalake.decoding.native.machine_code import (
    find_folder,
    hash_sources,
    is_made,
    made_ahead,
    made_once,
    needs_machine_code,
    open_folder,
)
from dictalake.decoding.native.tables import BEAM, BONUS, NO_LM, NODE, PROGRESS, SETTINGS, WORD, make_records, make_transitions
from tests.beam_inputs import VOCABULARY


def test_another_function_in_another_file_makes_another_folder(tmp_path: Path) -> None:
    sources = tmp_path / "native"
    sources.mkdir()
    (sources / "loop.py").write_text("from steps import step")
    (sources / "steps.py").write_text("step = 1")
    before = hash_sources.__wrapped__(sources)
    assert hash_sources.__wrapped__(sources) == before
    (sources / "steps.py").write_text("step = 2")
    assert hash_sources.__wrapped__(sources) != before


def test_numba_keeps_the_machine_code_in_the_folder_of_these_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(frame_loop.search_frames._cache.cache_path).parent == Path(str(compiled._FOLDER))  # type: ignore[attr-defined]
    assert hash_sources() in str(compiled._FOLDER)
    others = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    compiled.compiled(lambda number: number)
    assert others == numba.config.CACHE_DIR, "functions of others stay where they were"  # type: ignore[attr-defined]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for these sources, in a cache of its own."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return find_folder()


def test_of_machine_code_that_may_only_be_read_there_is_one_copy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_folder() == str(cache), "it is made"
    (cache / "native_1").mkdir()
    (cache / "native_1/search.nbi").write_bytes(b"code")
    monkeypatch.setattr(os, "access", lambda path, mode: cache not in [Path(path), *Path(path).parents])
    copy = Path(str(open_folder()))
    assert cache.parent not in copy.parents
    assert (copy / "native_1/search.nbi").read_bytes() == b"code"
    assert open_folder() == str(copy), "the next process takes the same"


def test_others_may_read_the_machine_code_of_an_image_but_not_that_of_a_user(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with made_once():
        pass
    (ready,) = (file for file in cache.glob("ready-*") if file.suffix != ".lock")
    assert [path.stat().st_mode & 0o044 for path in (cache, cache.parent, ready)] == [0o044, 0o044, 0o044]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    own = Path(str(open_folder()))
    assert tmp_path / "home" in own.parents
    assert own.stat().st_mode & 0o777 == 0o700


def test_without_any_place_for_machine_code_functions_are_compiled_all_the_same(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert open_folder() is None
    monkeypatch.setattr(compiled, "_FOLDER", None)

    @compiled.compiled
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8


def test_a_folder_that_takes_no_files_costs_the_machine_code_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(compiled, "_FOLDER", str(tmp_path / "file"))
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [caching.UserProvidedCacheLocator])

    @compiled.compiled
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8


def test_a_user_without_a_home_has_no_cache_folder_and_compiles_all_the_same(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def know_nobody(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", know_nobody)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert open_folder() == str(cache), "a folder that was named is made and used"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert open_folder() is None
    with made_once():
        assert not is_made()


def test_without_locks_every_process_compiles_for_itself(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock, timeout: float) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with made_once():
        assert not is_made()


def test_of_several_processes_one_compiles_and_the_others_load(cache: Path) -> None:
    assert not is_made()
    with made_once():
        assert not is_made(), "nobody loads what is not whole"
        lock = next(cache.glob("ready-*.lock"))
        with pytest.raises(Timeout):
            FileLock(lock).acquire(timeout=0, blocking=False)
    assert is_made()
    lock.unlink()
    with made_once():
        assert not list(cache.glob("*.lock")), "what is made is loaded by all at once"


def test_machine_code_of_a_process_that_failed_counts_as_not_made(cache: Path) -> None:
    with pytest.raises(ValueError, match="damaged"), made_once():
        raise ValueError("damaged")
    assert not is_made()


def test_machine_code_for_another_processor_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made_once():
        pass
    monkeypatch.setenv("NUMBA_CPU_NAME", "znver9")
    assert not is_made()


def test_a_run_compiles_ahead_only_what_nobody_has_compiled(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    real = subprocess.Popen

    def record(command: list[str], **options: object) -> object:
        started.append(command[1:])
        return real([sys.executable, "-c", ""], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", record)
    with made_ahead(Decoding.model_validate({"lm": "lm_6.arpa.xz", "hotwords": "names.txt"})):
        pass
    with made_ahead(Decoding.model_validate({})):
        pass
    with made_once():
        pass
    with made_ahead(Decoding.model_validate({})):
        pass
    module = ["-P", "-m", "dictalake.decoding.native"]
    assert started == [[*module, "arpa", "search", "hotwords"], [*module, "kenlm", "search"]]


@pytest.mark.parametrize(("keys", "needs"), [({}, True), ({"kind": "greedy"}, False), ({"engine": "pyctcdecode"}, False)])
def test_only_the_search_of_our_own_waits_for_machine_code(keys: dict[str, str], needs: bool) -> None:
    assert needs_machine_code(Decoding.model_validate(keys)) is needs


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_a_prepared_decoder_has_nothing_left_to_compile(kind: str) -> None:
    decoder = open_decoder(Decoding.model_validate({"kind": kind, "lm": None}), VOCABULARY)
    decoder.prepare()
    assert kind == "greedy" or frame_loop.search_frames.signatures  # type: ignore[attr-defined]


def test_what_looks_into_a_kenlm_file_is_compiled_once() -> None:
    lm = OpenModel(NO_LM, np.zeros(1, np.int64)).tables()
    _, _, table, data, levels, states, filled = lm
    from_python = (data, levels, states, filled, make_transitions(2), 0, 0, 0)
    kenlm_lookup.look_up.compile(tuple(map(numba.typeof, from_python)))  # type: ignore[attr-defined]
    kinds = [make_records(kind, 1) for kind in (SETTINGS, WORD, BONUS, NODE, BEAM, PROGRESS)]
    settings, words, bonuses, nodes, beams, progress = kinds
    given = (False, settings, words, lm, table, bonuses, nodes, beams, progress, np.zeros((1, 3), np.int64))
    steps.complete_words.compile(tuple(map(numba.typeof, given)))  # type: ignore[attr-defined]
    assert len(kenlm_lookup.look_up.signatures) == 1  # type: ignore[attr-defined]
