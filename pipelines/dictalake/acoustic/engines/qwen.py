"""Qwen3-ASR through transformers' ``Qwen3ASRForConditionalGeneration``: an audio encoder and a language model that writes
the text. The folder has the form of ``Qwen/Qwen3-ASR-1.7B-hf``. The first form, with ``thinker`` in its ``config.json``, has
other names for the same weights and is refused.

The search is greedy unless ``acoustic.beam_width`` says otherwise. The beginning of the answer forces the language, as its
authors do it. The model gives neither times nor probabilities, so a word has the times of its stretch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoProcessor, Qwen3ASRForConditionalGeneration

from dictalake.acoustic.checkpoint import find_folder
from dictalake.acoustic.device import choose_device, choose_dtype, name_device, still_computes
from dictalake.acoustic.engines.base import EngineSettings, resolve_engine
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ, Word

# The fastest dictation has about six tokens a second; a model that writes more than twice that is in a loop.
_TOKENS_PER_S, _TOKENS_MORE = 12, 32


class QwenEngine:
    """Loaded once per actor. A batch has stretches of one length in whole seconds. Each is padded to that length behind a
    mask, so its words do not depend on the batch, except for rounding.
    """

    def __init__(self, model: Any, processor: Any, settings: EngineSettings, device: str, dtype: str, batch_s: float) -> None:
        self._device, self._dtype, self.batch_s = torch.device(device), getattr(torch, dtype), batch_s
        self._model = model.to(self._device, self._dtype).eval().requires_grad_(False)
        self._processor, self._settings = processor, settings

    @classmethod
    def load(cls, acoustic: Acoustic, threads: int) -> QwenEngine:
        """Raises ConfigError if the folder holds no Qwen3-ASR in the form of transformers."""
        torch.set_num_threads(threads)
        settings = resolve_engine(acoustic)
        folder, _ = find_folder(acoustic)
        device = choose_device(acoustic.device)
        try:
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
        except ConfigError:
            raise
        except Exception as error:  # tokenizers raises a bare one for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(f"acoustic.model: {folder.name} does not load as Qwen3-ASR: {reason}") from None
        if missing := sorted(found["missing_keys"]):  # transformers would fill them with random numbers
            raise ConfigError(f"acoustic.model: {folder.name} lacks {len(missing)} weights, the first is {missing[0]}")
        return cls(model, processor, settings, device, choose_dtype(acoustic.dtype, device), acoustic.batch_s)

    @property
    def device(self) -> str:
        return name_device(self._device)

    @property
    def dtype(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def recognize(self, stretches: Sequence[np.ndarray]) -> list[list[Word]]:
        """See :class:`dictalake.acoustic.engines.base.TextEngine`."""
        results: list[list[Word]] = [[] for _ in stretches]
        for length, indices in self._batches([len(stretch) for stretch in stretches]):
            texts = self._write_within_memory([stretches[i] for i in indices], length)
            for index, text in zip(indices, texts, strict=True):
                end_s = len(stretches[index]) / SAMPLE_RATE_HZ
                results[index] = [Word(word, 0.0, end_s, None) for word in text.split()]
        return results

    def is_usable(self) -> bool:
        """See :class:`dictalake.acoustic.engines.base.TextEngine`."""
        return still_computes(self._device)

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Indices of stretches that make a batch, with the number of samples that they are padded to: whole seconds."""
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            groups.setdefault(max(1, -(-length // SAMPLE_RATE_HZ)) * SAMPLE_RATE_HZ, []).append(index)
        for length, indices in sorted(groups.items(), reverse=True):
            size = max(1, int(self.batch_s * SAMPLE_RATE_HZ // length))
            for start in range(0, len(indices), size):
                yield length, indices[start : start + size]

    def _write_within_memory(self, stretches: list[np.ndarray], length: int) -> list[str]:
        """Halves the batch while it exceeds the device's memory, and keeps that size. Raises if one stretch is too much."""
        try:
            return self._write(stretches, length)
        except (torch.OutOfMemoryError, MemoryError):
            if len(stretches) == 1:
                raise
        half = -(-len(stretches) // 2)
        self.batch_s = min(self.batch_s, half * length / SAMPLE_RATE_HZ)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self._write_within_memory(stretches[:half], length) + self._write_within_memory(stretches[half:], length)

    @torch.inference_mode()
    def _write(self, stretches: list[np.ndarray], length: int) -> list[str]:
        """The text of each stretch, all padded to ``length`` samples."""
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
        return [self._processor.decode(answer, return_format="transcription_only") for answer in answers]
