"""Hugging Face CTC models as acoustic models: LASR (MedASR's architecture) with its own fast front end, Parakeet-CTC and the
wav2vec 2.0 family through their feature extractors.

Windows of the full length are batched without an attention mask. Shorter ones (tails, short recordings) are masked, and
padded to a length that depends only on their own. The two are never mixed, so a window gives the same numbers in any batch
(but for the last bits with ``acoustic.compile``, which is for full batches only). Some models get batches of windows of one
length, without padding: those that normalise over all of the audio (``feat_extract_norm: group``), and those whose layers
look over the mask's edge (``wav2vec2-conformer``).

All extractors but LASR's normalise over the window, so a frame's output depends on the rest of its window. Where two windows
overlap they may differ by more than their context. Fusion averages that too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from dictalake.acoustic.checkpoint import find_folder
from dictalake.acoustic.device import choose_device as choose_device
from dictalake.acoustic.device import choose_dtype as choose_dtype
from dictalake.acoustic.device import name_device, one_thread_each, open_lanes, send, still_computes
from dictalake.acoustic.frame_grid import frame_grid
from dictalake.acoustic.lasr.compiled import CompiledLasr
from dictalake.acoustic.lasr.features import LogMel
from dictalake.acoustic.lasr.model import FastLasr
from dictalake.acoustic.sparse_on_device import DeviceSparsifier, FrameSpan, read_in_order
from dictalake.acoustic.weights import load_checkpoint
from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ

# Tails are padded to multiples of this: few distinct shapes, little padding.
_BUCKET_S = 1.0
# Prunes no token and collapses no blank.
_WHOLE = PruneConfig(0.0, 1.0, 0)


class CtcModel:
    """Loaded once per actor. Batches by audio seconds; on a CPU ``lanes`` batches run in parallel and share them."""

    def __init__(self, model: Any, extractor: Any, device: str, dtype: str, batch_s: float, lanes: int = 1) -> None:
        self._device, self._dtype, self.batch_s = torch.device(device), getattr(torch, dtype), batch_s
        self._lane_count, self._lanes = lanes, None if lanes == 1 else open_lanes(lanes)
        self._extractor = extractor
        self.grid = frame_grid(model.config, extractor)
        self._log_mel: LogMel | None = None
        self._lasr: FastLasr | CompiledLasr | None = None
        if isinstance(model, FastLasr):
            self._log_mel = LogMel(extractor).to(self._device)
            self._lasr = model.prepare(self._device, self._dtype)
        else:
            self._model = model.to(self._device, self._dtype).eval().requires_grad_(False)
            _keep_head_in_float32(self._model)
        padded = getattr(model.config, "feat_extract_norm", None) != "group" and model.config.model_type != "wav2vec2-conformer"
        self._bucket = max(1, round(_BUCKET_S * SAMPLE_RATE_HZ / self.grid.step)) * self.grid.step if padded else 1

    @classmethod
    def load(cls, acoustic: Acoustic, window_s: float = 20.0) -> CtcModel:
        """``window_s`` is ``windows.length_s``; ``acoustic.compile`` needs it. Raises ConfigError if the folder holds no CTC
        model that transformers can load without remote code, and if the model cannot be compiled."""
        folder, _ = find_folder(acoustic)
        device = choose_device(acoustic.device)
        model, extractor = load_checkpoint(folder)
        lanes = torch.get_num_threads() if device == "cpu" else 1
        loaded = cls(model, extractor, device, choose_dtype(acoustic.dtype, device), acoustic.batch_s, lanes)
        if acoustic.compile:
            loaded.compile(window_s)
        return loaded

    def compile(self, window_s: float, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compiles for full batches of windows of ``window_s``. Raises ConfigError if that fails or gains nothing."""
        if not isinstance(self._lasr, FastLasr):
            raise ConfigError("acoustic.compile: only LASR models (MedASR) can be compiled; leave the key out")
        if self._lasr.is_packed:
            raise ConfigError("acoustic.compile: needs a GPU; leave the key out, on a CPU the model is packed for oneDNN")
        length = self.grid.window_of(window_s)
        if length % self._bucket:
            raise ConfigError(f"acoustic.compile: windows.length_s must be whole seconds, not {window_s:g}; others are padded")
        windows = [np.zeros(length, dtype=np.int16)] * self._most_windows(length)
        self._lasr = CompiledLasr(self._lasr, self.to_inputs(windows, length)["features"], backend)

    @property
    def device(self) -> str:
        return name_device(self._device)

    @property
    def dtype(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def emit(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See :class:`dictalake.acoustic.model.AcousticModel`."""
        return [output.after for output in self.forward_windows(windows, [(0, 0)] * len(windows), _WHOLE)]

    def forward_windows(
        self, windows: Sequence[np.ndarray], exclusive_frames: Sequence[tuple[int, int]], pruning: PruneConfig
    ) -> list[WindowOutput[Stretch]]:
        """See :class:`dictalake.acoustic.model.AcousticModel`."""
        return read_in_order(self.select(windows, exclusive_frames, pruning))

    def select(
        self, windows: Sequence[np.ndarray], exclusive_frames: Sequence[tuple[int, int]], pruning: PruneConfig
    ) -> Iterator[tuple[list[int], list[DeviceSparsifier]]]:
        """Indices of windows that go through the model together, with their outputs on the way from the device."""
        spans = self.frame_spans(windows, exclusive_frames)
        batches = list(self.batches([len(window) for window in windows]))

        def start(batch: tuple[int, list[int]]) -> list[DeviceSparsifier]:
            length, indices = batch
            return self._start_within_memory([(windows[index], spans[index]) for index in indices], length, pruning)

        if self._lanes is not None:
            with one_thread_each():
                yield from zip((indices for _, indices in batches), self._lanes.map(start, batches), strict=True)
            return
        underway = deque[tuple[list[int], list[DeviceSparsifier]]]()
        for batch in batches:
            underway.append((batch[1], start(batch)))
            if len(underway) > 1:  # give the device its next batch before reading the last one's numbers
                yield underway.popleft()
        yield from underway

    def frame_spans(self, windows: Sequence[np.ndarray], exclusive_frames: Sequence[tuple[int, int]]) -> list[FrameSpan]:
        """The frames of each window."""
        return [
            FrameSpan(self.grid.frames_of(len(window)), *ours) for window, ours in zip(windows, exclusive_frames, strict=True)
        ]

    def is_usable(self) -> bool:
        """See :class:`dictalake.acoustic.model.AcousticModel`."""
        return still_computes(self._device)

    def _start_within_memory(
        self, asked: list[tuple[np.ndarray, FrameSpan]], length: int, pruning: PruneConfig
    ) -> list[DeviceSparsifier]:
        """Halves the batch while it exceeds the device's memory, and keeps that size. Raises if one window is too much."""
        try:
            return [self._start(asked, length, pruning)]
        except (torch.OutOfMemoryError, MemoryError):
            if len(asked) == 1:
                raise
        half = -(-len(asked) // 2)
        self.batch_s = min(self.batch_s, half * length * self._lane_count / SAMPLE_RATE_HZ)
        if isinstance(self._lasr, CompiledLasr):
            self._lasr = self._lasr.model  # no batch has the compiled shape any more
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return [
            selection for some in (asked[:half], asked[half:]) for selection in self._start_within_memory(some, length, pruning)
        ]

    def batches(self, lengths: list[int]) -> Iterator[tuple[int, list[int]]]:
        """Indices of windows that go through the model together, with the length they are padded to."""
        groups: dict[tuple[int, bool], list[int]] = {}
        for index, length in enumerate(lengths):
            padded = max(-(-length // self._bucket) * self._bucket, self.grid.receptive)
            groups.setdefault((padded, padded == length), []).append(index)
        for (length, _), indices in sorted(groups.items(), reverse=True):
            size = min(self._most_windows(length), -(-len(indices) // self._lane_count))  # every lane gets work
            for start in range(0, len(indices), size):
                yield length, indices[start : start + size]

    def _most_windows(self, length: int) -> int:
        """How many windows of ``length`` samples a batch holds."""
        return max(1, int(self.batch_s / self._lane_count * SAMPLE_RATE_HZ // length))

    def _start(self, asked: list[tuple[np.ndarray, FrameSpan]], length: int, pruning: PruneConfig) -> DeviceSparsifier:
        windows, spans = zip(*asked, strict=True)
        return DeviceSparsifier(self.to_logits(self.to_inputs(windows, length)), spans, pruning)

    @torch.inference_mode()
    def to_inputs(self, windows: Sequence[np.ndarray], length: int) -> dict[str, torch.Tensor]:
        """The encoder's input for int16 windows, padded to ``length`` samples; no mask if no window is padded."""
        full = all(len(window) == length for window in windows)
        if self._log_mel is None:
            return self._extract(windows, length, full)
        waveforms = send(self.put_together(windows, length), self._device).to(torch.float32) / 32768.0
        inputs = {"features": self._log_mel(waveforms).to(self._dtype)}
        if not full:
            samples = torch.tensor([len(window) for window in windows])
            inputs["feature_frames"] = send(self._log_mel.frame_count(samples), self._device)
        return inputs

    def put_together(self, windows: Sequence[np.ndarray], length: int) -> torch.Tensor:
        """int16 ``(windows, length)`` on the host; shorter windows end in zeros."""
        batch = torch.empty((len(windows), length), dtype=torch.int16, pin_memory=self._device.type == "cuda")
        for row, window in zip(batch.numpy(), windows, strict=True):
            row[: len(window)], row[len(window) :] = window, 0
        return batch

    @torch.inference_mode()
    def to_logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """float32 ``(windows, frames, vocabulary)`` on the device, valid until the next call."""
        logits: torch.Tensor = self._lasr(**inputs) if self._lasr is not None else self._model(**inputs).logits
        return logits

    def _extract(self, windows: Sequence[np.ndarray], length: int, full: bool) -> dict[str, torch.Tensor]:
        """As ``to_inputs``, by a feature extractor of transformers."""
        extracted = self._extractor(
            [window.astype(np.float32) / 32768.0 for window in windows],
            sampling_rate=SAMPLE_RATE_HZ,
            padding="max_length",
            max_length=length,
            return_attention_mask=True,
            return_tensors="pt",
        )
        names = ("input_values", "input_features") + (() if full else ("attention_mask",))
        inputs = {name: extracted[name].to(self._device) for name in names if name in extracted}
        inputs = {n: t.to(self._dtype) if t.is_floating_point() else t for n, t in inputs.items()}
        if full and "input_features" in inputs:  # an extractor may give more frames than it counts
            inputs["input_features"] = inputs["input_features"][:, : int(extracted["attention_mask"][0].sum())]
        return inputs


def _keep_head_in_float32(model: torch.nn.Module) -> None:
    """As in FastLasr: rounded to bfloat16, several tokens of a frame would be equally likely."""
    for name in ("ctc_head", "lm_head"):
        if (head := getattr(model, name, None)) is not None:
            head.float().register_forward_pre_hook(lambda _, inputs: tuple(given.float() for given in inputs))
