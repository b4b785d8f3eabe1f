"""Parakeet-TDT with random weights: what transformers writes, with the times of its pieces, alike in any company."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, ParakeetForTDT

from dictalake.acoustic.engines.open import open_engine
from dictalake.acoustic.engines.parakeet import ParakeetEngine
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from tests.engine_models import save_random_parakeet, save_random_parakeet_tdt
from tests.unit.acoustic.engines.test_engines import make_waveform, text_of


def tdt(folder: Path, **changes: Any) -> Acoustic:
    keys = {"kind": "parakeet-tdt", "model": str(folder), "device": "cpu", "dtype": "float32"}
    return Acoustic.model_validate(keys | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_parakeet_tdt(tmp_path_factory.mktemp("models") / "random-tdt")


def test_it_writes_what_transformers_writes_with_times_in_order(folder: Path) -> None:
    waveform = make_waveform(2.0, seed=3)
    processor, model = AutoProcessor.from_pretrained(folder), ParakeetForTDT.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = processor([waveform / np.float32(32768)], sampling_rate=16_000, return_tensors="pt")
    output = model.generate(**inputs, do_sample=False)
    (expected,) = processor.batch_decode(output.sequences, skip_special_tokens=True)

    engine = open_engine(tdt(folder), threads=1)
    (words,) = engine.recognize([waveform])
    assert text_of(words).split() == expected.split()
    assert all(0 <= word.start_s < word.end_s <= 2.0 and word.confidence is None for word in words)


def test_pieces_are_joined_to_words_with_their_times(folder: Path) -> None:
    engine = ParakeetEngine.load(tdt(folder), threads=1)
    tokens = engine._processor.tokenizer("Lungs are clear")["input_ids"]
    starts = [2 * place for place in range(len(tokens))]
    words = engine._join_pieces(tokens, starts, [2] * len(tokens), 60.0)
    assert [word.word for word in words] == ["Lungs", "are", "clear"]
    assert words[0].start_s == 0
    assert all(before.end_s == pytest.approx(after.start_s) for before, after in pairwise(words))
    assert words[-1].end_s == pytest.approx(0.16 * len(tokens))


def test_it_hears_a_stretch_alike_in_any_company(folder: Path) -> None:
    stretches = [make_waveform(seconds, seed) for seed, seconds in enumerate((1.0, 1.7, 0.4, 3.2))]
    engine = ParakeetEngine.load(tdt(folder), threads=1)
    together = engine.recognize(stretches)
    engine.batch_s = 0.1
    assert engine.recognize(stretches[::-1])[::-1] == together
    assert len({text_of(words) for words in together}) == len(stretches)  # it does listen


def test_a_ctc_model_is_refused_with_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not Parakeet-TDT .*; for Parakeet-CTC set acoustic\.kind = ctc$"):
        open_engine(tdt(save_random_parakeet(tmp_path / "ctc")), threads=1)
