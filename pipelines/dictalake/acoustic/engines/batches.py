"""What engines of transformers share: batches of stretches of one length, halved where the device's memory is short."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dictalake.acoustic.device import name_device, still_computes
from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ, Word


@contextmanager
def explaining(folder: Path, name: str) -> Iterator[None]:
    """Whatever a library raises over the files of a model, as one ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # tokenizers raises a bare one for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(f"acoustic.model: {folder.name} does not load as {name}: {reason}") from None


class BatchedEngine(ABC):
    """Loaded once per actor. A batch has stretches of one length in whole seconds. Each is padded to that length behind a
    mask, so its words do not depend on the batch, except for rounding.
    """

    def __init__(self, model: Any, device: str, dtype: str, batch_s: float) -> None:
        self._device, self._dtype, self.batch_s = torch.device(device), getattr(torch, dtype), batch_s
        self._model = model.to(self._device, self._dtype).eval().requires_grad_(False)

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
            written = self._write_within_memory([stretches[i] for i in indices], length)
            for index, words in zip(indices, written, strict=True):
                results[index] = words
        return results

    def is_usable(self) -> bool:
        """See :class:`dictalake.acoustic.engines.base.TextEngine`."""
        return still_computes(self._device)

    @abstractmethod
    def _write(self, stretches: list[np.ndarray], length: int) -> list[list[Word]]:
        """The words of each stretch, all padded to ``length`` samples."""

    def _batches(self, lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Indices of stretches that make a batch, with the number of samples that they are padded to: whole seconds."""
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            groups.setdefault(max(1, -(-length // SAMPLE_RATE_HZ)) * SAMPLE_RATE_HZ, []).append(index)
        for length, indices in sorted(groups.items(), reverse=True):
            size = max(1, int(self.batch_s * SAMPLE_RATE_HZ // length))
            for start in range(0, len(indices), size):
                yield length, indices[start : start + size]

    def _write_within_memory(self, stretches: list[np.ndarray], length: int) -> list[list[Word]]:
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
