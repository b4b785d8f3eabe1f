"""The fastest way on a CPU is tried once on a machine, and a damaged answer is tried again."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from dictalake.acoustic import fastest_way
from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.fastest_way import Way, choose_way, try_ways
from tests.ctc_models import load, make_waveform

SIZE = (32, 64, torch.float32, 2)
FIND_CACHE = fastest_way._find_cache
ODD = Way("usual", lanes=False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fastest_way, "_find_cache", lambda: tmp_path / "dictalake")
    return tmp_path / "dictalake" / "fastest-way"


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes that were tried."""
    seen: list[tuple[int, int]] = []

    def answer(width: int, inner: int, dtype: torch.dtype, threads: int) -> tuple[Way, bool]:
        seen.append((width, inner))
        return ODD, True

    monkeypatch.setattr(fastest_way, "try_ways", answer)
    return seen


def test_a_trial_compares_the_ways_that_this_machine_has() -> None:
    way, _ = try_ways(32, 64, torch.float32, 1)
    assert way.lanes
    assert way.products == "usual" or fastest_way.can_pack(torch.float32)


def test_the_faster_product_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for least, wanted in (({"packed": 1.0, "usual": 0.9}, "usual"), ({"packed": 1.0, "usual": 0.99}, "packed")):
        monkeypatch.setattr(fastest_way, "can_pack", lambda dtype: True)
        monkeypatch.setattr(fastest_way, "_time_in_turns", lambda runs, clock, least=least: least)
        assert try_ways(32, 64, torch.float32, 1)[0].products == wanted


@pytest.mark.parametrize(("quiet", "wanted"), [(0.0, (False, True)), (float("inf"), (True, False))])
def test_threads_win_only_on_a_machine_without_other_work(
    monkeypatch: pytest.MonkeyPatch, quiet: float, wanted: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(fastest_way, "_QUIET", quiet)
    monkeypatch.setattr(
        fastest_way, "_time_in_turns", lambda runs, clock: {"packed": 1.0, "usual": 2.0, "lanes": 1.0, "threads": 0.5}
    )
    way, is_sure = try_ways(32, 64, torch.float32, 2)
    assert (way.lanes, is_sure) == wanted


def test_an_answer_is_remembered_and_one_that_is_not_sure_for_a_day(
    tries: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    assert [choose_way(*SIZE), choose_way(*SIZE)] == [ODD, ODD]
    assert tries == [(32, 64)]
    choose_way(48, 64, torch.float32, 2)
    assert tries == [(32, 64), (48, 64)]
    monkeypatch.setattr(fastest_way, "try_ways", lambda *size: (tries.append(size[:2]), (ODD, False))[1])
    choose_way(64, 64, torch.float32, 2)
    choose_way(64, 64, torch.float32, 2)
    assert tries[2:] == [(64, 64)]
    for file in cache.iterdir():
        os.utime(file, (0, file.stat().st_mtime - 90_000))
    choose_way(64, 64, torch.float32, 2)
    choose_way(*SIZE)
    assert tries[2:] == [(64, 64), (64, 64)]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"products": "fast", "lanes": true}', b'{"products": "usual"}', b"\xff"]
)
def test_a_damaged_answer_is_tried_again_and_replaced(tries: list[tuple[int, int]], cache: Path, damage: bytes) -> None:
    choose_way(*SIZE)
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert choose_way(*SIZE) == ODD
    assert choose_way(*SIZE) == ODD
    assert len(tries) == 2


def test_many_writers_leave_one_whole_answer(tries: list[tuple[int, int]], cache: Path) -> None:
    writers = [threading.Thread(target=choose_way, args=SIZE) for _ in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [path.suffix for path in cache.iterdir()] == [".json"]
    before = len(tries)
    assert choose_way(*SIZE) == ODD
    assert len(tries) == before


def test_without_a_cache_folder_each_process_tries(tries: list[tuple[int, int]], tmp_path: Path) -> None:
    (tmp_path / "dictalake").write_bytes(b"no folder")
    assert [choose_way(*SIZE), choose_way(*SIZE)] == [ODD, ODD]
    assert len(tries) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always know a folder")
def test_a_user_without_a_home_folder_can_transcribe(tries: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.setattr(fastest_way, "_find_cache", FIND_CACHE)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])  # KeyError: a container runs as any number
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert [choose_way(*SIZE), choose_way(*SIZE)] == [ODD, ODD]
    assert len(tries) == 2


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users")
def test_the_answer_of_another_user_is_not_taken(
    tries: list[tuple[int, int]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_way(*SIZE)
    monkeypatch.setattr(os, "getuid", lambda: 12_345)
    choose_way(*SIZE)
    assert len(tries) == 2


def test_a_model_computes_the_way_that_was_found_and_gives_the_same_tokens(
    random_lasr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [make_waveform(seconds, seed) for seed, seconds in enumerate((4.0, 4.0, 1.3))]
    models: dict[Way, CtcModel] = {}
    for way in (Way("packed", lanes=True), ODD):
        monkeypatch.setattr(fastest_way, "try_ways", lambda *_, way=way: (way, True))
        monkeypatch.setattr(fastest_way, "_read", lambda path: None)
        models[way] = load(random_lasr)
    usual = models[ODD]
    assert (usual._lanes, usual._lasr is not None and usual._lasr.is_packed) == (None, False)  # type: ignore[union-attr]
    for got, wanted in zip(usual.emit(windows), models[Way("packed", lanes=True)].emit(windows), strict=True):
        assert (got.argmax(axis=1) == wanted.argmax(axis=1)).all()
