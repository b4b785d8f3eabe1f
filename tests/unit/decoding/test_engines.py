"""The engines by name: which there are, which is refused and how, and that a worker's past changes nothing."""

from __future__ import annotations

import importlib.metadata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dictalake.acoustic.sparse import sparsify
from dictalake.config.load import load_config
from dictalake.config.sections import Decoding
from dictalake.decoding.base import name_decoder, open_decoder
from dictalake.decoding.native.language_model import open_language_model
from dictalake.decoding.native.tables import MAPPED
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from tests.beam_inputs import VOCABULARY, peaky


def test_the_engine_that_is_gone_is_refused_with_what_to_set() -> None:
    with pytest.raises(ConfigError, match="ctc-beam-decoder is no longer used; set auto, which is dictalake's own search"):
        load_config("demo", [("decoding.engine", "ctc-beam-decoder")], environment={})


def test_pyctcdecode_that_is_not_installed_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", find_none)
    config = Decoding.model_validate({"engine": "pyctcdecode", "lm": None})
    for use in (name_decoder, lambda config: open_decoder(config, VOCABULARY)):
        with pytest.raises(ConfigError, match=r"it is not installed; it needs Python below 3\.13"):
            use(config)
    assert name_decoder(Decoding.model_validate({"lm": None})) == "native 2"


def test_what_a_worker_decoded_before_changes_nothing(random_lm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many workers share the recordings, and in whatever order."""
    monkeypatch.setattr("dictalake.decoding.native.language_model._open_arrays", lambda path: None)
    monkeypatch.setattr("dictalake.decoding.native.search._ROOM", 64)
    config = Decoding.model_validate({"lm": random_lm, "beam_width": 12})
    recordings = [sparsify(peaky(seed, pieces=3 + 7 * seed), -5.5, 0.999, 0) for seed in range(12)]
    expected = [open_decoder(config, VOCABULARY).decode(emissions) for emissions in recordings]
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(recordings))
        decoder = open_decoder(config, VOCABULARY)
        found = {index: decoder.decode(recordings[index]) for index in order}
        assert [found[index] for index in range(len(recordings))] == expected


def test_the_embedded_language_model_is_read_as_it_is_and_nothing_is_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    opened = open_language_model(Decoding(), Vocabulary.from_pieces(["<pad>", "▁no", "▁the", "{period}"], blank_id=0))
    assert opened.kind == MAPPED, "it is searched as it lies, and no arrays are built before the first row"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_first_of_a_list_are_those_of_the_whole_list(engine: str, random_lm: str, most: int) -> None:
    decoder = open_decoder(Decoding.model_validate({"engine": engine, "lm": random_lm}), VOCABULARY)
    for seed in range(5):
        emissions = sparsify(peaky(seed, pieces=15), -5.5, 0.999, 0)
        whole = decoder.decode(emissions)
        assert decoder.decode(emissions, most) == whole[:most]
        assert all(one.total_score >= other.total_score for one, other in pairwise(whole))
