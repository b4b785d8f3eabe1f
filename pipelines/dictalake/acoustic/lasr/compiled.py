"""The encoder for full batches, compiled by PyTorch: fused kernels in one CUDA graph. All full batches have one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dictalake.acoustic.lasr.graphs import GraphedLasr
from dictalake.acoustic.lasr.model import FastLasr
from dictalake.errors import ConfigError

_Forward = Callable[[torch.Tensor], torch.Tensor]


class CompiledLasr:
    """Runs unmasked batches of one shape compiled, all others uncompiled: compiling takes a minute for each shape."""

    @torch.inference_mode()
    def __init__(self, model: FastLasr, features: torch.Tensor, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compiles for batches like ``features`` with one of ``torch.compiler.list_backends()``. Raises ConfigError."""
        self.model: FastLasr | GraphedLasr = model
        self._shape = features.shape
        try:
            model(features)  # makes the position tables outside the graph, which would otherwise own their memory
            self._compiled: _Forward = torch.compile(model, dynamic=False, fullgraph=True, backend=backend)
            self._compiled(features)
            if features.device.type == "cuda":
                self._compiled = _capture(self._compiled, features.clone())
        except torch.OutOfMemoryError:
            raise ConfigError("acoustic.compile: the GPU has no memory for a compiled batch; lower acoustic.batch_s") from None
        except Exception as error:  # compilers fail in many ways
            raise ConfigError(
                f"acoustic.compile: PyTorch cannot compile the model here ({type(error).__name__}); install Triton and a C "
                "compiler on every machine with a GPU, or leave the key out"
            ) from error

    def __call__(self, features: torch.Tensor, feature_frames: torch.Tensor | None = None) -> torch.Tensor:
        """As FastLasr. The next call overwrites the result."""
        fits = feature_frames is None and features.shape == self._shape
        logits: torch.Tensor = self._compiled(features) if fits else self.model(features, feature_frames)
        return logits


def _capture(run: _Forward, features: torch.Tensor) -> _Forward:
    """``run`` as one CUDA graph that reads ``features``. The compiler's own graphs (``mode="reduce-overhead"``) do not serve:
    they depend on the calling thread, and Ray opens a model in one thread and calls it in another."""
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):  # libraries allocate their working memory before the recording
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
