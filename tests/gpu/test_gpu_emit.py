"""The acoustic model on a GPU gives what it gives on a CPU, and the same for a window in any company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dictalake.acoustic.ctc import CtcModel, choose_device, choose_dtype
from dictalake.acoustic.fusion import find_exclusive_frames, fuse_in_stretches, fuse_windows
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.window_output import PruneConfig
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.config.sections import Acoustic
from tests.recordings import make_sound

pytestmark = pytest.mark.gpu
LENGTHS_S = (0.15, 0.9, 3.3, 7.5, 20.0, 20.0, 20.0)


@pytest.fixture(scope="module")
def windows() -> list[np.ndarray]:
    return [np.rint(make_sound(seconds, seed) * 32_767).astype(np.int16) for seed, seconds in enumerate(LENGTHS_S)]


def load(model: Path, device: str, dtype: str = "float32", batch_s: float = 160.0) -> CtcModel:
    return CtcModel.load(Acoustic.model_validate({"model": str(model), "device": device, "dtype": dtype, "batch_s": batch_s}))


def test_auto_takes_the_gpu(random_lasr: Path) -> None:
    import torch

    assert choose_device("auto") == "cuda"
    assert load(random_lasr, "auto").device == torch.cuda.get_device_name(0)
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert choose_dtype("auto", "cuda") == ("bfloat16" if native else "float32")


def test_float32_on_the_gpu_is_float32_on_the_cpu(random_lasr: Path, windows: list[np.ndarray]) -> None:
    on_cpu, on_gpu = load(random_lasr, "cpu").emit(windows), load(random_lasr, "cuda").emit(windows)
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        assert cpu.shape == gpu.shape
        sure = np.exp(cpu) > 1e-3
        np.testing.assert_allclose(gpu[sure], cpu[sure], atol=0.05)
        assert (cpu.argmax(axis=1) == gpu.argmax(axis=1)).mean() > 0.99


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_window_is_heard_alike_in_any_batch(random_lasr: Path, windows: list[np.ndarray], dtype: str) -> None:
    together = load(random_lasr, "cuda", dtype, batch_s=1000.0).emit(windows)
    alone = load(random_lasr, "cuda", dtype, batch_s=0.1).emit(windows)
    for one, other in zip(together, alone, strict=True):
        assert np.isfinite(one).all()
        # Kernels for other shapes add up in another order; in bfloat16 that shows.
        agree = (one.argmax(axis=1) == other.argmax(axis=1)).mean()
        assert agree > (0.99 if dtype == "float32" else 0.9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_the_gpu_selects_gives_the_emissions_of_all_its_numbers(random_lasr: Path, dtype: str) -> None:
    model = load(random_lasr, "cuda", dtype, batch_s=1000.0)
    waveform = np.rint(make_sound(61.0, 3) * 32_767).astype(np.int16)
    plan = plan_windows(len(waveform), model.grid, 20.0, 2.0)
    windows = [cut_window(waveform, window) for window in plan]
    for pruning in (
        PruneConfig(-4.0, 0.5, 0),
        PruneConfig(-20.0, 1.0, 0),
    ):  # the second keeps more tokens than there is room for
        heard = model.forward_windows(windows, find_exclusive_frames(plan, model.grid), pruning)
        got = sparsify_stretches(fuse_in_stretches(heard, plan, model.grid), pruning)
        wanted = sparsify_stretches([fuse_windows(model.emit(windows), plan, model.grid)], pruning)
        for name in ("frame_index", "offsets", "token_ids", "logp"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_into_a_graph_the_model_gives_what_it_gives(random_lasr: Path, windows: list[np.ndarray], dtype: str) -> None:
    usual, compiled = load(random_lasr, "cuda", dtype, batch_s=40.0), load(random_lasr, "cuda", dtype, batch_s=40.0)
    compiled.compile(20.0)
    wanted = usual.emit(windows)
    for _ in range(3):
        for got, expected in zip(compiled.emit(windows), wanted, strict=True):
            assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() > (0.99 if dtype == "float32" else 0.9)


def test_the_gpu_is_not_waited_for_until_its_numbers_are_read(random_lasr: Path, windows: list[np.ndarray]) -> None:
    import torch

    model, exclusive_frames = load(random_lasr, "cuda", batch_s=40.0), [(0, 1)] * len(windows)
    model.forward_windows(windows, exclusive_frames, PruneConfig(-4.0, 0.5, 0))  # what is made once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        started = list(model.select(windows, exclusive_frames, PruneConfig(-4.0, 0.5, 0)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(len(selection.read()) for _, selections in started for selection in selections) == len(windows)
