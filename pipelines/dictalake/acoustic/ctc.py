"""Hugging Face CTC models as acoustic models: LASR (MedASR's architecture) with its own fast front end, Parakeet-CTC and the
wav2vec 2.0 family through their feature extractors.

Windows of the full length are batched without an attention mask. Shorter ones (tails, short recordings) are masked, and
padded to a length that depends only on their own. The two are never mixed, so a window gives the same numbers in any batch
(but for the last bits with ``acoustic.compile``, which is for full batches only). On a GPU one thread launches: batches are
put together, copied and read in the threads of the callers, which may be several. Some models get batches of windows of one
length, without padding: those that normalise over all of the audio (``feat_extract_norm: group``), and those whose layers
look over the mask's edge (``wav2vec2-conformer``).

All extractors but LASR's normalise over the window, so a frame's output depends on the rest of its window. Where two windows
overlap they may differ by more than their context. Fusion averages that too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
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
from dictalake.acoustic.lasr.graphs import GraphedLasr
from dictalake.acoustic.lasr.model import FastLasr
from dictalake.acoustic.sparse_on_device import DeviceSparsifier, FrameSpan, read_in_order
from dictalake.acoustic.weights import load_checkpoint
from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from dictalake.records import SAMPLE_RATE_HZ

# Tails are padded to multiples of this. A GPU wants few batches, since each costs its host 5 ms, a CPU little padding.
_BUCKETS_S = {"cuda": 5.0, "cpu": 1.0}
_AHEAD = 3  # full batches that one caller has with a GPU: it never waits for the next one
# Prunes no token and collapses no blank.
_WHOLE = PruneConfig(0.0, 1.0, 0)


@dataclass
class _Sent:
    """What the model needs of a batch, on its way to the device; a GPU has it when ``copied`` is over."""

    tensors: dict[str, torch.Tensor]
    copied: torch.cuda.Event | None = None


class CtcModel:
    """Loaded once per actor. Batches by audio seconds; on a CPU ``lanes`` batches run in parallel and share them."""

    def __init__(
        self,
        model: Any,
        extractor: Any,
        device: str,
        dtype: str,
        batch_s: float,
        lanes: int = 1,
        *,
        window_s: float | None = None,
        bucket_s: float | None = None,
        packs: bool = True,
    ) -> None:
        """``window_s`` is the length of full windows, which are never padded. ``bucket_s`` is what others are padded to; by
        default the device decides. ``packs`` says whether a CPU gets packed weights, if it can."""
        self._device, self._dtype, self.batch_s = torch.device(device), getattr(torch, dtype), batch_s
        self._lane_count, self._lanes = lanes, None if lanes == 1 else open_lanes(lanes)
        self._extractor = extractor
        self.grid = frame_grid(model.config, extractor)
        self._log_mel: LogMel | None = None
        self._lasr: FastLasr | GraphedLasr | CompiledLasr | None = None
        is_gpu = self._device.type == "cuda"
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix="launch") if is_gpu else None
        self._copies = torch.cuda.Stream(self._device) if is_gpu else None
        if isinstance(model, FastLasr):
            self._log_mel = LogMel(extractor).to(self._device)
            prepared = model.prepare(self._device, self._dtype, packs)
            self._lasr = GraphedLasr(prepared) if is_gpu else prepared
        else:
            self._model = model.to(self._device, self._dtype).eval().requires_grad_(False)
            _keep_head_in_float32(self._model)
        padded = getattr(model.config, "feat_extract_norm", None) != "group" and model.config.model_type != "wav2vec2-conformer"
        bucket_s = bucket_s or _BUCKETS_S[self._device.type]
        self._bucket = max(1, round(bucket_s * SAMPLE_RATE_HZ / self.grid.step)) * self.grid.step if padded else 1
        self._full = 0 if window_s is None else self.grid.window_of(window_s)

    @classmethod
    def load(cls, acoustic: Acoustic, window_s: float = 20.0) -> CtcModel:
        """``window_s`` is ``windows.length_s``; ``acoustic.compile`` needs it. Raises ConfigError if the folder holds no CTC
        model that transformers can load without remote code, and if the model cannot be compiled."""
        folder, _ = find_folder(acoustic)
        device = choose_device(acoustic.device)
        model, extractor = load_checkpoint(folder)
        dtype = choose_dtype(acoustic.dtype, device)
        lanes, packs = torch.get_num_threads() if device == "cpu" else 1, True
        if device == "cpu" and isinstance(model, FastLasr):
            way = model.choose_way(getattr(torch, dtype), lanes)
            lanes, packs = lanes if way.lanes else 1, way.products == "packed" or acoustic.compile  # what is packed is refused
        loaded = cls(model, extractor, device, dtype, acoustic.batch_s, lanes, window_s=window_s, packs=packs)
        if acoustic.compile:
            loaded.compile(window_s)
        return loaded

    def compile(self, window_s: float, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compiles for full batches of windows of ``window_s``. Raises ConfigError if that fails or gains nothing."""
        rest = self._lasr.model if isinstance(self._lasr, CompiledLasr) else self._lasr
        model = rest.model if isinstance(rest, GraphedLasr) else rest
        if rest is None or not isinstance(model, FastLasr):
            raise ConfigError("acoustic.compile: only LASR models (MedASR) can be compiled; leave the key out")
        if model.is_packed:
            raise ConfigError("acoustic.compile: needs a GPU; leave the key out, on a CPU the model is packed for oneDNN")
        self._full = length = self.grid.window_of(window_s)
        windows = [np.zeros(length, dtype=np.int16)] * self._most_windows(length)
        self._lasr = CompiledLasr(model, self.to_inputs(windows, length)["features"], backend)
        self._lasr.model = rest  # of the other batches

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
        if self._launcher is not None:
            yield from self._select_apart(batches, windows, spans, pruning, self._launcher)
            return
        underway = deque[tuple[list[int], list[DeviceSparsifier]]]()
        for batch in batches:
            underway.append((batch[1], start(batch)))
            if len(underway) > 1:  # give the device its next batch before reading the last one's numbers
                yield underway.popleft()
        yield from underway

    def _select_apart(
        self,
        batches: Sequence[tuple[int, list[int]]],
        windows: Sequence[np.ndarray],
        spans: Sequence[FrameSpan],
        pruning: PruneConfig,
        launcher: ThreadPoolExecutor,
    ) -> Iterator[tuple[list[int], list[DeviceSparsifier]]]:
        """As ``select``: this thread puts the batches together and copies them, and ``launcher`` does the rest."""
        most, ahead = int(_AHEAD * self.batch_s * SAMPLE_RATE_HZ), 0
        underway = deque[tuple[int, list[int], Future[list[DeviceSparsifier]]]]()
        for length, indices in batches:
            size = length * len(indices)
            while underway and ahead + size > most:
                done, theirs, started = underway.popleft()
                yield theirs, started.result()
                ahead -= done
            asked = [(windows[index], spans[index]) for index in indices]
            sent = self._upload([window for window, _ in asked], length)
            underway.append((size, indices, launcher.submit(self._start_within_memory, asked, length, pruning, sent)))
            ahead += size
        for _, theirs, started in underway:
            yield theirs, started.result()

    def frame_spans(self, windows: Sequence[np.ndarray], exclusive_frames: Sequence[tuple[int, int]]) -> list[FrameSpan]:
        """The frames of each window."""
        return [
            FrameSpan(self.grid.frames_of(len(window)), *ours) for window, ours in zip(windows, exclusive_frames, strict=True)
        ]

    @property
    def calls_at_once(self) -> int:
        """How many threads may call: on a CPU one, on a GPU a second one has its windows ready when the first one ends."""
        return 1 if self._launcher is None else 2

    def is_usable(self) -> bool:
        """See :class:`dictalake.acoustic.model.AcousticModel`."""
        return still_computes(self._device)

    def _start_within_memory(
        self, asked: list[tuple[np.ndarray, FrameSpan]], length: int, pruning: PruneConfig, sent: _Sent | None = None
    ) -> list[DeviceSparsifier]:
        """Halves the batch while it exceeds the device's memory, and keeps that size. Raises if one window is too much."""
        try:
            if sent is not None:
                return [self._launch(sent, [span for _, span in asked], pruning)]
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
            padded = self._find_padded(length)
            groups.setdefault((padded, padded == length), []).append(index)
        for (length, _), indices in sorted(groups.items(), reverse=True):
            size = min(self._most_windows(length), -(-len(indices) // self._lane_count))  # every lane gets work
            for start in range(0, len(indices), size):
                yield length, indices[start : start + size]

    def _find_padded(self, length: int) -> int:
        """What a window of ``length`` samples is padded to; a full one is not."""
        padded = -(-length // self._bucket) * self._bucket
        if length <= self._full < padded:
            padded = self._full
        return max(padded, self.grid.receptive)

    def _most_windows(self, length: int) -> int:
        """How many windows of ``length`` samples a batch holds."""
        return max(1, int(self.batch_s / self._lane_count * SAMPLE_RATE_HZ // length))

    def _start(self, asked: list[tuple[np.ndarray, FrameSpan]], length: int, pruning: PruneConfig) -> DeviceSparsifier:
        return self._launch(self._upload([window for window, _ in asked], length), [span for _, span in asked], pruning)

    def _launch(self, sent: _Sent, spans: Sequence[FrameSpan], pruning: PruneConfig) -> DeviceSparsifier:
        return DeviceSparsifier(self.to_logits(self._make_inputs(sent)), spans, pruning)

    def to_inputs(self, windows: Sequence[np.ndarray], length: int) -> dict[str, torch.Tensor]:
        """The encoder's input for int16 windows, padded to ``length`` samples; no mask if no window is padded."""
        return self._make_inputs(self._upload(windows, length))

    @torch.inference_mode()
    def _upload(self, windows: Sequence[np.ndarray], length: int) -> _Sent:
        """Puts windows on their way to the device. A GPU has a stream for that, so that no kernel waits for it."""
        full = all(len(window) == length for window in windows)
        with nullcontext() if self._copies is None else torch.cuda.stream(self._copies):
            if self._log_mel is None:
                sent = _Sent(self._extract(windows, length, full))
            else:
                sent = _Sent({"waveforms": send(self.put_together(windows, length), self._device)})
                if not full:
                    samples = torch.tensor([len(window) for window in windows])
                    sent.tensors["feature_frames"] = send(self._log_mel.frame_count(samples), self._device)
            if self._copies is not None:
                sent.copied = torch.cuda.Event()
                sent.copied.record(self._copies)
        return sent

    @torch.inference_mode()
    def _make_inputs(self, sent: _Sent) -> dict[str, torch.Tensor]:
        if sent.copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(sent.copied)
            for tensor in sent.tensors.values():
                tensor.record_stream(stream)
        if self._log_mel is None:
            return sent.tensors
        inputs = dict(sent.tensors)
        waveforms = inputs.pop("waveforms").to(torch.float32) / 32768.0
        return {"features": self._log_mel(waveforms).to(self._dtype), **inputs}

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
