"""Full batches run compiled and the others uncompiled, with the same numbers.

The compiler's front end is the real one; its back end here is PyTorch itself, which needs no compiler of the machine. Kernels
and CUDA graphs take a GPU: ``tests/gpu``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.lasr.compiled import CompiledLasr
from dictalake.acoustic.lasr.model import FastLasr
from dictalake.acoustic.weights import load_checkpoint
from dictalake.config.sections import Acoustic
from dictalake.errors import ConfigError
from tests.engine_models import save_random_parakeet
from tests.recordings import make_sound

WINDOW_S, BATCH_S = 4.0, 8.0


def make_windows(*seconds: float) -> list[np.ndarray]:
    return [np.rint(make_sound(length, seed) * 32_767).astype(np.int16) for seed, length in enumerate(seconds)]


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)


def load(folder: Path, dtype: str) -> CtcModel:
    return CtcModel(*load_checkpoint(folder), "cpu", dtype, BATCH_S)


class Counting:
    """A back end that runs a graph as it is, and counts how often it compiled and ran."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*given: Any) -> Any:
            self.runs += 1
            return graph(*given)

        return run


@pytest.mark.usefixtures("unpacked")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_full_batches_are_compiled_and_give_what_the_model_gives(random_lasr: Path, dtype: str) -> None:
    windows = make_windows(*[WINDOW_S] * 7, 3.3, 0.2)  # three full batches, half of one, and two tails behind a mask
    model, backend = load(random_lasr, dtype), Counting()
    wanted = model.emit(windows)
    model.compile(WINDOW_S, backend)
    compiling = backend.runs
    for turn in (1, 2):
        for got, usual in zip(model.emit(windows), wanted, strict=True):
            np.testing.assert_allclose(got, usual, rtol=1e-5, atol=1e-5)
        assert backend.runs - compiling == 3 * turn
    with ThreadPoolExecutor(1) as other:  # Ray opens a model in one thread and calls it in another
        other.submit(model.emit, windows).result()
    assert (backend.runs - compiling, backend.graphs) == (9, 1)


@pytest.mark.usefixtures("unpacked")
def test_the_graph_is_one_that_the_compiler_can_lower(random_lasr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = make_windows(*[WINDOW_S] * 4)
    model = load(random_lasr, "float32")
    wanted = model.emit(windows)
    model.compile(WINDOW_S, "aot_eager")
    monkeypatch.setattr(model._lasr, "model", None)  # full batches do without it
    for got, usual in zip(model.emit(windows), wanted, strict=True):
        np.testing.assert_allclose(got[usual > -10], usual[usual > -10], atol=1e-3)


@pytest.mark.usefixtures("unpacked")
def test_what_cannot_be_compiled_is_an_error_when_the_model_is_opened(random_lasr: Path) -> None:
    def refuse(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        raise RuntimeError("no compiler")

    with pytest.raises(
        ConfigError, match=r"^acoustic\.compile: PyTorch cannot compile the model here \(Back.*\); install Triton"
    ):
        load(random_lasr, "float32").compile(WINDOW_S, refuse)


@pytest.mark.usefixtures("unpacked")
def test_a_batch_too_large_to_compile_is_an_error_that_says_so(random_lasr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(random_lasr, "float32")

    def fill(self: FastLasr, *given: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(FastLasr, "forward", fill)
    with pytest.raises(ConfigError, match=r"^acoustic\.compile: the GPU has no memory .*; lower acoustic\.batch_s$"):
        model.compile(WINDOW_S, Counting())


@pytest.mark.usefixtures("unpacked")
def test_a_batch_of_another_shape_is_not_compiled_anew(random_lasr: Path) -> None:
    model = load_checkpoint(random_lasr)[0].prepare(torch.device("cpu"), torch.float32)
    assert isinstance(model, FastLasr)
    backend = Counting()
    with torch.inference_mode():  # as the model makes its features
        compiled = CompiledLasr(model, torch.zeros(2, 398, 128), backend)
        runs = backend.runs
        for shape in ((1, 398, 128), (2, 198, 128)):
            compiled(torch.zeros(shape))
        compiled(torch.zeros(2, 398, 128), torch.tensor([398, 300]))
        assert backend.runs == runs
        compiled(torch.zeros(2, 398, 128))
    assert (backend.runs, backend.graphs) == (runs + 1, 1)


@pytest.mark.usefixtures("unpacked")
def test_a_batch_that_had_to_be_halved_goes_on_without_the_graph(random_lasr: Path) -> None:
    model, backend = load(random_lasr, "float32"), Counting()
    model.compile(WINDOW_S, backend)
    runs, full = backend.runs, model._lasr

    class Small(CompiledLasr):
        def __init__(self) -> None:
            pass

        def __call__(self, features: torch.Tensor, feature_frames: torch.Tensor | None = None) -> torch.Tensor:
            raise torch.OutOfMemoryError

    assert isinstance(full, CompiledLasr)
    model._lasr = Small()
    model._lasr.model = full.model
    assert [len(matrix) for matrix in model.emit(make_windows(WINDOW_S, WINDOW_S))] == [97, 97]
    assert (model._lasr, backend.runs) == (full.model, runs)


@pytest.mark.usefixtures("unpacked")
def test_full_windows_of_any_length_are_not_padded_and_so_compiled(random_lasr: Path) -> None:
    model, backend = load(random_lasr, "float32"), Counting()
    model.compile(4.5, backend)
    runs, full = backend.runs, model.grid.window_of(4.5)
    model.emit([make_windows(5.0)[0][:full]])
    assert backend.runs == runs + 1


def test_compiling_is_refused_in_words_where_it_gains_nothing(random_lasr: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^acoustic\.compile: needs a GPU; leave the key out"):
        CtcModel.load(Acoustic.model_validate({"model": str(random_lasr), "device": "cpu", "compile": True}))
    parakeet = CtcModel.load(Acoustic.model_validate({"model": str(save_random_parakeet(tmp_path)), "device": "cpu"}))
    with pytest.raises(
        ConfigError, match=r"^acoustic\.compile: only LASR models \(MedASR\) can be compiled; leave the key out$"
    ):
        parakeet.compile(WINDOW_S)
