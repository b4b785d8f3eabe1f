"""The figures of ``python -m jobs.benchmarks`` as one HTML page with bars, without script or network."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dictalake.evaluation.tuning_page import render_page
from dictalake.html import BLUE, GREY, drawing, to_svg


def render(result: Mapping[str, Any]) -> str:
    """The page for a ``bench.json``."""
    machine = result["machine"]
    title = (
        f"python -m jobs.benchmarks: {machine['processor']}, {machine['cores']} cores, {result['device']}, {machine['at'][:10]}"
    )
    ratios = [
        [name, f"{one['median']:.2f}", f"{one['min']:.2f} – {one['max']:.2f}", str(one["runs"]), one["of"]]
        for name, one in result["ratios"].items()
    ]
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("Ratios, turn against turn", ("ratio", "median", "least – most", "runs", "of"), ratios)
    ]
    pictures = []
    for model in result["models"].values():
        pictures.append((f"{model['model']}: × real time", draw_speeds(model)))
        stages = [
            [
                name,
                f"{1e3 * one['s_per_audio_s']:.3f}",
                f"{100 * one['share']:.1f} %",
                f"{one['cpus_busy']:.2f}",
                f"{one['gpu_busy']:.2f}" if "gpu_busy" in one else "–",
                f"{one['bytes_out_per_audio_s']:,.0f}",
            ]
            for name, one in model["stages"].items()
        ]
        inside = [
            [name.removesuffix("_s_per_audio_s"), f"{1e3 * value:.3f}"]
            for name, value in model["inside_emit"].items()
            if name.endswith("_s_per_audio_s")
        ]
        inside.append(["bytes to the host", f"{model['inside_emit']['bytes_to_host_per_audio_s']:,.0f}"])
        agreement = [[name, f"{100 * share:.2f} %"] for name, share in model["frames_with_the_same_token"].items()]
        header = ("stage", "ms a second of audio", "share", "CPUs busy", "GPU busy", "bytes out a second of audio")
        tables.append((f"{model['model']}: stages, one after the other", header, stages))
        tables.append((f"{model['model']}: inside emit", ("part", "ms a second of audio; bytes"), inside))
        tables.append((f"{model['model']}: frames with the same token", ("", ""), agreement))
    return render_page(title, tables, pictures)


def draw_speeds(model: Mapping[str, Any]) -> Markup:
    """A bar for each arm, ours in blue."""
    bars = [(f"{arm['name']}, {arm['dtype']}", arm["speed_x"]) for arm in model["arms"].values()]
    for kind, values in model.get("jobs", {}).get("speed_x", {}).items():
        bars.append((f"our {kind}, {model['own_dtype']}", statistics.median(values)))
    names, speeds = [name for name, _ in bars], [speed for _, speed in bars]
    with drawing(9.4, 0.35 * len(bars) + 0.6) as figure:
        axes = figure.subplots()
        drawn = axes.barh(names, speeds, color=[BLUE if name.startswith("our") else GREY for name in names])
        axes.bar_label(drawn, [f"{speed:,.0f}×" for speed in speeds], padding=4)
        axes.invert_yaxis()
        axes.set(xlabel="× real time")
        axes.set_xlim(0, 1.12 * max(speeds))
        return to_svg(figure, f"Speed of each arm: {', '.join(f'{name} {speed:.0f}' for name, speed in bars)}")
