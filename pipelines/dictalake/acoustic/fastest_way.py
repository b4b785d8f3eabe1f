"""The fastest way to compute LASR on this processor, found by trying and remembered for each machine.

Which product is faster depends on the processor: with AVX-512, weights packed for oneDNN; on many with AVX2 alone, PyTorch's
usual product, which is MKL's. Whether several batches side by side ("lanes") or several threads in one are faster does, too.
The trial takes less than a second. Its answer is kept in the user's cache folder, a file for each processor, PyTorch and size.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.nn import functional

from dictalake.acoustic import onednn
from dictalake.acoustic.bfloat16_probe import try_bfloat16
from dictalake.acoustic.device import one_thread_each, open_lanes

Products = Literal["packed", "usual"]
_FRAMES = 497  # of a window of 20 s
_ROUNDS = 4
_BUDGET_S = 0.4  # for each of the two questions
_PACKED_UNLESS = 0.97  # times its time: the other one has to be that much faster
_LANES_UNLESS = 0.9
_QUIET = 0.8  # of the cores that were asked for: other processes had little of them
_UNSURE_FOR_S = 86_400.0  # an answer that was found on a busy machine is kept for a day, so that not each worker tries again
_FORMAT = 1  # one more whenever the trial changes
_ISA_VARIABLES = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
_Step = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Way:
    """How a model of one size computes on a CPU."""

    products: Products
    lanes: bool


def choose_way(width: int, inner: int, dtype: torch.dtype, threads: int) -> Way:
    """The fastest way for feed-forward layers of ``width`` and ``inner``; tried once on a machine."""
    try:
        path = _find_file(width, inner, dtype, threads)
    except RuntimeError:  # a user without a home folder, as in a container
        return try_ways(width, inner, dtype, threads)[0]
    if (known := _read(path)) is not None and (known.products == "usual" or can_pack(dtype)):
        return known
    way, is_sure = try_ways(width, inner, dtype, threads)
    _write(path, way, is_sure)
    return way


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes with packed weights of ``dtype`` here."""
    if not (torch.backends.mkldnn.is_available() and onednn.can_multiply()):
        return False
    return dtype != torch.bfloat16 or try_bfloat16() == "packed"


@torch.inference_mode()
def try_ways(width: int, inner: int, dtype: torch.dtype, threads: int) -> tuple[Way, bool]:
    """Computes the same layer in each way, in turns, and compares the least times; False if others had the cores meanwhile.

    Then lanes are the answer: with several threads in one batch, each waits whenever another process takes a core.
    """
    weights = [torch.randn(inner, width).to(dtype) / width**0.5, torch.randn(width, inner).to(dtype) / inner**0.5]
    x = torch.randn(1, _FRAMES, width).to(dtype)
    steps: dict[Products, _Step] = {"usual": _make_step(weights, "usual")}
    if can_pack(dtype):
        steps["packed"] = _make_step(weights, "packed")
    products: Products = "usual"
    if len(steps) > 1:
        with one_thread_each():
            # The processor's time, which another process that takes the core does not lengthen.
            least = _time_in_turns({name: partial(step, x) for name, step in steps.items()}, time.thread_time)
        products = "usual" if least["usual"] < _PACKED_UNLESS * least["packed"] else "packed"
    if threads == 1:
        return Way(products, lanes=True), True
    step, together = steps[products], x.expand(threads, -1, -1).contiguous()
    with open_lanes(threads) as lanes:

        def run_lanes() -> None:
            with one_thread_each():
                list(lanes.map(lambda _: step(x), range(threads)))

        before_s, began = time.process_time(), time.perf_counter()
        least = _time_in_turns({"lanes": run_lanes, "threads": lambda: step(together)}, time.perf_counter)
        cores = (time.process_time() - before_s) / (time.perf_counter() - began)
    is_quiet = cores >= _QUIET * threads
    return Way(products, lanes=not is_quiet or least["threads"] >= _LANES_UNLESS * least["lanes"]), is_quiet


def _make_step(weights: list[torch.Tensor], products: Products) -> _Step:
    """A feed-forward layer, as a block of the model has two."""
    packed = [onednn.pack_weight(weight) for weight in weights] if products == "packed" else []

    def step(x: torch.Tensor) -> torch.Tensor:
        if packed:
            out = onednn.multiply(onednn.multiply(x, packed[0], None, "swish"), packed[1], None, "none")
        else:
            out = functional.linear(functional.silu(functional.linear(x, weights[0])), weights[1])
        return functional.layer_norm(out + x, x.shape[-1:])

    return step


def _time_in_turns(runs: dict[Any, Callable[[], object]], clock: Callable[[], float]) -> dict[Any, float]:
    """The least seconds of each by ``clock``, after a warm-up."""
    least = dict.fromkeys(runs, float("inf"))
    started = time.perf_counter()
    for turn in range(_ROUNDS + 1):
        for name, run in runs.items():
            before = clock()
            run()
            if turn:
                least[name] = min(least[name], clock() - before)
        if turn and time.perf_counter() - started > _BUDGET_S:
            break
    return least


def _find_file(width: int, inner: int, dtype: torch.dtype, threads: int) -> Path:
    settings = [os.environ.get(name, "") for name in _ISA_VARIABLES]
    facts = [_FORMAT, _describe_processor(), torch.__version__, *settings, width, inner, dtype, threads]
    key = hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()[:24]
    return _find_cache() / "fastest-way" / f"{key}.json"


def _find_cache() -> Path:
    from platformdirs import user_cache_path  # a GPU needs none

    return user_cache_path("dictalake")


def _describe_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags"))


def _read(path: Path) -> Way | None:
    """What was found before; None for a file that is missing, damaged or of somebody else."""
    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None
        found = json.loads(path.read_bytes()[:1000])
        age_s = time.time() - path.stat().st_mtime
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("products") not in get_args(Products) or type(found.get("lanes")) is not bool:
        return None
    if found.get("is_sure") is not True and not 0 <= age_s < _UNSURE_FOR_S:
        return None
    return Way(found["products"], found["lanes"])


def _write(path: Path, way: Way, is_sure: bool) -> None:
    """Appears whole or not at all; the last of several writers wins. Without a cache folder the next process tries again."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({**asdict(way), "is_sure": is_sure}, file)
        os.replace(name, path)
    except OSError:
        return
