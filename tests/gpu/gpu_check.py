"""Everything to learn from the first minutes on a GPU, within eight of them. Each part is written to a file as it ends.

    python -m tests.gpu.gpu_check --out gpu_check               # on the GPU
    python -m tests.gpu.gpu_check --out gpu_check --device cpu --small   # tries the script out

It needs torch, transformers, pyarrow and pydantic: no Ray, no lake, no audio library. ``tests/gpu/run_check.sh`` runs it on a
machine without a network. A part that fails leaves its traceback and the next one begins.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from torch.nn import functional
from transformers import LasrCTCConfig, LasrEncoderConfig, LasrFeatureExtractor, LasrForCTC

from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.fusion import find_exclusive_frames, fuse_in_stretches, fuse_windows
from dictalake.acoustic.lasr.features import LogMel
from dictalake.acoustic.lasr.graphs import GraphedLasr, capture
from dictalake.acoustic.lasr.model import FastLasr
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.window_output import PruneConfig
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.config.sections import Config
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow import columns
from dictalake.workflow.stages.base import DeferredResource
from dictalake.workflow.stages.emit import Emit

BUDGET_S = 480.0
LENGTHS_S = (0.15, 0.9, 3.3, 7.5, 20.0, 20.0, 20.0)
SELECTIONS = {"usual": PruneConfig(-4.0, 0.5, 0), "more tokens than there is room for": PruneConfig(-20.0, 1.0, 0)}
BLOCK_S = 1800.0
_SMALL_LASR = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "subsampling_conv_channels": 32,
    "initializer_range": 0.1,
}


class Check:
    """The parts, on one device. ``small`` takes models and batches for a CPU."""

    def __init__(self, device: str, small: bool) -> None:
        self.device, self.small, self.is_gpu = device, small, device == "cuda"
        self._weights: dict[bool, tuple[LasrCTCConfig, dict[str, torch.Tensor]]] = {}
        self._began = time.monotonic()

    @property
    def left_s(self) -> float:
        return BUDGET_S - (time.monotonic() - self._began)

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def time(self, run: Callable[[], object], rounds: int = 10) -> float:
        """The median seconds of ``run`` on the device."""
        rounds = 2 if self.small else rounds
        for _ in range(1 if self.small else 3):
            run()
        self.wait()
        took = []
        for _ in range(rounds):
            started = time.perf_counter()
            if self.is_gpu:
                first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                first.record()
                run()
                last.record()
                last.synchronize()
                took.append(first.elapsed_time(last) / 1e3)
            else:
                run()
                took.append(time.perf_counter() - started)
        return statistics.median(took)

    def time_host(self, run: Callable[[], object], rounds: int = 5) -> float:
        """The median seconds until the call returns: what handing out the kernels takes."""
        took = []
        for _ in range(rounds):
            self.wait()
            started = time.perf_counter()
            run()
            took.append(time.perf_counter() - started)
        self.wait()
        return statistics.median(took)

    def make_model(
        self, dtype: str = "bfloat16", batch_s: float = 640.0, *, tiny: bool | None = None, device: str | None = None
    ) -> CtcModel:
        """MedASR's dimensions with random weights, or a ``tiny`` model. Its tokens are many, and mostly blank."""
        tiny = self.small if tiny is None else tiny
        if tiny not in self._weights:
            torch.manual_seed(0)
            encoder = LasrEncoderConfig(**_SMALL_LASR) if tiny else LasrEncoderConfig()
            config = LasrCTCConfig(vocab_size=64 if tiny else 512, pad_token_id=0, encoder_config=encoder)
            model = LasrForCTC(config).eval()
            with torch.no_grad():
                noise = torch.randn(1, 64_000, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 0.3, 64_000)
                logits = model(input_features=LogMel(LasrFeatureExtractor())(noise)).logits[0]
                spread = 4.0 / (logits - logits.mean(0)).std()
                model.ctc_head.weight.mul_(spread)
                model.ctc_head.bias.sub_(logits.mean(0)).mul_(spread)
                model.ctc_head.bias[0] += 8.0
            self._weights[tiny] = config, model.state_dict()
        config, tensors = self._weights[tiny]
        lasr = FastLasr(config, {name: tensor.clone() for name, tensor in tensors.items()})
        device = device or self.device
        return CtcModel(lasr, LasrFeatureExtractor(), device, dtype if device == "cuda" else "float32", batch_s, window_s=20.0)

    # The parts

    def environment(self) -> dict[str, Any]:
        found = {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "cores": os.cpu_count(),
        }
        if self.is_gpu:
            properties = torch.cuda.get_device_properties(0)
            found |= {"gpu": properties.name, "multiprocessors": properties.multi_processor_count}
            found |= {"cudnn": torch.backends.cudnn.version(), "bf16": torch.cuda.is_bf16_supported(False)}
        return found

    def ceilings(self) -> dict[str, float]:
        """What this GPU can do at most: copies, and the products of a block for a batch of 640 s."""
        source = torch.empty(2**22 if self.small else 2**29, dtype=torch.bfloat16, device=self.device)
        target = torch.empty_like(source)
        found = {"copy_tb_s": 2 * source.nbytes / self.time(lambda: target.copy_(source)) / 1e12}
        rows = 499 if self.small else 32 * 499
        sizes = {"linear1": (512, 2048), "linear2": (2048, 512), "qkv": (512, 1536), "pointwise1": (512, 1024)}
        for name, (wide, out) in sizes.items():
            x = torch.randn(rows, wide, device=self.device, dtype=torch.bfloat16)
            weight = torch.randn(out, wide, device=self.device, dtype=torch.bfloat16)
            seconds = self.time(lambda x=x, weight=weight: functional.linear(x, weight))  # type: ignore[misc]
            found[f"{name}_tflop_s"] = 2 * rows * wide * out / seconds / 1e12
        if self.is_gpu:
            host = torch.empty(20 * 2**20, dtype=torch.uint8, pin_memory=True)
            there = torch.empty_like(host, device=self.device)
            found["host_to_device_gb_s"] = host.nbytes / self.time(lambda: there.copy_(host, non_blocking=True)) / 1e9
        return found

    def correctness(self) -> dict[str, Any]:
        """Against the CPU in float32, alone and in company, and what is selected on the device against all numbers."""
        windows = [make_sound(seconds, seed) for seed, seconds in enumerate(LENGTHS_S)]
        wanted, found = self.make_model("float32", 160, tiny=True, device="cpu").emit(windows), dict[str, Any]()
        for dtype in ("float32", "bfloat16"):
            model = self.make_model(dtype, 160, tiny=True)
            for turn in range(3):  # the third time as a graph
                emitted = model.emit(windows)
                found[f"{dtype}, turn {turn}: same token as the CPU"] = agree(wanted, emitted)
            found[f"{dtype}: same token alone"] = agree(self.make_model(dtype, 0.1, tiny=True).emit(windows), emitted)
            found[f"{dtype}: finite"] = all(bool(np.isfinite(one).all()) for one in emitted)
            found |= {
                f"{dtype}: selection, {name}": self._selects_right(model, pruning) for name, pruning in SELECTIONS.items()
            }
        if self.is_gpu:
            found["no hidden wait"] = self._find_wait(windows)
            full = [self.make_model(dtype, 160).emit(windows) for dtype in ("float32", "bfloat16")]
            found["full size: bfloat16 has float32's token"] = agree(*full)
        return found

    def _selects_right(self, model: CtcModel, pruning: PruneConfig) -> bool:
        waveform = make_sound(61.0, 3)
        plan = plan_windows(len(waveform), model.grid, 20.0, 2.0)
        cut = [cut_window(waveform, window) for window in plan]
        outputs = model.forward_windows(cut, find_exclusive_frames(plan, model.grid), pruning)
        got = sparsify_stretches(fuse_in_stretches(outputs, plan, model.grid), pruning)
        wanted = sparsify_stretches([fuse_windows(model.emit(cut), plan, model.grid)], pruning)
        names = ("frame_index", "offsets", "token_ids", "logp")
        return all(np.array_equal(getattr(got, name), getattr(wanted, name)) for name in names)

    def _find_wait(self, windows: list[np.ndarray]) -> str | None:
        """Where a launch waits for the GPU; None if it does not."""
        model, frames, pruning = self.make_model("float32", 40, tiny=True), [(0, 1)] * len(windows), SELECTIONS["usual"]
        for _ in range(3):
            model.forward_windows(windows, frames, pruning)
        torch.cuda.set_sync_debug_mode("error")
        try:
            list(model.select(windows, frames, pruning))
        except RuntimeError:
            return traceback.format_exc(limit=-4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return None

    def encoder(self) -> dict[str, Any]:
        """The encoder's kernels one by one, at several batches."""
        found = {}
        for batch_s in (20.0, 40.0) if self.small else (20.0, 80.0, 160.0, 640.0, 1280.0):
            model, count = self.make_model(batch_s=batch_s), int(batch_s // 20)
            windows = [make_sound(20.0)] * count
            inputs, lasr = model.to_inputs(windows, len(windows[0])), find_kernels(model)
            masked = inputs | {"feature_frames": torch.full((count,), inputs["features"].shape[1] - 40, device=self.device)}
            with torch.inference_mode():
                seconds = self.time(lambda: lasr(**inputs))  # noqa: B023
                found[f"{batch_s:g} s"] = {
                    "speed_x": batch_s / seconds,
                    "ms": 1e3 * seconds,
                    "host_ms": 1e3 * self.time_host(lambda: lasr(**inputs)),  # noqa: B023
                    "masked_ms": 1e3 * self.time(lambda: lasr(**masked), 5),  # noqa: B023
                    "features_ms": 1e3 * self.time(lambda: model.to_inputs(windows, 320_000), 5),  # noqa: B023
                }
        return found

    def depthwise(self) -> dict[str, float]:
        """The one operation whose library kernel may be ten times too slow: 32 wide, 512 groups, channels last."""
        batch, frames, channels, kernel = (2 if self.small else 32), 499, 512, 32
        x = torch.randn(batch, frames + kernel - 1, channels, device=self.device, dtype=torch.bfloat16)
        weight = torch.randn(channels, 1, 1, kernel, device=self.device, dtype=torch.bfloat16)
        arms = {
            "as now": lambda: functional.conv2d(x.transpose(1, 2)[:, :, None, :], weight, groups=channels),
            "copied, conv1d": lambda: functional.conv1d(x.transpose(1, 2).contiguous(), weight[:, :, 0], groups=channels),
        }
        found = {f"{name} us": 1e6 * self.time(arm) for name, arm in arms.items()}
        if self.is_gpu:
            with torch.backends.cudnn.flags(enabled=True, benchmark=True):
                found["as now, cudnn.benchmark us"] = 1e6 * self.time(arms["as now"])
            with torch.backends.cudnn.flags(enabled=False):
                found["as now, without cudnn us"] = 1e6 * self.time(arms["as now"])
        return found | {"floor us at 4.3 TB/s": 1e6 * 2 * batch * frames * channels * 2 / 4.3e12}

    def attention(self) -> dict[str, Any]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        batch = 2 if self.small else 32
        queries = torch.randn(batch, 8, 499, 64, device=self.device, dtype=torch.bfloat16)
        mask = (torch.arange(499, device=self.device) < 480).expand(batch, 499)[:, None, None, :]
        found: dict[str, Any] = {}
        for backend in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"):
            for name, given in {"": None, ", masked": mask}.items():
                try:
                    with sdpa_kernel(getattr(SDPBackend, backend)):
                        seconds = self.time(
                            lambda given=given: functional.scaled_dot_product_attention(  # type: ignore[misc]
                                queries, queries, queries, attn_mask=given
                            ),
                            5,
                        )
                    found[f"{backend}{name} us"] = 1e6 * seconds
                except RuntimeError as error:
                    found[f"{backend}{name} us"] = "no: " + str(error).partition("\n")[0][:60]
        return found

    def stage(self) -> dict[str, Any]:
        """The real Emit over blocks of log-normal recordings: one block in the stage, and two."""
        from concurrent.futures import ThreadPoolExecutor

        found, table = {}, make_block(60.0 if self.small else BLOCK_S)
        audio_s = sum(len(one) for row in range(table.num_rows) for one in columns.read_waveforms(table, row)) / SAMPLE_RATE_HZ
        for batch_s in (640.0,) if self.small else (640.0, 1280.0):
            config = Config.model_validate({"acoustic": {"device": self.device, "batch_s": batch_s}})
            model = self.make_model(batch_s=batch_s)
            emit = Emit.__new__(Emit)
            emit.set_up(config, 0, DeferredResource(lambda: model))  # noqa: B023
            for at_once in (1, 2):
                with ThreadPoolExecutor(at_once) as callers:
                    for rounds in (3, 1 if self.small else 12):  # the first ones make the graphs
                        started = time.perf_counter()
                        list(callers.map(emit, [table] * rounds))
                        self.wait()
                        seconds = (time.perf_counter() - started) / rounds
                found[f"batch_s {batch_s:g}, {at_once} at once"] = {"speed_x": audio_s / seconds, "ms_a_block": 1e3 * seconds}
        return found

    def graphs(self) -> dict[str, Any]:
        """One batch by kernels, as a graph, with blocks compiled one for all, and wholly compiled."""
        count = 2 if self.small else 32
        model = self.make_model(batch_s=20.0 * count)
        features, lasr = model.to_inputs([make_sound(20.0)] * count, 320_000)["features"], find_kernels(model)
        with torch.inference_mode():
            wanted = lasr(features).argmax(-1)
            found: dict[str, Any] = {"kernels_ms": 1e3 * self.time(lambda: lasr(features))}
            if self.is_gpu:
                play, _ = capture(lasr, features, None, None)
                found["graph_ms"] = 1e3 * self.time(lambda: play(features, None))
                found["graph_host_ms"] = 1e3 * self.time_host(lambda: play(features, None))
                found["graph_same_tokens"] = float((play(features, None).argmax(-1) == wanted).float().mean())
            if self.left_s > 60:
                started = time.monotonic()
                for block in lasr.blocks:
                    block.compile(dynamic=False, backend="inductor" if self.is_gpu else "eager")
                lasr(features)
                self.wait()
                found["blocks_compiled_in_s"] = time.monotonic() - started
                found["blocks_compiled_ms"] = 1e3 * self.time(lambda: lasr(features))
        if self.is_gpu and self.left_s > 150:
            model, started = self.make_model(batch_s=20.0 * count), time.monotonic()
            model.compile(20.0)
            self.wait()
            found["compiled_in_s"] = time.monotonic() - started
            found["compiled_ms"] = 1e3 * self.time(lambda: model.to_logits({"features": features}))
        return found


def find_kernels(model: CtcModel) -> FastLasr:
    """The encoder without graphs."""
    lasr: Any = model._lasr
    found: FastLasr = lasr.model if isinstance(lasr, GraphedLasr) else lasr
    return found


def agree(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The share of frames with the same token, 0–1."""
    return float(np.mean(np.concatenate([a.argmax(1) == b.argmax(1) for a, b in zip(one, other, strict=True)])))


def make_sound(seconds: float, seed: int = 0) -> np.ndarray:
    """int16 tones in noise at 16 kHz."""
    random, at = np.random.default_rng(seed), np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tones = zip(random.uniform(90, 3000, 6), random.uniform(0, 6, 6), random.uniform(0.5, 4, 6), strict=True)
    sound = sum(np.sin(2 * np.pi * hz * at + phase) * (1 + np.sin(2 * np.pi * swell * at)) for hz, phase, swell in tones)
    return np.rint((sound * 0.03 + random.normal(0, 0.01, len(at))).clip(-1, 1) * 32_767).astype(np.int16)


def make_block(audio_s: float) -> pa.Table:
    """Recordings of log-normal lengths, ``audio_s`` in all."""
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(45), 1, 1000), 1, 600)
    lengths = lengths[lengths.cumsum() < audio_s]
    lengths = lengths if len(lengths) else np.array([audio_s])
    sound = make_sound(600.0, 1)
    names = pa.table({"recording_id": [str(number) for number in range(len(lengths))]})
    table = columns.extend(names, {"error": columns.ERROR}, [{"error": None}] * len(lengths))
    return columns.append_waveforms(table, [[sound[: int(length * SAMPLE_RATE_HZ)]] for length in lengths])


PARTS = ("environment", "correctness", "stage", "encoder", "graphs", "ceilings", "depthwise", "attention")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu_check.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models and batches")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    check, result = Check(options.device, options.small), dict[str, Any]()
    for part in options.only.split(","):
        started = time.monotonic()
        try:
            result[part] = getattr(check, part)() if check.left_s > 15 else "no time left"
        except Exception:  # the other parts are worth as much
            result[part] = {"failed": traceback.format_exc(limit=-6)}
        result.setdefault("took_s", {})[part] = round(time.monotonic() - started, 1)
        (options.out / "gpu_check.json").write_text(json.dumps(result, indent=1, default=str), encoding="utf-8")
        print(f"{part}: {json.dumps(result[part], default=str)[:1500]}", flush=True)
        if check.is_gpu:
            torch.cuda.empty_cache()
    return int(any(isinstance(one, dict) and "failed" in one for one in result.values()))


if __name__ == "__main__":
    sys.exit(main())
