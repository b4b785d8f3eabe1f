"""The charts of a report. A table beside each chart has the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from dictalake.html import BLUE, GREEN, GREY, INK, MUTED, ORANGE, drawing, to_svg
from dictalake.reporting.model import Bar, Run, Slice, Stage

_UNITS = ((1, "s"), (60, "min"), (3600, "h"))
_STAGE_COLOURS = {"load": GREY, "emit": BLUE, "decode": GREEN}


def draw_speed(run: Run, slices: Sequence[Slice]) -> Markup:
    """Audio seconds per second of the run, from its start to its end, and the mean."""
    start, width_s = slices[0].start, slices[0].width_s
    unit_s, unit = next(((s, name) for s, name in reversed(_UNITS) if width_s * len(slices) >= 3 * s), _UNITS[0])
    edges = [index * width_s / unit_s for index in range(len(slices) + 1)]
    speeds = [one.audio_s / one.width_s for one in slices]
    with drawing(9.4, 2.5) as figure:
        axes = _make_axes(figure.subplots())
        axes.stairs(speeds, edges, fill=True, color=BLUE, alpha=0.3)
        axes.stairs(speeds, edges, color=BLUE, linewidth=1.4)
        if run.speed is not None and len(slices) > 1:
            axes.axhline(run.speed, color=ORANGE, linewidth=1.2, linestyle="--")
            mean, place = f"mean\n{run.speed:,.0f}×", ("axes fraction", "data")
            axes.annotate(mean, (1, run.speed), (5, 0), place, "offset points", va="center", color=ORANGE, fontsize=8)
        axes.set(xlabel=f"{unit} since {start:%Y-%m-%d %H:%M:%S} UTC", ylabel="× real time")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(bottom=0, top=max(*speeds, run.speed or 0.0, 1e-9) * 1.12)
        return to_svg(figure, f"Speed over time, at most {max(speeds):.0f} times real time")


def draw_hours(slices: Sequence[Slice]) -> Markup:
    """Audio hours over calendar time, one bar for each interval."""
    hours = [one.audio_s / 3600 for one in slices]
    with drawing(9.4, 2.5) as figure:
        axes = _make_axes(figure.subplots())
        days = slices[0].width_s / 86400
        axes.bar([date2num(one.start) for one in slices], hours, width=0.92 * days, align="edge", color=BLUE)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        locator = AutoDateLocator(minticks=3, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=True))
        axes.set(ylabel="audio hours", xlabel="UTC")
        if len(slices) < 8:  # a single bar as wide as the page would be hard to read
            axes.set_xlim(date2num(slices[-1].start) + days - 8 * days, date2num(slices[-1].start) + 1.05 * days)
        return to_svg(figure, f"Audio hours over time, {sum(hours):.2f} in all")


def draw_confidences(bars: Sequence[Bar]) -> Markup:
    """The confidence of the transcripts, from 0 to 1."""
    with drawing(4.6, 2.5) as figure:
        axes = _make_axes(figure.subplots())
        edges = [*(bar.low for bar in bars), 1.0]
        axes.stairs([bar.count for bar in bars], edges, fill=True, color=BLUE, linewidth=0)
        axes.set(xlabel="mean confidence of a transcript", ylabel="recordings", xlim=(0, 1))
        _count_up(axes)
        return to_svg(figure, "Histogram of the confidence of transcripts")


def draw_durations(bars: Sequence[Bar]) -> Markup:
    """The lengths of the recordings, in bars of equal width for growing intervals."""
    with drawing(4.6, 2.5) as figure:
        axes = _make_axes(figure.subplots())
        axes.bar(range(len(bars)), [bar.count for bar in bars], width=0.92, align="edge", color=BLUE)
        axes.set_xticks(range(len(bars)), [name_seconds(bar.low).replace(" min", "m").replace(" ", "") for bar in bars])
        axes.set(xlabel="length of a recording, from", ylabel="recordings")
        _count_up(axes)
        return to_svg(figure, "Histogram of the length of recordings")


def draw_stages(stages: Sequence[Stage]) -> Markup:
    """The share of each stage in the workers' time, as one bar."""
    total_s = sum(stage.total_s for stage in stages) or 1.0
    with drawing(9.4, 0.55) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        left = 0.0
        for stage in stages:
            share = stage.total_s / total_s
            axes.barh([0], [share], left=left, height=0.9, color=_STAGE_COLOURS.get(stage.name, ORANGE))
            if share > 0.06:
                label = f"{stage.name} {100 * share:.0f} %"
                axes.annotate(label, (left + share / 2, -0.65), ha="center", va="top", color=INK, annotation_clip=False)
            left += share
        axes.set(xlim=(0, 1), ylim=(-1.6, 0.5))
        return to_svg(figure, "Share of the workers' time by stage")


def name_seconds(seconds: float) -> str:
    """``30 s``, ``2 min``, ``1 h``."""
    unit_s, unit = next(((s, name) for s, name in reversed(_UNITS) if seconds >= s), _UNITS[0])
    return f"{seconds / unit_s:g} {unit}"


def _make_axes(axes: Axes) -> Axes:
    axes.grid(axis="y", linewidth=0.8)
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.xaxis.label.set_color(MUTED)
    return axes


def _count_up(axes: Axes) -> None:
    """Shows a few whole numbers on the axis, with commas."""
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
