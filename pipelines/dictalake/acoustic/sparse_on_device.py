"""Makes log-probabilities sparse on the model's device, so that little crosses the bus to the host.

Frames that only one window covers leave the device as tokens with their log-probabilities, and a run of sure blanks as one
frame: about 50 bytes a frame instead of 2 kB for 512 pieces. Frames that two windows share leave it dense, since they are
fused first. The selection equals what :mod:`dictalake.acoustic.sparse` keeps of the same numbers; the host sorts it.

The host does not wait for a GPU to count the tokens. It reserves room for several tokens a frame; if that was too little, the
selection is repeated with the room that it needs.
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
    """The number of ``frames`` of a window without padding. No other window covers its frames ``[first, end)``."""

    frames: int
    first: int
    end: int


class DeviceSparsifier:
    """The sparse output of a batch on its way to the host."""

    @torch.inference_mode()
    def __init__(
        self, logits: torch.Tensor, spans: Sequence[FrameSpan], pruning: PruneConfig, tokens_a_frame: int = _TOKENS_A_FRAME
    ) -> None:
        """``logits`` ``(windows, frames, vocabulary)`` are not normalised. Raises ValueError for over 65,536 columns, and for
        fewer frames than ``spans`` say: a window would then get frames of the next one."""
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
            self._copied = torch.cuda.Event(blocking=True)  # a waiting thread leaves its core to others
            self._copied.record()

    @property
    def bytes_to_host(self) -> int:
        """The bytes that cross the bus from a GPU to its host, unused room included."""
        if self._tokens is None:
            return self._shared.nbytes
        room = sum(span.end - span.first for span in self._spans) * self._tokens_a_frame
        place = self._tokens.places.element_size() + self._tokens.logp.element_size()
        return self._shared.nbytes + room * place + 2 * len(self._spans)

    @torch.inference_mode()
    def read(self) -> list[WindowOutput[Stretch]]:
        """Waits for the output. Raises the device's errors, and ValueError for NaN."""
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
        # A run of blanks starts anew at the first exclusive frame; runs are joined where stretches meet.
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
    """The outputs of windows in the order of their indices. Each batch is read as soon as it arrives."""
    outputs: dict[int, WindowOutput[Stretch]] = {}
    for indices, selections in batches:
        outputs.update(zip(indices, (one for selection in selections for one in selection.read()), strict=True))
    return [outputs[index] for index in range(len(outputs))]


@dataclass(frozen=True)
class _Tokens:
    """The first of ``count`` ``places`` in the flat log-probabilities. ``likeliest`` is NaN where a frame holds NaN."""

    places: torch.Tensor
    logp: torch.Tensor
    count: torch.Tensor
    begins_blank: torch.Tensor
    ends_blank: torch.Tensor
    likeliest: torch.Tensor
