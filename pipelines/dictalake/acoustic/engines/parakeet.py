"""Parakeet-TDT through transformers' ``ParakeetForTDT``: a transducer that predicts with each piece how long it lasts.

The folder has the form of transformers (``nvidia/parakeet-tdt-0.6b-v3`` has it); a ``.nemo`` file does not. The search is
greedy. A word has the times of its pieces, and no probability. Parakeet-CTC is no engine: it is a model for our own decoders
(``acoustic.kind = ctc``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoProcessor, ParakeetForTDT

from dictalake.acoustic.checkpoint import find_folder
from dictalake.acoustic.device import choose_device, choose_dtype
from dictalake.acoustic.engines.base import resolve_engine
from dictalake.acoustic.engines.batches import BatchedEngine, explaining
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ, Word

_START = "▁"  # of a piece that begins a word


class ParakeetEngine(BatchedEngine):
    """See :class:`BatchedEngine`."""

    def __init__(self, model: Any, processor: Any, device: str, dtype: str, batch_s: float) -> None:
        super().__init__(model, device, dtype, batch_s)
        self._processor = processor
        hop = processor.feature_extractor.hop_length * model.config.encoder_config.subsampling_factor
        self._frame_s = hop / SAMPLE_RATE_HZ

    @classmethod
    def load(cls, acoustic: Acoustic, threads: int) -> ParakeetEngine:
        """Raises ConfigError if the folder holds no Parakeet-TDT in the form of transformers."""
        torch.set_num_threads(threads)
        resolve_engine(acoustic)
        folder, _ = find_folder(acoustic)
        device = choose_device(acoustic.device)
        with explaining(folder, "Parakeet-TDT"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            if config.model_type != "parakeet_tdt":
                raise ConfigError(
                    f"acoustic.model: {folder.name} is not Parakeet-TDT in the form of transformers; for Parakeet-CTC set "
                    "acoustic.kind = ctc"
                )
            loaded: Any = ParakeetForTDT.from_pretrained(
                folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            model, found = loaded
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        if missing := sorted(found["missing_keys"]):  # transformers would fill them with random numbers
            raise ConfigError(f"acoustic.model: {folder.name} lacks {len(missing)} weights, the first is {missing[0]}")
        return cls(model, processor, device, choose_dtype(acoustic.dtype, device), acoustic.batch_s)

    @torch.inference_mode()
    def _write(self, stretches: list[np.ndarray], length: int) -> list[list[Word]]:
        waveforms = [stretch.astype(np.float32) / 32768.0 for stretch in stretches]
        inputs = self._processor(
            waveforms, sampling_rate=SAMPLE_RATE_HZ, padding="max_length", max_length=length, return_tensors="pt"
        ).to(self._device, self._dtype)
        output = self._model.generate(**inputs, do_sample=False)
        starts = (output.durations.cumsum(dim=-1) - output.durations).tolist()
        tokens, durations = output.sequences.tolist(), output.durations.tolist()
        return [
            self._join_pieces(pieces, frames, lasting, len(stretch) / SAMPLE_RATE_HZ)
            for pieces, frames, lasting, stretch in zip(tokens, starts, durations, stretches, strict=True)
        ]

    def _join_pieces(self, tokens: list[int], starts: list[int], durations: list[int], end_s: float) -> list[Word]:
        """The words of one stretch. In a batch the search goes on for those that are longer: what it adds behind the end of a
        stretch is left out."""
        tokenizer = self._processor.tokenizer
        skipped = {self._model.config.blank_token_id, *tokenizer.all_special_ids}
        words: list[list[tuple[int, int, int]]] = []
        for token, start, duration in zip(tokens, starts, durations, strict=True):
            if token in skipped or start * self._frame_s >= end_s:
                continue
            if not words or tokenizer.convert_ids_to_tokens(token).startswith(_START):
                words.append([])
            words[-1].append((token, start, duration))
        joined = []
        for pieces in words:
            text = tokenizer.decode([token for token, _, _ in pieces], group_tokens=False).strip()
            first, (_, last, duration) = pieces[0][1], pieces[-1]
            if text:
                word_end_s = min((last + max(1, duration)) * self._frame_s, end_s)
                joined.append(Word(text, first * self._frame_s, word_end_s, None))
        return joined
