"""The device and the number type that a model computes with."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from dictalake.acoustic.bfloat16_probe import try_bfloat16
from dictalake.errors import ConfigError


def choose_device(wanted: str) -> str:
    """``auto`` takes a GPU if there is one. ``cuda`` without a GPU is an error, not a slow run."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "acoustic.device = cuda, but PyTorch sees no GPU here; use cpu or auto, or install a CUDA build of torch"
        )
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def choose_dtype(wanted: str, device: str) -> str:
    """The dtype that the model runs in. It differs from ``wanted`` only if this machine cannot compute in that at all.

    ``auto`` is bfloat16 only if the hardware multiplies in it: emulated, it is ten times slower than float32.
    """
    if device == "cuda":
        return ("bfloat16" if _is_native(device) else "float32") if wanted == "auto" else wanted
    if wanted == "float32" or (wanted == "auto" and not _is_native(device)):
        return "float32"
    outcome = try_bfloat16()
    return "bfloat16" if outcome == "packed" or (outcome == "plain" and wanted == "bfloat16") else "float32"


def explain_dtype(wanted: str, device: str) -> str | None:
    """A warning for a dtype that this machine lacks, or computes slowly; None if there is nothing to warn about."""
    if wanted != "bfloat16":
        return None
    if choose_dtype(wanted, device) == "float32":
        return warn_of_float32("this processor cannot compute in bfloat16")
    if _is_native(device) and (device == "cuda" or try_bfloat16() == "packed"):
        return None
    return (
        "acoustic.dtype = bfloat16: this machine does not multiply in bfloat16, so the model runs in it slowly; "
        "acoustic.dtype = auto takes float32 here, which is faster"
    )


def warn_of_float32(reason: str) -> str:
    """The warning for a configuration with bfloat16 that runs in float32."""
    return f"acoustic.dtype = bfloat16: {reason}, so the model runs in float32; set acoustic.dtype = auto"


def _is_native(device: str) -> bool:
    """Whether the hardware says that it multiplies in bfloat16."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def open_lanes(count: int) -> ThreadPoolExecutor:
    """Threads in which PyTorch computes with one thread each.

    Several batches in parallel, one on each core, need no barrier after each step of a model. With two threads in one batch,
    each waits for the other whenever another process takes a few ms of its core.
    """
    return ThreadPoolExecutor(count, thread_name_prefix="lane", initializer=torch.set_num_threads, initargs=(1,))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Limits PyTorch and MKL to one thread each while lanes compute.

    PyTorch has this limit for each thread, but MKL below it for the process, so only one model may compute at a time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def name_device(device: torch.device) -> str:
    """``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies to ``device``. A GPU reads pinned memory, and the call does not wait for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def fetch(tensor: torch.Tensor) -> torch.Tensor:
    """Copies to the host. From a GPU the copy is complete once the work now in its stream is done."""
    if tensor.device.type != "cuda":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def still_computes(device: torch.device) -> bool:
    """Whether the device works: a broken CUDA context gives only errors until its process ends."""
    try:
        return bool((torch.ones(2, device=device) + 1).sum().item() == 4)
    except torch.OutOfMemoryError:
        return True  # full, not broken
    except RuntimeError:
        return False
