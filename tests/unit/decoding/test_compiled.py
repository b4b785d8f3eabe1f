"""Where the machine code of the search is kept, and when it is made."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.native import compiled, frame_loop, kenlm_lookup, steps
from dictalake.decoding.native.compiled import copy_read_only_cache
from dictalake.decoding.native.language_model import OpenModel
from dictalake.decoding.native.tables import BEAM, BONUS, NO_LM, NODE, PROGRESS, SETTINGS, WORD, make_records, make_transitions
from tests.beam_inputs import VOCABULARY


def test_a_cache_that_may_only_be_read_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "native_1").mkdir()
    (tmp_path / "native_1/search.nbi").write_bytes(b"code")
    assert copy_read_only_cache(str(tmp_path)) == str(tmp_path)
    assert copy_read_only_cache(str(tmp_path / "none")) == str(tmp_path / "none")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    copy = Path(copy_read_only_cache(str(tmp_path)))
    assert copy != tmp_path
    assert (copy / "native_1/search.nbi").read_bytes() == b"code"
    assert (copy / "native_1/search.nbi").stat().st_mtime_ns == (tmp_path / "native_1/search.nbi").stat().st_mtime_ns


def test_without_any_place_for_a_cache_functions_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def njit(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(compiled, "numba", SimpleNamespace(njit=njit))

    @compiled.compiled
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8


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
