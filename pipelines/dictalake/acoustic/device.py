"""Where a model computes, and in which numbers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from dictalake.errors import ConfigError


def choose_device(wanted: str) -> str:
    """``auto`` takes a GPU where there is one; asking for ``cuda`` without one is an error, not a slow run."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "acoustic.device = cuda, but PyTorch sees no GPU here; use cpu or auto, or install a CUDA build of torch"
        )
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def choose_dtype(wanted: str, device: str) -> str:
    """``auto`` is bfloat16 only where the hardware multiplies in it: emulated, it is ten times slower than float32."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def open_lanes(count: int) -> ThreadPoolExecutor:
    """Threads in which PyTorch computes with one thread each.

    As many batches side by side on as many cores need no barrier after each step of a model: with two threads in one batch,
    each waits for the other whenever another process takes a few ms of its core.
    """
    return ThreadPoolExecutor(count, thread_name_prefix="lane", initializer=torch.set_num_threads, initargs=(1,))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """While lanes compute: PyTorch counts threads for each thread, but MKL, below it, for the process. One model at a time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def name_device(device: torch.device) -> str:
    """``cpu``, or what the GPU is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To ``device``; a GPU gets it from pinned memory, without being waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def fetch(tensor: torch.Tensor) -> torch.Tensor:
    """To the host; from a GPU it is there once what its stream has now to do is done."""
    if tensor.device.type != "cuda":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def still_computes(device: torch.device) -> bool:
    """Whether the device answers: a CUDA context may give nothing but errors until its process ends."""
    try:
        return bool((torch.ones(2, device=device) + 1).sum().item() == 4)
    except torch.OutOfMemoryError:
        return True  # full, not broken
    except RuntimeError:
        return False
