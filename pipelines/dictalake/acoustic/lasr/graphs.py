"""The encoder's usual kernels as CUDA graphs: one launch for a batch, where the kernels alone would be hundreds.

A graph fits one shape, with or without a mask. A shape is captured when it comes for the second time. What a graph gives is
compared with what the kernels gave; where it differs, or where it cannot be captured, the model runs without graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from dictalake.acoustic.lasr.model import FastLasr

Play = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
Capture = Callable[[FastLasr, torch.Tensor, torch.Tensor | None, Any], tuple[Play, Any]]
_MOST = 64  # graphs: full batches, and tails by bucket and number
_Key = tuple[tuple[int, ...], bool]


def capture(model: FastLasr, features: torch.Tensor, feature_frames: torch.Tensor | None, pool: Any) -> tuple[Play, Any]:
    """``model`` as one graph for inputs like these, and the memory that the next graph may share: only one runs at a time."""
    own, own_frames = features.clone(), None if feature_frames is None else feature_frames.clone()
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):  # libraries allocate their working memory before the recording
        for _ in range(2):
            model(own, own_frames)
    torch.cuda.current_stream().wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    # Other threads may copy to the device meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        logits = model(own, own_frames)

    def play(given: torch.Tensor, frames: torch.Tensor | None) -> torch.Tensor:
        own.copy_(given)
        if own_frames is not None and frames is not None:
            own_frames.copy_(frames)
        graph.replay()
        return logits

    return play, graph.pool()


class GraphedLasr:
    """Gives what ``model`` gives. The next call may overwrite the result."""

    def __init__(self, model: FastLasr, capture: Capture = capture) -> None:
        self.model = model
        self._capture = capture
        self._plays: dict[_Key, Play] = {}
        self._seen: set[_Key] = set()
        self._pool: Any = None
        self._is_broken = False

    @torch.inference_mode()
    def __call__(self, features: torch.Tensor, feature_frames: torch.Tensor | None = None) -> torch.Tensor:
        key = tuple(features.shape), feature_frames is not None
        if (play := self._plays.get(key)) is not None:
            return play(features, feature_frames)
        logits: torch.Tensor = self.model(features, feature_frames)
        if key in self._seen and not self._is_broken and len(self._plays) < _MOST:
            self._try_to_capture(key, features, feature_frames, logits)
        self._seen.add(key)
        return logits

    def _try_to_capture(
        self, key: _Key, features: torch.Tensor, feature_frames: torch.Tensor | None, logits: torch.Tensor
    ) -> None:
        try:
            play, pool = self._capture(self.model, features, feature_frames, self._pool)
            if not torch.equal(play(features, feature_frames), logits):
                raise RuntimeError("a graph gave other numbers")
        except RuntimeError as error:  # out of memory is one
            self._is_broken, reason = True, str(error).partition("\n")[0][:200]
            logging.getLogger("dictalake").warning(
                f"the model runs without further CUDA graphs: {reason}", extra={"event": "no_cuda_graphs"}
            )
            return
        self._plays[key], self._pool = play, pool
