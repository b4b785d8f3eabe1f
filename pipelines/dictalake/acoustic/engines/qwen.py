"""Qwen3-ASR through transformers' own ``Qwen3ASRForConditionalGeneration``: an audio encoder before a language model that
writes the text. The folder has the form of ``Qwen/Qwen3-ASR-1.7B-hf``; the first form, with ``thinker`` in its
``config.json``, has other names for the same weights and is refused.

Greedy unless ``acoustic.beam_width`` says otherwise, the language forced by the beginning of the answer, as its authors do. It
says neither times nor probabilities: a word has the times of the stretch that it was heard in.
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

# The fastest dictation has about six tokens a second; what says more than twice that loops.
_TOKENS_PER_S, _TOKENS_MORE = 12, 32


class QwenEngine:
    """Loaded once per actor. Stretches of one length in whole seconds go through together, each padded behind a mask to that
    length, so that its words do not depend on the batch, except for rounding.
    """

    def __init__(self, model: Any, processor: Any, settings: EngineSettings, device: str, dtype: str, batch_s: float) -> None:
        self._device, self._dtype, self.batch_s = torch.device(device), getattr(torch, dtype), batch_s
        self._model = model.to(self._device, self._dtype).eval().requires_grad_(False)
        self._processor, self._settings = processor, settings

    @classmethod
    def load(cls, acoustic: Acoustic, threads: int) -> QwenEngine:
        """Raises ConfigError when the folder holds no Qwen3-ASR in the form of transformers."""
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
        except Exception as error:  # tokenizers raises a bare one of a file that is damaged
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(f"acoustic.model: {folder.name} does not load as Qwen3-ASR: {reason}") from None
        if missing := sorted(found["missing_keys"]):  # transformers would put random numbers there and go on
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
        """Indices of stretches that go through together, with the samples that they are padded to: whole seconds."""
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            groups.setdefault(max(1, -(-length // SAMPLE_RATE_HZ)) * SAMPLE_RATE_HZ, []).append(index)
        for length, indices in sorted(groups.items(), reverse=True):
            size = max(1, int(self.batch_s * SAMPLE_RATE_HZ // length))
            for start in range(0, len(indices), size):
                yield length, indices[start : start + size]

    def _write_within_memory(self, stretches: list[np.ndarray], length: int) -> list[str]:
        """Halves the batch while the device has no memory for it, and keeps to that. Raises when one stretch is too much."""
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
