"""Writes the sizing table and its explanation from one run of ``python -m jobs.benchmarks simulate``, with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SIZES = (1, 4, 8, 16, 64)
CPUS_PER_GPU = 16
_HEADER = (
    "| GPUs | CPUs | of these `decoding.actors` | audio-hours an hour | GPU busy | while at work | $ per 1,000 audio-hours "
    "| bound by |"
)


def write_sizing(result: Mapping[str, Any], path: Path) -> None:
    """``result`` as in simulate.json. Markdown, for a README."""
    chosen = [one for one in result["results"] if one["gpus"] in SIZES and one["cpus"] == CPUS_PER_GPU * one["gpus"]]
    lines = [
        _say_what_it_is(result),
        "",
        _HEADER,
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *map(_make_row, chosen),
        "",
        _say_what_feeds_a_gpu(result),
        "",
        _say_where_it_stops(result),
        "",
        f"What each change gives {result['what_would_help'][0]['gpus']} GPUs, on top of those above it:",
        "",
        *_tabulate_changes(result["what_would_help"]),
    ]
    for speed, changes in result["faster_gpus"].items():
        lines += ["", f"The same with GPUs of {speed} ×, {changes[0]['cpus'] // changes[0]['gpus']} CPUs each:", ""]
        lines += _tabulate_changes(changes)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _tabulate_changes(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        f"| {one['change']} | {one['audio_hours_an_hour']:,} | {_percent(one['busy']['gpu'])} "
        f"| {_percent(one['gpu_busy_while_working'])} | {one['dollars_per_1000_audio_hours']:.2f} | {_bound(one)} |"
        for one in changes
    ]
    header = "| change | audio-hours an hour | GPU busy | while at work | $ per 1,000 audio-hours | bound by |"
    return [header, "| --- | --- | --- | --- | --- | --- |", *rows]


def _say_what_it_is(result: Mapping[str, Any]) -> str:
    stated, machine = result["stated"], result["measured_on"] or {}
    speed = 1 / result["costs"]["encode_s_per_audio_s"]
    of_gpu = (
        f"GPUs measured at {speed:,.0f} × real time"
        if result["gpu_measured"]
        else (
            f"GPUs that encode {speed:,.0f} × real time, which is **projected, not measured**: an H100's full bf16 rate "
            "would be 139,000 ×, the memory traffic of eager execution bounds it near 37,000 ×, and no run on one has been made"
        )
    )
    driver = "measured" if result["driver_measured"] else "stated"
    return (
        f"`python -m jobs.benchmarks simulate` sends {stated['recordings']:,} recordings "
        f"({result['audio_hours']:,} audio hours, "
        f"log-normal, median {stated['median_s']:g} s) through stages of CPUs as measured on {machine.get('cores', '?')} cores "
        f"of {machine.get('processor', 'an unnamed processor')}, a driver of {1000 * result['costs']['block_s']:.0f} ms a "
        f"block ({driver}) and {of_gpu}. Prices are stated, not quoted: {stated['gpu_price']:.2f} $ an hour for a GPU, "
        f"{stated['cpu_price']:.2f} $ for a core. So are {stated['listing_per_s']:,.0f} objects listed a second, "
        f"{stated['commit_s']:g} s a commit and {stated['node_gbit_s']:g} Gbit/s for a node of 8 GPUs. *emit* is a GPU and its "
        "actors in turns, *gpu* the GPU alone, *driver* the process that hands out blocks."
    )


def _say_what_feeds_a_gpu(result: Mapping[str, Any]) -> str:
    costs, actors = result["costs"], result["configured"]["actors_per_gpu"]
    gpu, host = costs["encode_s_per_audio_s"], costs["emit_host_s_per_audio_s"]
    work = costs["load_s_per_audio_s"] + costs["decode_s_per_audio_s"] + costs["write_s_per_audio_s"]
    speeds = {count: 1 / max(gpu, (gpu + host) / count) for count in (actors, 2)}
    cores = {count: speed * work + count for count, speed in speeds.items()}
    decoded = {cpus: cpus // 4 / costs["decode_s_per_audio_s"] for cpus in (8, 16)}  # as decoding.actors: auto has it
    return (
        f"Loading, decoding and writing take {1000 * work:.2f} ms of a core for a second of audio. An actor fuses and thins "
        "out what its GPU gave while the GPU goes on, and keeps it waiting "
        f"{1000 * host:.3f} ms a second of audio, mostly at the end of a block (measured with a device that sleeps in place "
        f"of a GPU; Ray between two blocks is not in it). So a GPU with {actors} "
        f"{'actor' if actors == 1 else 'actors'} gets to {speeds[actors]:,.0f} × and needs {cores[actors]:.1f} cores; with two "
        f"(`acoustic.gpus_per_actor: 0.5`) it would get to {speeds[2]:,.0f} × and need {cores[2]:.1f}. "
        f"`decoding.actors: auto`, one for 4 CPUs, decodes {decoded[8]:,.0f} × with 8 CPUs a GPU and {decoded[16]:,.0f} × with "
        "16; above that, set it as in the table."
    )


def _say_where_it_stops(result: Mapping[str, Any]) -> str:
    costs, rows = result["costs"], result["stated"]["recordings"]
    gpu, actors = costs["encode_s_per_audio_s"], result["configured"]["actors_per_gpu"]
    speed = 1 / max(gpu, (gpu + costs["emit_host_s_per_audio_s"]) / actors)
    block_audio_s = 3600 * result["audio_hours"] / result["blocks"]
    listing_s, planning_s = rows / costs["listing_per_s"], rows * costs["plan_s_per_row"]
    driver = block_audio_s / costs["block_s"] if costs["block_s"] else float("inf")
    runner = block_audio_s / costs["runner_block_s"] if costs["runner_block_s"] else float("inf")
    report = block_audio_s / costs["report_s"] if costs["report_s"] else float("inf")
    return (
        f"**Where it stops.** A block is {block_audio_s:,.0f} s of audio in {rows / result['blocks']:.0f} recordings. A driver "
        f"that runs the flow itself hands out {driver:,.0f} × at most, what {driver / speed:.1f} such GPUs do; a runner hands "
        f"out {runner:,.0f} ×, and the driver of many takes in the reports of {report:,.0f} ×. Before the first block come "
        f"{listing_s / 60:.0f} minutes of listing and {planning_s / 60:.0f} of planning, in which no GPU has work: start the "
        "machines with GPUs when they are over."
    )


def _make_row(one: Mapping[str, Any]) -> str:
    return (
        f"| {one['gpus']} | {one['cpus']} | {one['decoding_actors']} | {one['audio_hours_an_hour']:,} "
        f"| {_percent(one['busy']['gpu'])} | {_percent(one['gpu_busy_while_working'])} "
        f"| {one['dollars_per_1000_audio_hours']:.2f} | {_bound(one)} |"
    )


def _bound(one: Mapping[str, Any]) -> str:
    return f"{one['bound']} ({_percent(one['busy'][one['bound']])})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
