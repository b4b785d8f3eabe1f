"""The result of tuning as one HTML page that loads nothing: word errors by setting, reliability, and what to send to humans.

matplotlib draws the figures. The page holds numbers only, and no text of a recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dictalake.evaluation.calibration import measure_reliability
from dictalake.html import open_templates, to_svg

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#999999"  # Okabe and Ito: the colour-blind can distinguish them


@dataclass(frozen=True)
class Calibrated:
    """The confidences of one set's words before and after the fit, ``(words,)`` each, and whether each word is right."""

    name: str
    before: np.ndarray
    after: np.ndarray
    is_right: np.ndarray


def draw_surface(trials: Sequence[tuple[float, float, float]]) -> Markup:
    """SVG of the word error rate by language model weight (x) and word score (y). ``trials``: lm_weight, word_score, rate."""
    weights = sorted({trial[0] for trial in trials})
    scores = sorted({trial[1] for trial in trials})
    rates = np.full((len(scores), len(weights)), np.nan)
    for weight, score, rate in trials:
        rates[scores.index(score), weights.index(weight)] = 100 * rate
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(rates, origin="lower", aspect="auto", cmap="viridis_r")
    axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    axes.set_yticks(range(len(scores)), [f"{score:g}" for score in scores])
    axes.set(xlabel="decoding.lm_weight", ylabel="decoding.word_score")
    middle = (np.nanmin(rates) + np.nanmax(rates)) / 2
    for (row, column), rate in np.ndenumerate(rates):
        if np.isfinite(rate):
            axes.text(column, row, f"{rate:.2f}", ha="center", va="center", fontsize=8, color="w" if rate > middle else "k")
    best_row, best_column = divmod(int(np.nanargmin(rates)), len(weights))
    axes.add_patch(_frame(best_column, best_row))
    figure.colorbar(image, label="word error rate, %")
    return to_svg(figure, "Word error rate by decoding.lm_weight and decoding.word_score")


def _frame(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_ORANGE, linewidth=3)


def draw_reliability(calibrated: Sequence[Calibrated]) -> Markup:
    """An SVG of each set's accuracy of words against their confidence, before and after the fit. The diagonal is perfect."""
    figure = Figure(figsize=(4.5 * len(calibrated), 4), layout="constrained")
    for axes, one in zip(np.atleast_1d(figure.subplots(1, len(calibrated))), calibrated, strict=True):
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":")
        for name, confidence, colour in (("before", one.before, _ORANGE), ("after", one.after, _BLUE)):
            bins = measure_reliability(confidence, one.is_right)
            axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], marker="o", color=colour, label=name)
        axes.set(title=one.name, xlabel="confidence", ylabel="share of words that are right", xlim=(0, 1), ylim=(0, 1))
        axes.legend()
    return to_svg(figure, "Share of words that are right by their confidence, before and after")


def draw_routing(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Markup:
    """An SVG of the word error rate of the remaining transcripts, by the share that goes to a human, least confident first."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes: Axes = figure.subplots()
    for (name, (shares, rates)), colour in zip(curves.items(), (_BLUE, _ORANGE, _GREY), strict=False):
        axes.plot([100 * share for share in shares], [100 * rate for rate in rates], label=name, color=colour)
    axes.axvline(5, color=_GREY, linestyle=":")
    axes.set(xlabel="transcripts sent to a human, %", ylabel="word error rate of the rest, %")
    axes.set_ylim(bottom=0)
    axes.legend()
    return to_svg(figure, "Word error rate of the rest, by the share of transcripts that go to a human")


def route(errors: np.ndarray, words: np.ndarray, confidence: np.ndarray) -> tuple[list[float], list[float]]:
    """The shares 0–1 of transcripts that go to a human, least confident first, and the word error rate of the rest.

    All arrays are ``(transcripts,)``. The last point keeps one transcript.
    """
    order = np.argsort(-confidence, kind="stable")
    kept_errors, kept_words = np.cumsum(errors[order]), np.cumsum(words[order])
    shares = 1 - np.arange(1, len(order) + 1) / len(order)
    rates = kept_errors / np.maximum(kept_words, 1)
    return shares[::-1].tolist(), rates[::-1].tolist()


def render_page(
    title: str, tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]], pictures: Sequence[tuple[str, Markup]]
) -> str:
    """The page. ``tables`` hold caption, header and rows; ``pictures`` hold caption and SVG."""
    template = open_templates(Path(__file__).parent).from_string(_PAGE)
    return template.render(title=title, tables=tables, pictures=pictures)


_PAGE = """<!doctype html>
<html lang="en"><head>{{ head }}<title>{{ title }}</title><style>
{% include "pages.css" %}
</style></head><body><h1>{{ title }}</h1>
{% for caption, header, rows in tables %}<table><caption>{{ caption }}</caption>
<tr>{% for name in header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}{% for caption, svg in pictures %}<figure><figcaption>{{ caption }}</figcaption>{{ svg }}</figure>
{% endfor %}</body></html>
"""
