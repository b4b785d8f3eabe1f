"""Simulates ten million recordings on 1 to 64 GPUs from measured figures: how fast they are, and what the bottleneck is.

    python -m jobs.benchmarks simulate --out sim --measured infra/benchmarks/bench.json --driver infra/benchmarks/driver.json

The CPU stages come from --measured (model full, decoding on the emissions of mini), and the driver's figures from --driver. The
speed of a GPU is stated with --gpu-speed in audio seconds a second, unless --measured was written on a GPU. Options state all
other figures that were not measured, and the result lists them. Blocks, commits and actors a GPU come from --config (default
medasr); keys such as --ray.block_audio_s change them. Lengths are log-normal, median 45 s: dictations are short, and a few are
very long.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dictalake.cli.options import CommandParser, make_parser, read_config
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.evaluation.tuning_page import render_page
from dictalake.html import BLUE, GREY, drawing, to_svg
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.simulation import Cluster, Costs, Outcome, cut_blocks, draw_lengths, simulate
from jobs.benchmarks.sizing import write_sizing

GPUS = (1, 2, 4, 8, 16, 32, 64)
CPUS_PER_GPU = (8, 16, 24)
_USUAL, _MOST = 16, 64  # CPUs a GPU, and GPUs, for the table of what would help
_BLOCK_S, _PLAN_S = 0.02, 5e-5  # without --driver
FASTER_GPUS = (25_000, 45_000)  # × real time, for which the same changes are tried
GPUS_PER_RUNNER = 2  # as ray.runners: auto has it
_HEADER = ("GPUs", "CPUs", "hours", "audio-hours an hour", "$ per 1,000 audio-hours", "GPU busy", "while at work", "bound by")


def main(argv: list[str] | None = None) -> int:
    options = _make_parser().parse(argv)
    if options.runners is not None and options.runners < 1:
        raise ConfigError(f"--runners {options.runners}: must be at least 1")
    for name in ("recordings", "median_s", "gpu_speed", "listing_per_s", "bytes_per_audio_s", "node_gbit_s"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(options, name):g}: must be more than 0")
    config = read_config(options, default="medasr")
    measured = read_measured(options.measured)
    costs = make_costs(measured, read_driver(options.driver), options)
    lengths = draw_lengths(options.recordings, options.median_s, options.sigma)
    audio_s, rows = _cut(lengths, config, options)
    actors = count_actors(config)
    results = []
    for per_gpu in CPUS_PER_GPU:
        for gpus in GPUS:
            cluster = replace(share_cpus(gpus, per_gpu, costs, actors), is_streamed=not options.listed_first)
            cluster = replace(cluster, runners=count_runners(gpus, costs, options))
            outcome = simulate(audio_s, rows, costs, cluster, config.lake.commit_every_s)
            results.append(describe(outcome, cluster, per_gpu, options))
    helps = try_out(lengths, config, costs, options)
    faster = {
        f"{speed:,}": try_out(lengths, config, replace(costs, encode_s_per_audio_s=1 / speed), options) for speed in FASTER_GPUS
    }
    show(results, helps, Console())
    result = {
        "bench": "simulate",
        "measured_on": measured.get("machine"),
        "gpu_measured": measured.get("device") == "cuda",
        "driver_measured": options.driver is not None,
        "stated": _list_stated(measured, options),
        "configured": _list_configured(config, actors),
        "costs": asdict(costs),
        "audio_hours": round(float(lengths.sum()) / 3600),
        "blocks": len(audio_s),
        "results": results,
        "what_would_help": helps,
        "faster_gpus": faster,
    }
    write_result(result, options.out / "simulate.json")
    (options.out / "simulate.html").write_text(render(results, helps, result), encoding="utf-8")
    write_sizing(result, options.out / "sizing.md")
    return 0


def _make_parser() -> CommandParser:
    parser = make_parser("bench simulate", __doc__ or "")
    parser.add_argument("--out", type=Path, required=True, help="folder for simulate.json, simulate.html and sizing.md")
    parser.add_argument("--measured", type=Path, required=True, help="bench.json of python -m jobs.benchmarks --out")
    parser.add_argument(
        "--driver", type=Path, help="driver.json of python -m jobs.benchmarks driver; without: --block-s, --plan-s"
    )
    parser.add_argument("--recordings", type=int, default=10_000_000)
    parser.add_argument("--median-s", type=float, default=45.0, help="median length of a recording")
    parser.add_argument("--sigma", type=float, default=1.0, help="of the log-normal; 1.0: mean 74 s")
    parser.add_argument("--gpu-speed", type=float, default=15_000.0, help="audio seconds a second that one GPU encodes; stated")
    parser.add_argument("--block-s", type=float, help=f"driver seconds a block; without --driver {_BLOCK_S:g}, stated")
    parser.add_argument(
        "--plan-s", type=float, help=f"driver seconds to plan a recording; without --driver {_PLAN_S:g}, stated"
    )
    parser.add_argument("--runners", type=int, help="runners of a run; without: one for 2 GPUs, as ray.runners: auto")
    parser.add_argument("--report-s", type=float, default=1e-3, help="driver seconds a block with runners; see driver.json")
    parser.add_argument("--runner-block-s", type=float, default=3e-2, help="runner seconds a block; see driver.json")
    parser.add_argument(
        "--checkpoint-s-per-file", type=float, default=2e-5, help="seconds of a checkpoint for each file of the table"
    )
    parser.add_argument("--commit-s", type=float, default=1.0, help="seconds of a commit on object storage; stated")
    parser.add_argument("--row-s", type=float, default=2e-5, help="seconds of a commit for each row in it; stated")
    parser.add_argument(
        "--listed-first", action="store_true", help="work begins when all is listed, as in a folder that a lake knows already"
    )
    parser.add_argument("--listing-per-s", type=float, default=5_000.0, help="objects listed a second; stated")
    parser.add_argument("--bytes-per-audio-s", type=float, default=32_000.0, help="stored bytes: 16 kHz, 16 bits")
    parser.add_argument("--node-gbit-s", type=float, default=50.0, help="network of a node of 8 GPUs; stated")
    parser.add_argument("--gpu-price", type=float, default=3.00, help="dollars an hour of a GPU; stated, not quoted")
    parser.add_argument("--cpu-price", type=float, default=0.04, help="dollars an hour of a CPU core; stated, not quoted")
    return parser


def read_measured(path: Path) -> dict[str, Any]:
    """Raises ConfigError for a file that ``python -m jobs.benchmarks --out`` did not write."""
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        for name in ("full", "mini"):
            model = measured["models"][name]
            for stage in ("load", "decode", "write"):
                float(model["stages"][stage]["s_per_audio_s"])
            for part in ("features", "encoder"):
                float(model["inside_emit"][f"{part}_s_per_audio_s"])
        float(measured["models"]["mini"]["waiting"]["waits_s_per_audio_s"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"--measured {path}: is not a bench.json; python -m jobs.benchmarks --out DIR writes one") from None
    return dict(measured)


def read_driver(path: Path | None) -> dict[str, float]:
    """``s_per_block`` and ``plan_s_per_row``, and with runners ``report_s`` and ``runner_block_s``; without a file the stated
    ones. Raises ConfigError."""
    if path is None:
        return {"s_per_block": _BLOCK_S, "plan_s_per_row": _PLAN_S}
    try:
        driver = json.loads(path.read_text(encoding="utf-8"))
        found = {name: float(driver[name]) for name in ("s_per_block", "plan_s_per_row")}
        if flows := [one for one in driver.get("flows", ()) if one["runners"] > 1]:
            found |= {"report_s": float(driver["report_s"]), "runner_block_s": max(float(one["runners_s"]) for one in flows)}
        return found
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"--driver {path}: is not a driver.json; python -m jobs.benchmarks driver --out FILE writes one"
        ) from None


def make_costs(measured: dict[str, Any], driver: dict[str, float], options: argparse.Namespace) -> Costs:
    """The measured costs of the CPU stages. Loading also works in a child process, so its wall time counts."""
    full, mini = (measured["models"][name]["stages"] for name in ("full", "mini"))
    inside, waiting = measured["models"]["full"]["inside_emit"], measured["models"]["mini"]["waiting"]
    encode = 1 / options.gpu_speed
    if measured.get("device") == "cuda":
        encode = inside["features_s_per_audio_s"] + inside["encoder_s_per_audio_s"]
    return Costs(
        load_s_per_audio_s=full["load"]["s_per_audio_s"],
        encode_s_per_audio_s=encode,
        emit_host_s_per_audio_s=waiting["waits_s_per_audio_s"],
        decode_s_per_audio_s=mini["decode"]["s_per_audio_s"],
        write_s_per_audio_s=full["write"]["s_per_audio_s"],
        block_s=driver["s_per_block"] if options.block_s is None else options.block_s,
        commit_s=options.commit_s,
        row_s=options.row_s,
        listing_per_s=options.listing_per_s,
        plan_s_per_row=driver["plan_s_per_row"] if options.plan_s is None else options.plan_s,
        bytes_per_audio_s=options.bytes_per_audio_s,
        node_bytes_per_s=options.node_gbit_s * 1e9 / 8,
        report_s=driver.get("report_s", options.report_s),
        runner_block_s=driver.get("runner_block_s", options.runner_block_s),
        checkpoint_s_per_file=options.checkpoint_s_per_file,
    )


def count_runners(gpus: int, costs: Costs, options: argparse.Namespace) -> int:
    """As ``ray.runners`` would have it, or as --runners says."""
    return int(options.runners) if options.runners else max(1, math.ceil(gpus / GPUS_PER_RUNNER))


def count_actors(config: Config) -> int:
    """Model copies on one GPU."""
    return max(1, int(1 / config.acoustic.gpus_per_actor + 1e-9))


def share_cpus(gpus: int, per_gpu: int, costs: Costs, actors: int = 1) -> Cluster:
    """Gives each actor a core, and divides the others among load, decode and write in proportion to their costs.

    Ray does this with tasks; ``decoding.actors`` should be set to the result. Raises ConfigError if there is no core for each.
    """
    left = gpus * (per_gpu - actors)
    if left < 3:
        raise ConfigError(f"acoustic.gpus_per_actor: {actors} actors a GPU leave {left} of {per_gpu} CPUs; three are needed")
    work = np.array([costs.load_s_per_audio_s, costs.decode_s_per_audio_s, costs.write_s_per_audio_s])
    cores = np.ones(3, dtype=int)
    while cores.sum() < left:  # the next core to the stage that needs it most
        cores[np.argmax(work / cores)] += 1
    load, decode, write = cores.tolist()
    return Cluster(gpus, load, decode, write, actors_per_gpu=actors)


def _cut(lengths: np.ndarray, config: Config, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Cuts blocks as a run does: by recordings, by stored bytes and by loaded audio."""
    most_s = min(config.ray.block_audio_s, config.ray.block_mb * 1e6 / options.bytes_per_audio_s)
    return cut_blocks(lengths, most_s, config.ray.block_rows)


def try_out(lengths: np.ndarray, config: Config, costs: Costs, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The effect of some changes on the largest cluster, each added to those before."""
    larger = {name: getattr(config.ray, name) * 4 for name in ("block_audio_s", "block_mb", "block_rows")}
    blocks, wider = _cut(lengths, config, options), config.model_copy(update={"ray": config.ray.model_copy(update=larger)})
    runners, per_gpu, actors = count_runners(_MOST, costs, options), find_cpus(costs), count_actors(config)
    cluster, results = share_cpus(_MOST, per_gpu, costs, actors), []

    def add(change: str) -> None:
        outcome = simulate(*blocks, costs, cluster, config.lake.commit_every_s)
        results.append({"change": change, "refused": outcome.refused, **describe(outcome, cluster, per_gpu, options)})

    add("one runner (`ray.runners: 1`) and the listing before the work, as in 0.1")
    cluster = replace(cluster, runners=runners)
    add(f"{runners} runners")
    cluster = replace(cluster, is_streamed=True)
    add("and work while the archive is listed: as it is now")
    cluster = replace(share_cpus(_MOST, per_gpu, costs, 2 * actors), runners=runners, is_streamed=True)
    add("and two actors a GPU (`acoustic.gpus_per_actor: 0.5`)")
    costs = replace(costs, listing_per_s=10 * costs.listing_per_s)
    add("and ten times as many objects listed a second (`archive.inventory`)")
    blocks = _cut(lengths, wider, options)
    add("and blocks four times as large (`ray.block_audio_s`, `.block_mb`, `.block_rows`)")
    return results


def find_cpus(costs: Costs) -> int:
    """CPUs for a GPU, in steps of 8, so that its stages keep up with it."""
    work = costs.load_s_per_audio_s + costs.decode_s_per_audio_s + costs.write_s_per_audio_s
    return max(_USUAL, 8 * math.ceil((1.1 * work / costs.encode_s_per_audio_s + 2) / 8))


def describe(outcome: Outcome, cluster: Cluster, per_gpu: int, options: argparse.Namespace) -> dict[str, Any]:
    price = cluster.gpus * (options.gpu_price + per_gpu * options.cpu_price)
    return {
        "gpus": cluster.gpus,
        "cpus": cluster.gpus * per_gpu,
        "decoding_actors": cluster.decode,
        "hours": round(outcome.seconds / 3600, 3),
        "audio_hours_an_hour": round(outcome.speed),
        "dollars_per_1000_audio_hours": round(1000 * price / outcome.speed, 3),
        "bound": outcome.bound,
        "busy": {name: round(share, 3) for name, share in outcome.busy.items()},
        "runners": cluster.runners,
        "gpu_busy_while_working": round(outcome.busy["gpu"] * outcome.seconds / outcome.working_s, 3),
    }


def _list_stated(measured: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The options that were not measured."""
    left_out = {"config", "job_name", "out", "measured", "driver"} | (
        {"gpu_speed"} if measured.get("device") == "cuda" else set()
    )
    stated = {key: value for key, value in vars(options).items() if key not in left_out and value is not None}
    return stated if options.driver else {"block_s": _BLOCK_S, "plan_s": _PLAN_S} | stated


def _list_configured(config: Config, actors: int) -> dict[str, float]:
    ray = {f"ray.{name}": getattr(config.ray, name) for name in ("block_audio_s", "block_mb", "block_rows")}
    return {**ray, "lake.commit_every_s": config.lake.commit_every_s, "actors_per_gpu": actors}


def show(results: Sequence[dict[str, Any]], helps: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="simulated")
    for name in _HEADER[:-1]:
        table.add_column(name, justify="right")
    table.add_column(_HEADER[-1])
    for one in results:
        table.add_row(*_cells(one))
    console.print(table)
    table = Table("change", *_HEADER[3:], title=f"what would help with {_MOST} GPUs and {_USUAL} CPUs each")
    for one in helps:
        table.add_row(one["change"], *_cells(one)[3:])
    console.print(table)


def _cells(one: dict[str, Any]) -> list[str]:
    return [
        str(one["gpus"]),
        str(one["cpus"]),
        f"{one['hours']:.2f}",
        f"{one['audio_hours_an_hour']:,}",
        f"{one['dollars_per_1000_audio_hours']:.2f}",
        f"{100 * one['busy']['gpu']:.0f} %",
        f"{100 * one['gpu_busy_while_working']:.0f} %",
        f"{one['bound']} ({100 * one['busy'][one['bound']]:.0f} %)",
    ]


def render(results: Sequence[dict[str, Any]], helps: Sequence[dict[str, Any]], result: dict[str, Any]) -> str:
    """The page: speed and GPU use by number of GPUs for each ratio, and the tables."""
    with drawing(9.4, 4) as figure:
        speed, busy = figure.subplots(1, 2)
        for per_gpu, style in zip(CPUS_PER_GPU, (":", "-", "--"), strict=True):
            mine = [one for one in results if one["cpus"] == per_gpu * one["gpus"]]
            label = f"{per_gpu} CPUs a GPU"
            speed.plot(GPUS, [one["audio_hours_an_hour"] for one in mine], style, color=BLUE, marker="o", label=label)
            busy.plot(GPUS, [100 * one["busy"]["gpu"] for one in mine], style, color=BLUE, marker="o")
            for one in mine if per_gpu == _USUAL else ():
                busy.annotate(
                    one["bound"], (one["gpus"], 100 * one["busy"]["gpu"]), (3, 6), textcoords="offset points", fontsize=8
                )
        ideal = 1 / result["costs"]["encode_s_per_audio_s"]
        speed.plot(GPUS, [gpus * ideal for gpus in GPUS], color=GREY, linewidth=1, label="GPUs alone")
        speed.set_yscale("log")
        speed.set(ylabel="audio-hours an hour")
        speed.legend(frameon=False)
        busy.set(ylabel=f"GPU busy, %, and what bounds ({_USUAL} CPUs a GPU)", ylim=(0, 105))
        for axes in (speed, busy):
            axes.set_xscale("log", base=2)
            axes.set_xticks(GPUS, [str(gpus) for gpus in GPUS])
            axes.set(xlabel="GPUs")
        picture = to_svg(figure, "Audio-hours an hour, and how busy GPUs are, over their number")
    tables = [
        ("Simulated", _HEADER, [_cells(one) for one in results]),
        (f"What would help with {_MOST} GPUs", ("change", *_HEADER[3:]), [[one["change"], *_cells(one)[3:]] for one in helps]),
        ("Stated, not measured", ("", ""), [[name, str(value)] for name, value in result["stated"].items()]),
        ("Configured", ("", ""), [[name, str(value)] for name, value in result["configured"].items()]),
    ]
    return render_page("python -m jobs.benchmarks simulate", tables, [("Audio-hours an hour, and how busy GPUs are", picture)])


if __name__ == "__main__":
    sys.exit(main())
