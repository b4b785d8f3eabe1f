"""A graph is made for a shape that comes again, and used only while it gives what the kernels give. CUDA: ``tests/gpu``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dictalake.acoustic.lasr.graphs import GraphedLasr, Play
from dictalake.acoustic.lasr.model import FastLasr
from dictalake.acoustic.weights import load_checkpoint


@pytest.fixture
def lasr(random_lasr: Path) -> FastLasr:
    prepared: FastLasr = load_checkpoint(random_lasr)[0].prepare(torch.device("cpu"), torch.float32)
    return prepared


class Recorder:
    """Makes "graphs" that run the model, with ``change`` added to what it gives."""

    def __init__(self, change: float = 0.0) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.pools: list[Any] = []
        self.played = 0
        self.change = change

    def __call__(self, model: FastLasr, features: torch.Tensor, frames: torch.Tensor | None, pool: Any) -> tuple[Play, Any]:
        self.shapes.append(tuple(features.shape))
        self.pools.append(pool)

        def play(given: torch.Tensor, given_frames: torch.Tensor | None) -> torch.Tensor:
            self.played += 1
            return model(given, given_frames) + self.change

        return play, "pool"


def test_a_shape_that_comes_again_is_captured_with_and_without_a_mask(lasr: FastLasr) -> None:
    recorder = Recorder()
    graphed = GraphedLasr(lasr, recorder)
    whole, frames = torch.randn(2, 198, 128), torch.tensor([198, 150])
    with torch.inference_mode():
        for given in (None, frames):
            wanted = lasr(whole, given)
            for _ in range(4):
                assert torch.equal(graphed(whole, given), wanted)
    # Once to be compared with the kernels, then for the two later calls
    assert (recorder.shapes, recorder.pools, recorder.played) == ([(2, 198, 128)] * 2, [None, "pool"], 6)


def refuse(*_: Any) -> tuple[Play, Any]:
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize("capture", [Recorder(change=0.01), refuse], ids=["other numbers", "no capture"])
def test_without_a_graph_that_is_right_the_kernels_run(
    lasr: FastLasr, monkeypatch: pytest.MonkeyPatch, capture: Callable[..., Any]
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(logging.getLogger("dictalake"), "warning", lambda message, **_: warnings.append(message))
    graphed, whole = GraphedLasr(lasr, capture), torch.randn(1, 198, 128)
    with torch.inference_mode():
        wanted = lasr(whole)
        for _ in range(4):
            assert torch.equal(graphed(whole), wanted)
    assert len(warnings) == 1
    assert warnings[0].startswith("the model runs without further CUDA graphs: ")
