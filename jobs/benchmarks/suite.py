"""Compares dictalake with what users would use instead, in one run: the same machine, weights and audio, in turns.

    python -m jobs.benchmarks --out DIR            every arm on both models, about half an hour on two cores
    python -m jobs.benchmarks --out DIR --quick    the same arms over less audio, within five minutes

Arms: (a) transformers' pipeline, (b) a plain batched loop over the model, (c) our acoustic stage, (d) our whole job, greedy,
(e) with the language model, (f) faster-whisper tiny.en in batches, where it is installed. Models: ``full``, MedASR's dimensions
with random weights, and ``mini``, the embedded one. DIR/bench.json has all figures, DIR/bench.html shows them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.acoustic.device import choose_dtype
from dictalake.errors import ConfigError
from dictalake.workflow.identity import read_vocabulary
from dictalake.workflow.stages.emit import Emit
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.arms import (
    Arm,
    alternate,
    as_ratio,
    cut,
    list_waveforms,
    make_loop_arm,
    make_pipeline_arm,
    make_stage_arm,
    make_whisper_arm,
    measure_agreement,
    pick_device,
    read_tokens,
)
from jobs.benchmarks.page import render
from jobs.benchmarks.stages import load_block, make_config, make_model, measure_decoders, measure_stages, write_archive
from jobs.benchmarks.waiting import measure_waiting
from jobs.benchmarks.whole import measure_jobs, measure_start

TARGETS = {
    "acoustic_vs_hf_pipeline": 3.0,
    "acoustic_vs_plain_loop": 1.3,
    "job_vs_acoustic": 0.85,
    "lm_vs_greedy": 0.90,
    "decode_vs_pyctcdecode": 3.0,
}


@dataclass(frozen=True)
class Plan:
    """The seconds of audio and the rounds. Each model has jobs over a short and a long archive."""

    arms_s: Mapping[str, float]
    rounds: int
    jobs_s: Mapping[str, tuple[float, float]]
    job_rounds: int


FULL = Plan({"full": 360, "mini": 900}, 5, {"full": (180, 3780), "mini": (180, 21_780)}, 3)
QUICK = Plan({"full": 90, "mini": 180}, 2, {"full": (90, 1350)}, 1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for bench.json and bench.html")
    parser.add_argument("--quick", action="store_true", help="less audio and fewer rounds")
    options = parser.parse_args(argv)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    plan, started = (QUICK if options.quick else FULL), time.monotonic()
    console = Console(stderr=True)
    device = pick_device()
    result: dict[str, Any] = {"bench": "all", "quick": options.quick, "device": device, "threads": os.cpu_count(), "models": {}}
    with tempfile.TemporaryDirectory(prefix="dictalake-bench-") as folder:
        for name in ("full", "mini"):
            tell = partial(_tell, console, started, name)
            result["models"][name] = measure_model(name, Path(folder), plan, device, tell)
        result["start"] = measure_start(Path(folder), plan.job_rounds)
    result["ratios"] = take_ratios(result["models"])
    result["missed"] = name_missed(result["ratios"])
    result["seconds"] = round(time.monotonic() - started, 1)
    write_result(result, options.out / "bench.json")
    written = json.loads((options.out / "bench.json").read_text(encoding="utf-8"))
    (options.out / "bench.html").write_text(render(written), encoding="utf-8")
    show(result, Console())
    return 0


def _tell(console: Console, started: float, name: str, line: str) -> None:
    console.print(f"[{time.monotonic() - started:4.0f} s] {name}: {line}", highlight=False)


def measure_model(name: str, folder: Path, plan: Plan, device: str, tell: Any) -> dict[str, Any]:
    """All arms of one model."""
    model = make_model(name, folder / f"model-{name}")
    archive = folder / f"archive-{name}"
    write_archive(archive, plan.arms_s[name])
    config = make_config(model, archive, folder / f"lake-{name}")
    loaded = load_block(config)
    vocabulary, grid = read_vocabulary(find_checkpoint(config.acoustic))
    waveforms = list_waveforms(loaded)
    windows = cut(waveforms, grid)
    own = choose_dtype("auto", device)
    arms: dict[str, Arm] = {}
    for dtype in dict.fromkeys(("float32", own)):
        arms[f"a {dtype}"] = make_pipeline_arm(model, waveforms, dtype, device)
        arms[f"b {dtype}"] = make_loop_arm(model, windows, dtype, device, grid)
        arms[f"c {dtype}"] = make_stage_arm(config_in(config, dtype), vocabulary, loaded)
    if device == "cuda":
        try:
            arms[f"c {own} compiled"] = make_stage_arm(config_in(config, own, compile=True), vocabulary, loaded, " compiled")
        except ConfigError as error:
            tell(f"without the compiled arm: {error}")
    if name == "mini" and (whisper := make_whisper_arm(waveforms, device)) is not None:
        arms["f"] = whisper
    seconds = alternate(arms, plan.rounds, lambda line: tell(f"arms, {line}"))
    audio_s = sum(map(len, waveforms)) / 16_000
    tokens = {f"c {dtype}": read_tokens(config_in(config, dtype), windows) for dtype in dict.fromkeys(("float32", own))}
    tokens |= {key: arm.run() for key, arm in arms.items() if key.startswith("b ")}
    agreement = {
        "ours against plain loop, float32": measure_agreement(tokens["c float32"], tokens["b float32"]),
        f"ours against plain loop, {own}": measure_agreement(tokens[f"c {own}"], tokens[f"b {own}"]),
        f"ours, float32 against {own}": measure_agreement(tokens["c float32"], tokens[f"c {own}"]),
        f"plain loop, float32 against {own}": measure_agreement(tokens["b float32"], tokens[f"b {own}"]),
    }
    tell("stages")
    result = {
        "model": describe_model(name),
        "own_dtype": own,
        "audio_s": audio_s,
        "arms": {
            key: {
                "name": arm.name,
                "dtype": arm.dtype,
                "seconds": seconds[key],
                "speed_x": audio_s / statistics.median(seconds[key]),
            }
            for key, arm in arms.items()
        },
        "frames_with_the_same_token": agreement,
        **measure_stages(config, plan.rounds),
        "overlap": overlap_share(config.windows.length_s, config.windows.overlap_s),
    }
    if name == "mini":
        emitted = Emit(config, vocabulary, os.cpu_count() or 1)(loaded)
        result["decoders"] = measure_decoders(config, loaded, emitted, plan.rounds)
        result["waiting"] = measure_waiting(config, vocabulary, 3)
    if name in plan.jobs_s:
        result["jobs"] = measure_jobs(model, folder / f"jobs-{name}", plan.jobs_s[name], plan.job_rounds, tell)
    return result


def config_in(config: Any, dtype: str, **acoustic: Any) -> Any:
    return config.model_copy(update={"acoustic": config.acoustic.model_copy(update={"dtype": dtype, **acoustic})})


def describe_model(name: str) -> str:
    return "MedASR's dimensions, random weights" if name == "full" else "medasr-mini, embedded"


def overlap_share(length_s: float, overlap_s: float) -> float:
    """The share of a long recording that is computed twice."""
    return overlap_s / (length_s - overlap_s)


def take_ratios(models: Mapping[str, Any]) -> dict[str, Any]:
    """The ratios of each turn, at full size; decoding is compared on the emissions of mini."""
    full = models["full"]
    own = full["own_dtype"]

    def against(other: str, mine: str) -> list[float]:
        pairs = zip(full["arms"][other]["seconds"], full["arms"][mine]["seconds"], strict=True)
        return [theirs / ours for theirs, ours in pairs]

    stage_x = full["arms"][f"c {own}"]["speed_x"]
    jobs, decoders = full["jobs"]["speed_x"], models["mini"]["decoders"]["ratios"]
    return {
        "acoustic_vs_hf_pipeline": as_ratio(against("a float32", f"c {own}"), of=f"full; ours in {own}, theirs in float32"),
        "acoustic_vs_plain_loop": as_ratio(against(f"b {own}", f"c {own}"), of=f"full; both in {own}"),
        "job_vs_acoustic": as_ratio([speed / stage_x for speed in jobs["job, greedy"]], of=f"full, {own}"),
        "lm_vs_greedy": as_ratio(
            [lm / greedy for lm, greedy in zip(jobs["job, with LM"], jobs["job, greedy"], strict=True)], of=f"full, {own}"
        ),
        "decode_vs_pyctcdecode": as_ratio(decoders["pyctcdecode"], of="emissions of mini, one core, beam 8"),
        "decode_vs_pyctcdecode_on_all_frames": as_ratio(
            decoders["pyctcdecode, all frames"], of="the same, pyctcdecode given every frame of the model"
        ),
        "acoustic_vs_hf_pipeline_float32": as_ratio(against("a float32", "c float32"), of="full; both in float32"),
        "acoustic_vs_plain_loop_float32": as_ratio(against("b float32", "c float32"), of="full; both in float32"),
    }


def name_missed(ratios: Mapping[str, Any]) -> list[str]:
    """A sentence for each target that the median misses."""
    return [
        f"{name}: {ratios[name]['median']:.2f}, wanted {target:g}"
        for name, target in TARGETS.items()
        if ratios[name]["median"] < target
    ]


def show(result: Mapping[str, Any], console: Console) -> None:
    """Prints two tables: the speeds, and the ratios with their targets."""
    speeds = Table("model", "arm", "dtype", "× real time", title=f"speed on this machine ({result['device']})")
    for model in result["models"].values():
        for arm in model["arms"].values():
            speeds.add_row(model["model"], arm["name"], arm["dtype"], f"{arm['speed_x']:,.0f}")
        for kind, values in model.get("jobs", {}).get("speed_x", {}).items():
            speeds.add_row(model["model"], f"our {kind}", model["own_dtype"], f"{statistics.median(values):,.0f}")
    console.print(speeds)
    differences = result["start"]["difference_s"]
    console.print(f"start to first row: {statistics.median(differences):.1f} s more than bare Ray", highlight=False)
    ratios = Table("ratio", "median", "min – max", "runs", "target", title="ratios")
    for name, ratio in result["ratios"].items():
        wanted = f"≥ {TARGETS[name]:g}" if name in TARGETS else ""
        ratios.add_row(name, f"{ratio['median']:.2f}", f"{ratio['min']:.2f} – {ratio['max']:.2f}", str(ratio["runs"]), wanted)
    console.print(ratios)
    for line in result["missed"]:
        console.print(f"missed: {line}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
