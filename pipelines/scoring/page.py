"""The evaluation as one HTML page without a network: tables, intervals, and the worst transcripts with what was said and heard.

It shows transcripts and lets one hear recordings: the page is as confidential as the archive, and says so.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment
from matplotlib.figure import Figure

from pipelines.scoring.assessment import Assessed
from pipelines.scoring.clinical import NEGATIONS, SIDES, align, is_number

_TEMPLATE = Path(__file__).with_name("evaluation.html")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito


@dataclass(frozen=True)
class Word:
    """One place of an alignment. ``kind``: same, substituted, deleted, inserted; ``hurts``: a negation, side or number."""

    said: str | None
    heard: str | None
    kind: str
    hurts: bool


@dataclass(frozen=True)
class Shown:
    """A transcript as the page shows it; ``audio`` is a data URI."""

    recording_id: str
    system: str
    rate: float
    labels: str
    words: Sequence[Word]
    audio: str | None


def compare_words(reference: str, hypothesis: str) -> Iterator[Word]:
    """The alignment of two normalised texts, word by word."""
    for said, heard in align(reference.split(), hypothesis.split()):
        kind = "same" if said == heard else "inserted" if said is None else "deleted" if heard is None else "substituted"
        hurts = kind != "same" and any(w in NEGATIONS or w in SIDES or is_number(w) for w in (said, heard) if w is not None)
        yield Word(said, heard, kind, hurts)


def show_transcript(assessed: Assessed, system: str, audio: str | None) -> Shown:
    labels = ", ".join(f"{key} {value}" for key, value in sorted(assessed.utterance.labels.items()) if key != "reference")
    words = tuple(compare_words(assessed.reference, assessed.hypothesis))
    return Shown(assessed.utterance.recording_id, system, assessed.errors.rate, labels, words, audio)


def draw_intervals(systems: Mapping[str, Mapping[str, Any]]) -> str:
    """SVG: word error rate and 95 % interval of each system (name → figures)."""
    figure = Figure(figsize=(7, 0.6 + 0.45 * len(systems)), layout="constrained")
    axes = figure.subplots()
    for place, figures in enumerate(systems.values()):
        if figures["wer"] is None:
            continue
        wer, low, high = (100 * figures[key] for key in ("wer", "wer_low", "wer_high"))
        axes.errorbar(
            [wer], [place], xerr=[[wer - low], [high - wer]], fmt="o", capsize=4, color=_COLOURS[place % len(_COLOURS)]
        )
        axes.annotate(f"{wer:.2f}", (wer, place), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
    axes.set_yticks(range(len(systems)), list(systems))
    axes.set_ylim(len(systems) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("word error rate, %")
    return _svg(figure)


def draw_routing(systems: Mapping[str, Mapping[str, Any]]) -> str | None:
    """SVG: what is left of the word error rate when the least confident transcripts go to a human; None without confidences."""
    curves = {name: figures["routing"] for name, figures in systems.items() if figures["routing"]}
    if not curves:
        return None
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, points), colour in zip(curves.items(), _COLOURS, strict=False):
        axes.plot(
            [100 * p["share"] for p in points], [100 * p["wer_of_rest"] for p in points], marker="o", label=name, color=colour
        )
    axes.axvline(5, color="#999999", linestyle=":")
    axes.set(xlabel="least confident transcripts sent to a human, %", ylabel="word error rate of the rest, %")
    axes.set_ylim(bottom=0)
    axes.legend()
    return _svg(figure)


def render_page(systems: Mapping[str, Mapping[str, Mapping[str, Any]]], shown: Sequence[Shown], notes: Sequence[str]) -> str:
    """The page. ``systems``: name → normaliser → figures, as in ``scores.json``."""
    normalisers = list(next(iter(systems.values())))
    parts = []
    for normaliser in normalisers:
        of_system = {name: figures[normaliser] for name, figures in systems.items()}
        parts.append((normaliser, of_system, draw_intervals(of_system), draw_routing(of_system)))
    environment = Environment(autoescape=True)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.2f}"
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(parts=parts, shown=shown, notes=notes)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
