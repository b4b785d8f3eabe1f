"""Ten million recordings on 1 to 64 GPUs, simulated from what was measured: how fast, and what it is that holds it up.

    dictalake bench simulate --out sim --measured infra/benchmarks/bench.json --gpu-speed 15000

Stages of CPUs are those of --measured (model full, decoding on the emissions of mini); what a GPU does is stated by --gpu-speed
in audio seconds a second unless --measured was written on one. All else that is stated and not measured stands in the options
and is written beside the result. Lengths are log-normal, median 45 s: dictations are short, and a few are very long.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.bench import write_result
from pipelines.errors import ConfigError
from pipelines.pages import BLUE, GREY, drawing, to_svg
from pipelines.scaling import Cluster, Costs, Outcome, cut_blocks, draw_lengths, simulate
from pipelines.scoring.tuning_page import render_page

GPUS = (1, 2, 4, 8, 16, 32, 64)
CPUS_PER_GPU = (8, 16, 24)
_BLOCK_AUDIO_S, _BLOCK_ROWS = 1800.0, 64  # ray.block_audio_s, ray.block_rows


def main(argv: list[str] | None = None) -> int:
    options = _make_parser().parse_args(argv)
    measured = read_measured(options.measured)
    costs = make_costs(measured, options)
    lengths = draw_lengths(options.recordings, options.median_s, options.sigma)
    audio_s, rows = cut_blocks(lengths, _BLOCK_AUDIO_S, _BLOCK_ROWS)
    results = []
    for per_gpu in CPUS_PER_GPU:
        for gpus in GPUS:
            cluster = share_cpus(gpus, per_gpu, costs)
            outcome = simulate(audio_s, rows, costs, cluster)
            results.append(describe(outcome, cluster, per_gpu, options))
    show(results, Console())
    stated = {key: value for key, value in vars(options).items() if key not in ("out", "measured")}
    result = {
        "bench": "simulate",
        "measured_on": measured.get("machine"),
        "stated": stated,
        "costs": asdict(costs),
        "audio_hours": round(float(lengths.sum()) / 3600),
        "blocks": len(audio_s),
        "results": results,
    }
    write_result(result, options.out / "simulate.json")
    (options.out / "simulate.html").write_text(render(results, result), encoding="utf-8")
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dictalake bench simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for simulate.json and simulate.html")
    parser.add_argument("--measured", type=Path, required=True, help="bench.json of dictalake bench --out")
    parser.add_argument("--recordings", type=int, default=10_000_000)
    parser.add_argument("--median-s", type=float, default=45.0, help="median length of a recording")
    parser.add_argument("--sigma", type=float, default=1.0, help="of the log-normal; 1.0: mean 74 s")
    parser.add_argument("--gpu-speed", type=float, default=15_000.0, help="audio seconds a second that one GPU encodes; stated")
    parser.add_argument("--block-s", type=float, default=0.02, help="driver seconds a block; stated")
    parser.add_argument("--commit-s", type=float, default=1.0, help="seconds of a commit on object storage; stated")
    parser.add_argument("--row-s", type=float, default=2e-5, help="seconds of a commit for each row in it; stated")
    parser.add_argument("--listing-per-s", type=float, default=5_000.0, help="objects listed a second; stated")
    parser.add_argument("--bytes-per-audio-s", type=float, default=32_000.0, help="stored bytes: 16 kHz, 16 bits")
    parser.add_argument("--node-gbit-s", type=float, default=50.0, help="network of a node of 8 GPUs; stated")
    parser.add_argument("--gpu-price", type=float, default=3.00, help="dollars an hour of a GPU; stated, not quoted")
    parser.add_argument("--cpu-price", type=float, default=0.04, help="dollars an hour of a CPU core; stated, not quoted")
    return parser


def read_measured(path: Path) -> dict[str, Any]:
    """Raises ConfigError for a file that ``dictalake bench --out`` did not write."""
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        measured["models"]["full"]["stages"]["load"]["s_per_audio_s"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"--measured {path}: is not a bench.json; dictalake bench --out DIR writes one") from None
    return dict(measured)


def make_costs(measured: dict[str, Any], options: argparse.Namespace) -> Costs:
    """CPU stages as measured; loading in its child too, which is why its wall time counts and not its processor time."""
    full, mini = (measured["models"][name]["stages"] for name in ("full", "mini"))
    encode = 1 / options.gpu_speed
    if measured.get("device") == "cuda":
        encode = full["emit"]["s_per_audio_s"]
    return Costs(
        load_s_per_audio_s=full["load"]["s_per_audio_s"],
        encode_s_per_audio_s=encode,
        decode_s_per_audio_s=mini["decode"]["s_per_audio_s"],
        write_s_per_audio_s=full["write"]["s_per_audio_s"],
        block_s=options.block_s,
        commit_s=options.commit_s,
        row_s=options.row_s,
        listing_per_s=options.listing_per_s,
        bytes_per_audio_s=options.bytes_per_audio_s,
        node_bytes_per_s=options.node_gbit_s * 1e9 / 8,
    )


def share_cpus(gpus: int, per_gpu: int, costs: Costs) -> Cluster:
    """A core of each GPU's drives it; the others are shared by load, decode and write as their costs are to each other, which
    is what Ray does with tasks, and ``decoding.actors`` is to be set to."""
    work = (costs.load_s_per_audio_s, costs.decode_s_per_audio_s, costs.write_s_per_audio_s)
    load, decode, write = (share / sum(work) * (per_gpu - 1) for share in work)
    return Cluster(gpus, load_per_gpu=load, decode_per_gpu=decode, write_per_gpu=write)


def describe(outcome: Outcome, cluster: Cluster, per_gpu: int, options: argparse.Namespace) -> dict[str, Any]:
    price = cluster.gpus * (options.gpu_price + per_gpu * options.cpu_price)
    return {
        "gpus": cluster.gpus,
        "cpus": cluster.gpus * per_gpu,
        "hours": round(outcome.seconds / 3600, 3),
        "audio_hours_an_hour": round(outcome.speed),
        "dollars_per_1000_audio_hours": round(1000 * price / outcome.speed, 3),
        "bound": outcome.bound,
        "busy": {name: round(share, 3) for name, share in outcome.busy.items()},
    }


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="simulated")
    for name in ("GPUs", "CPUs", "hours", "audio-hours an hour", "$ per 1,000 audio-hours", "GPU busy"):
        table.add_column(name, justify="right")
    table.add_column("bound by")
    for row in _cells(results):
        table.add_row(*row)
    console.print(table)


def _cells(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            str(one["gpus"]),
            str(one["cpus"]),
            f"{one['hours']:.2f}",
            f"{one['audio_hours_an_hour']:,}",
            f"{one['dollars_per_1000_audio_hours']:.2f}",
            f"{100 * one['busy']['gpu']:.0f} %",
            f"{one['bound']} ({100 * one['busy'][one['bound']]:.0f} %)",
        ]
        for one in results
    ]


def render(results: Sequence[dict[str, Any]], result: dict[str, Any]) -> str:
    """Speed over GPUs for each ratio, and the table."""
    with drawing(9.4, 4) as figure:
        axes = figure.subplots()
        for per_gpu, style in zip(CPUS_PER_GPU, (":", "-", "--"), strict=True):
            mine = [one for one in results if one["cpus"] == per_gpu * one["gpus"]]
            gpus, speeds = [one["gpus"] for one in mine], [one["audio_hours_an_hour"] for one in mine]
            axes.plot(gpus, speeds, style, color=BLUE, marker="o", label=f"{per_gpu} CPUs a GPU")
        ideal = 1 / result["costs"]["encode_s_per_audio_s"]
        axes.plot(GPUS, [gpus * ideal for gpus in GPUS], color=GREY, linewidth=1, label="GPUs alone")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(GPUS, [str(gpus) for gpus in GPUS])
        axes.set(xlabel="GPUs", ylabel="audio-hours an hour")
        axes.legend(frameon=False)
        picture = to_svg(figure, "Audio-hours an hour over the number of GPUs")
    header = ("GPUs", "CPUs", "hours", "audio-hours an hour", "$ per 1,000 audio-hours", "GPU busy", "bound by")
    stated = [[name, str(value)] for name, value in result["stated"].items()]
    tables = [("Simulated", header, _cells(results)), ("Stated, not measured", ("", ""), stated)]
    return render_page("dictalake bench simulate", tables, [("Audio-hours an hour", picture)])


if __name__ == "__main__":
    sys.exit(main())
