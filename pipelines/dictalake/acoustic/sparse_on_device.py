"""Makes log-probabilities sparse on the model's device, so that little crosses the bus to the host.

Frames that only one window covers leave the device as tokens with their log-probabilities, runs of sure blanks as one frame:
about 50 bytes a frame instead of 2 kB for 512 pieces. Frames that two windows share go whole, since they are fused first. What
is selected is what :mod:`dictalake.acoustic.sparse` keeps of the same numbers; the host sorts it.

A GPU is not waited for: how many tokens there will be is not known when they are asked for, so there is room for several a
frame, and the selection is made again with as much room as it takes where that was not enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dictalake.acoustic.device import fetch, send
from dictalake.acoustic.sparse import arrange, least_sure, require_numbers, require_tokens_fit
from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput

# medasr-mini keeps 1.2 tokens a frame on average, counted over all frames.
_TOKENS_A_FRAME = 4


@dataclass(frozen=True)
class FrameSpan:
    """The ``frames`` of a window without padding; no other window covers ``[first, end)`` of them."""

    frames: int
    first: int
    end: int


class DeviceSparsifier:
    """What is kept of a batch, under way to the host."""

    @torch.inference_mode()
    def __init__(
        self, logits: torch.Tensor, spans: Sequence[FrameSpan], pruning: PruneConfig, tokens_a_frame: int = _TOKENS_A_FRAME
    ) -> None:
        """``logits`` ``(windows, frames, vocabulary)``, not normalised. Raises ValueError for over 65,536 columns, and for
        fewer frames than ``spans`` have: else one window would be given the next one's."""
        require_tokens_fit(logits.shape[2])
        most = max(span.frames for span in spans)
        if most > logits.shape[1]:
            raise ValueError(f"the model gave {logits.shape[1]} frames of a window, where its configuration says {most}")
        self._spans, self._pruning, self._tokens_a_frame = spans, pruning, tokens_a_frame
        self._log_probs = logits.float().log_softmax(-1)
        device, (_, frames, vocabulary) = logits.device, logits.shape
        shared = [np.r_[: span.first, span.end : span.frames] + row * frames for row, span in enumerate(spans)]
        self._shared_counts = [len(rows) for rows in shared]
        rows = send(torch.from_numpy(np.concatenate(shared)), device)
        self._shared = fetch(self._log_probs.view(-1, vocabulary).index_select(0, rows))
        exclusive = sum(span.end - span.first for span in spans)
        self._tokens: _Tokens | None = None
        if exclusive:
            self._edges = send(torch.tensor([(span.first, span.end) for span in spans]), device)
            self._tokens = self._select(tokens_a_frame * exclusive)
        self._copied: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._copied = torch.cuda.Event(blocking=True)  # whoever waits leaves its core to the others
            self._copied.record()

    @property
    def bytes_to_host(self) -> int:
        """What crosses the bus to the host of a GPU, room that is left empty included."""
        if self._tokens is None:
            return self._shared.nbytes
        room = sum(span.end - span.first for span in self._spans) * self._tokens_a_frame
        place = self._tokens.places.element_size() + self._tokens.logp.element_size()
        return self._shared.nbytes + room * place + 2 * len(self._spans)

    @torch.inference_mode()
    def read(self) -> list[WindowOutput[Stretch]]:
        """Waits for it. Raises what the device met, and ValueError for numbers that are none."""
        if self._copied is not None:
            self._copied.synchronize()
        tokens = self._tokens
        if tokens is not None and int(tokens.count) > len(tokens.places):
            tokens = self._select(int(tokens.count))
            if self._copied is not None:
                torch.cuda.current_stream().synchronize()
        stretches = self._cut(tokens)
        shared = np.split(self._shared.numpy(), np.cumsum(self._shared_counts)[:-1])
        return [
            WindowOutput(rows[: span.first], stretch, rows[span.first :])
            for rows, stretch, span in zip(shared, stretches, self._spans, strict=True)
        ]

    def _select(self, room: int) -> _Tokens:
        log_probs, first, end = self._log_probs, self._edges[:, :1], self._edges[:, 1:]
        frame = torch.arange(log_probs.shape[1], device=log_probs.device)
        is_exclusive = (frame >= first) & (frame < end)
        sure = log_probs[:, :, self._pruning.blank_id] > least_sure(self._pruning)
        # A run starts anew at the first exclusive frame: whether it continues is decided where stretches meet.
        repeated = torch.zeros_like(sure)
        repeated[:, 1:] = sure[:, 1:] & sure[:, :-1] & (frame[1:] > first)
        likeliest = log_probs.amax(-1)
        least = torch.where(is_exclusive & ~repeated, likeliest.clamp(max=self._pruning.min_logp), math.inf)
        keep = (log_probs >= least[:, :, None]).flatten()
        if keep.device.type == "cpu":
            places = torch.from_numpy(np.flatnonzero(keep.numpy()))  # an eighth of torch.nonzero's time
            places = places[:room]
        else:
            places = torch.nonzero_static(keep, size=room, fill_value=0)[:, 0]
        last = (end - 1).clamp(min=0)
        return _Tokens(
            places=fetch(places),
            logp=fetch(log_probs.flatten().index_select(0, places)),
            count=fetch(keep.sum()),
            begins_blank=fetch(sure.gather(1, first.clamp(max=sure.shape[1] - 1))[:, 0]),
            ends_blank=fetch(sure.gather(1, last)[:, 0]),
            likeliest=fetch(likeliest.where(is_exclusive, 0.0).sum()),
        )

    def _cut(self, tokens: _Tokens | None) -> list[Stretch]:
        """The stretch of each window."""
        _, frames, vocabulary = self._log_probs.shape
        if tokens is None:
            nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.float16)
            return [Stretch(0, vocabulary, *nothing)] * len(self._spans)
        require_numbers(tokens.likeliest.numpy())
        count = int(tokens.count)
        rows, ids = np.divmod(tokens.places.numpy()[:count], vocabulary)
        kept, counts, ids, logp = arrange(rows, ids, tokens.logp.numpy()[:count], self._pruning.min_logp)
        bounds = np.searchsorted(kept, np.arange(len(self._spans) + 1) * frames)
        token_bounds = np.concatenate([[0], np.cumsum(counts)])[bounds]
        stretches = []
        for row, span in enumerate(self._spans):
            own, own_tokens = slice(*bounds[row : row + 2]), slice(*token_bounds[row : row + 2])
            stretch = Stretch(
                span.end - span.first,
                vocabulary,
                kept[own] - (row * frames + span.first),
                counts[own],
                ids[own_tokens],
                logp[own_tokens],
                bool(tokens.begins_blank[row]),
                bool(tokens.ends_blank[row]),
            )
            stretches.append(stretch)
        return stretches


def read_in_order(batches: Iterable[tuple[list[int], list[DeviceSparsifier]]]) -> list[WindowOutput[Stretch]]:
    """The outputs of windows in the order of their indices; each batch is read as soon as it is there."""
    outputs: dict[int, WindowOutput[Stretch]] = {}
    for indices, selections in batches:
        outputs.update(zip(indices, (one for selection in selections for one in selection.read()), strict=True))
    return [outputs[index] for index in range(len(outputs))]


@dataclass(frozen=True)
class _Tokens:
    """``places`` in the flat log-probabilities, the first of ``count``; ``likeliest`` is NaN where one of them is."""

    places: torch.Tensor
    logp: torch.Tensor
    count: torch.Tensor
    begins_blank: torch.Tensor
    ends_blank: torch.Tensor
    likeliest: torch.Tensor
