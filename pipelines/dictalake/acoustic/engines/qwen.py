"""Qwen3-ASR through transformers' ``Qwen3ASRForConditionalGeneration``: an audio encoder and a language model that writes
the text. The folder has the form of ``Qwen/Qwen3-ASR-1.7B-hf``. The first form, with ``thinker`` in its ``config.json``, has
other names for the same weights and is refused.

The search is greedy unless ``acoustic.beam_width`` says otherwise. The beginning of the answer forces the language, as its
authors do it. The model gives neither times nor probabilities, so a word has the times of its stretch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoProcessor, Qwen3ASRForConditionalGeneration

from dictalake.acoustic.checkpoint import find_folder
from dictalake.acoustic.device import choose_device, choose_dtype
from dictalake.acoustic.engines.base import EngineSettings, resolve_engine
from dictalake.acoustic.engines.batches import BatchedEngine, explaining
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ, Word

# The fastest dictation has about six tokens a second; a model that writes more than twice that is in a loop.
_TOKENS_PER_S, _TOKENS_MORE = 12, 32


class QwenEngine(BatchedEngine):
    """See :class:`BatchedEngine`."""

    def __init__(self, model: Any, processor: Any, settings: EngineSettings, device: str, dtype: str, batch_s: float) -> None:
        super().__init__(model, device, dtype, batch_s)
        self._processor, self._settings = processor, settings

    @classmethod
    def load(cls, acoustic: Acoustic, threads: int) -> QwenEngine:
        """Raises ConfigError if the folder holds no Qwen3-ASR in the form of transformers."""
        torch.set_num_threads(threads)
        settings = resolve_engine(acoustic)
        folder, _ = find_folder(acoustic)
        device = choose_device(acoustic.device)
        with explaining(folder, "Qwen3-ASR"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            if config.model_type != "qwen3_asr" or hasattr(config, "thinker_config"):
                raise ConfigError(
                    f"acoustic.model: {folder.name} is not Qwen3-ASR in the form of transformers; take Qwen/Qwen3-ASR-1.7B-hf, "
                    "or a fine-tuned model that was saved by transformers' Qwen3ASRForConditionalGeneration"
                )
            loaded: Any = Qwen3ASRForConditionalGeneration.from_pretrained(
                folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            model, found = loaded
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            processor.apply_transcription_request([np.zeros(1, np.float32)], language=settings.language, tokenize=False)
        if missing := sorted(found["missing_keys"]):  # transformers would fill them with random numbers
            raise ConfigError(f"acoustic.model: {folder.name} lacks {len(missing)} weights, the first is {missing[0]}")
        return cls(model, processor, settings, device, choose_dtype(acoustic.dtype, device), acoustic.batch_s)

    @torch.inference_mode()
    def _write(self, stretches: list[np.ndarray], length: int) -> list[list[Word]]:
        waveforms = [stretch.astype(np.float32) / 32768.0 for stretch in stretches]
        inputs = self._processor(
            text=self._processor.apply_transcription_request(waveforms, language=self._settings.language, tokenize=False),
            audio=waveforms,
            audio_kwargs={"padding": "max_length", "max_length": length, "sampling_rate": SAMPLE_RATE_HZ},
        ).to(self._device, self._dtype)
        written = self._model.generate(
            **inputs,
            max_new_tokens=_TOKENS_PER_S * length // SAMPLE_RATE_HZ + _TOKENS_MORE,
            num_beams=self._settings.beam_width,
            do_sample=False,
        )
        answers = written[:, inputs["input_ids"].shape[1] :]
        texts = [self._processor.decode(answer, return_format="transcription_only") for answer in answers]
        return [
            [Word(word, 0.0, len(stretch) / SAMPLE_RATE_HZ, None) for word in text.split()]
            for stretch, text in zip(stretches, texts, strict=True)
        ]
