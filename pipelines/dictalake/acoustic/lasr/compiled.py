"""The encoder as PyTorch's compiler arranges it, fused kernels in one CUDA graph, for full batches, which have one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dictalake.acoustic.lasr.model import FastLasr
from dictalake.errors import ConfigError

_Forward = Callable[[torch.Tensor], torch.Tensor]


class CompiledLasr:
    """Batches of one shape without a mask go through compiled, all others as they are: a shape takes a minute to compile."""

    @torch.inference_mode()
    def __init__(self, model: FastLasr, features: torch.Tensor, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compiles for batches like ``features``, by one of ``torch.compiler.list_backends()``. Raises ConfigError."""
        self.model, self._shape = model, features.shape
        try:
            model(features)  # makes the tables of positions, which a graph would take for its own
            self._compiled: _Forward = torch.compile(model, dynamic=False, fullgraph=True, backend=backend)
            self._compiled(features)
            if features.device.type == "cuda":
                self._compiled = _capture(self._compiled, features.clone())
        except torch.OutOfMemoryError:
            raise ConfigError("acoustic.compile: the GPU has no memory for a compiled batch; lower acoustic.batch_s") from None
        except Exception as error:  # compilers fail in many ways
            raise ConfigError(
                f"acoustic.compile: PyTorch cannot compile the model here ({type(error).__name__}); it takes Triton and a C "
                "compiler on every machine with a GPU; leave the key out, or install them"
            ) from error

    def __call__(self, features: torch.Tensor, feature_frames: torch.Tensor | None = None) -> torch.Tensor:
        """As FastLasr. What it gives is overwritten by the next call."""
        fits = feature_frames is None and features.shape == self._shape
        logits: torch.Tensor = self._compiled(features) if fits else self.model(features, feature_frames)
        return logits


def _capture(run: _Forward, features: torch.Tensor) -> _Forward:
    """``run`` as one CUDA graph that reads ``features``. Not by the compiler's own graphs (``mode="reduce-overhead"``): those
    depend on the thread that calls, and Ray opens a model in one thread and calls it in another."""
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):  # libraries take their working memory before it is recorded
        for _ in range(3):
            run(features)
    torch.cuda.current_stream().wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        logits = run(features)

    def play(given: torch.Tensor) -> torch.Tensor:
        features.copy_(given)
        graph.replay()
        return logits

    return play
