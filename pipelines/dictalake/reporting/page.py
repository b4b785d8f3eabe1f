"""The report of a run, or of a lake, as one HTML page without network or script.

The row of a recording is one line of the file and has its id in ``data-recording``: so an erasure takes it out of reports that
were written before, without making them anew (``pipelines/dictalake/lake/reports.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from dictalake.errors import advise
from dictalake.html import open_templates
from dictalake.reporting.charts import draw_confidences, draw_durations, draw_hours, draw_speed, draw_stages, name_seconds
from dictalake.reporting.model import Bar, Part, Report, Run

_FOLDER = Path(__file__).parent
_DASH = "–"


@dataclass(frozen=True)
class _Charts:
    over_time: Markup | None
    confidences: Markup | None
    durations: Markup | None
    stages: Markup | None


def render_report(report: Report) -> str:
    """The page. Everything that comes from the lake is escaped."""
    environment = open_templates(_FOLDER)
    environment.filters |= {"number": format_number, "seconds": format_seconds, "share": format_share, "fixed": format_fixed}
    environment.globals |= {"advise": advise, "name_bar": name_bar, "cost": _cost(report)}
    charts = [_draw(part) for part in report.parts]
    return environment.get_template("report.html").render(report=report, parts=list(zip(report.parts, charts, strict=True)))


def _draw(part: Part) -> _Charts:
    over_time = None
    if part.slices:
        over_time = draw_hours(part.slices) if part.run is None else draw_speed(part.run, part.slices)
    return _Charts(
        over_time,
        draw_confidences(part.confidences) if _count(part.confidences) else None,
        draw_durations(part.durations) if _count(part.durations) else None,
        draw_stages(part.stages) if any(stage.total_s for stage in part.stages) else None,
    )


def _count(bars: Sequence[Bar]) -> int:
    return sum(bar.count for bar in bars)


def _cost(report: Report) -> Callable[..., str]:
    """What a run cost, or each of so many hours of its audio, as text; a dash where nobody knows how long it took."""

    def cost(run: Run, audio_hours: float = 1.0) -> str:
        if report.price is None or run.wall_s is None or not audio_hours:
            return _DASH
        amount = run.wall_s / 3600 * report.price.per_hour / audio_hours
        return f"{amount:,.{2 if amount >= 1 else 4}f} {report.price.currency}"

    return cost


def format_number(value: float | None) -> str:
    """Whole numbers with commas."""
    return _DASH if value is None else f"{value:,.0f}"


def format_fixed(value: float | None, digits: int) -> str:
    return _DASH if value is None else f"{value:,.{digits}f}"


def format_share(part: float | None, whole: float | None) -> str:
    """``12 %``, ``0.4 %``."""
    if part is None or not whole:
        return _DASH
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 10 or not part else f"{percent:.1f} %"


def format_seconds(seconds: float | None) -> str:
    """``42 ms``, ``4.20 s``, ``42 s``, ``7 min``, ``3 h 5 min``."""
    if seconds is None:
        return _DASH
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60} min"


def name_bar(bar: Bar, unit: str) -> str:
    """``30 s – 1 min``, or of numbers ``0.90 – 0.95``."""
    if unit == "time":
        return f"{name_seconds(bar.low)} " + ("and longer" if bar.high is None else f"– {name_seconds(bar.high)}")
    return f"{bar.low:.2f} – {1.0 if bar.high is None else bar.high:.2f}"
