"""The evaluation as one HTML page that loads nothing: tables, intervals, and the worst transcripts with their references.

The page shows transcripts and plays recordings. It is as confidential as the archive, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from dictalake.evaluation.assessment import Assessed
from dictalake.evaluation.clinical import align, find_mistakes
from dictalake.html import open_templates, to_svg

_FOLDER = Path(__file__).parent
_AROUND = 5  # words before and after a mistake
_PASSAGE = 60  # words, about half a minute of dictation
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito


@dataclass(frozen=True)
class AlignedWord:
    """One place of an alignment. ``kind``: same, substituted, deleted, inserted; ``hurts``: a negation, side or number."""

    said: str | None
    heard: str | None
    kind: str
    hurts: bool


@dataclass(frozen=True)
class Snippet:
    """The sound of a part of a recording, as a data URI."""

    uri: str
    from_s: float
    to_s: float


@dataclass(frozen=True)
class Shown:
    """A transcript as the page shows it."""

    recording_id: str
    system: str
    rate: float
    labels: str
    words: Sequence[AlignedWord]
    snippet: Snippet | None


@dataclass(frozen=True)
class ShownMistake:
    """A mistake that may hurt a patient, with the words around it. ``kind`` as in :class:`Mistake`, or ``sides swapped``."""

    kind: str
    recording_id: str
    words: Sequence[AlignedWord]


def compare_words(reference: str, hypothesis: str) -> list[AlignedWord]:
    """The alignment of two normalised texts, word by word."""
    pairs = align(reference.split(), hypothesis.split())
    hurting = {place for mistake in find_mistakes(pairs) for place in range(mistake.first, mistake.last)}
    words = []
    for place, (said, heard) in enumerate(pairs):
        kind = "same" if said == heard else "inserted" if said is None else "deleted" if heard is None else "substituted"
        words.append(AlignedWord(said, heard, kind, place in hurting))
    return words


def find_worst_passage(words: Sequence[AlignedWord]) -> float:
    """The middle of the half minute with the most errors: its place among ``words``, as a share from 0 to 1."""
    errors = [word.kind != "same" for word in words]
    starts = range(max(1, len(errors) - _PASSAGE + 1))
    start = max(starts, key=lambda start: sum(errors[start : start + _PASSAGE]))
    return (start + min(_PASSAGE, len(errors)) / 2) / max(1, len(errors))


def show_transcript(assessed: Assessed, system: str, words: Sequence[AlignedWord], snippet: Snippet | None) -> Shown:
    labels = ", ".join(f"{key} {value}" for key, value in sorted(assessed.utterance.labels.items()) if key != "reference")
    return Shown(assessed.utterance.recording_id, system, assessed.errors.rate, labels, words, snippet)


def show_mistakes(assessed: Sequence[Assessed]) -> Iterator[ShownMistake]:
    """The mistakes that may hurt a patient, in the recordings that did not fail."""
    for one in assessed:
        if one.utterance.hypothesis is None:
            continue
        words = compare_words(one.reference, one.hypothesis)
        for mistake in find_mistakes([(word.said, word.heard) for word in words]):
            kind = "sides swapped" if mistake.is_swap else mistake.kind
            around = words[max(0, mistake.first - _AROUND) : mistake.last + _AROUND]
            yield ShownMistake(kind, one.utterance.recording_id, around)


def rank_terms(assessed: Sequence[Assessed], most: int) -> list[tuple[str, str, int, int]]:
    """The terms with the most errors: term, category, times missed, times inserted."""
    wrong: dict[str, Counter[tuple[str, str]]] = {"missed": Counter(), "added": Counter()}
    for one in assessed:
        for term, category, outcome in one.terms:
            if outcome in wrong:
                wrong[outcome][term, category] += 1
    ranked = sorted((wrong["missed"] + wrong["added"]).items(), key=lambda item: (-item[1], item[0]))[:most]
    return [(*term, wrong["missed"][term], wrong["added"][term]) for term, _ in ranked]


def draw_intervals(systems: Mapping[str, Mapping[str, Any]]) -> Markup:
    """An SVG of the word error rate and 95 % interval of each system (name → figures)."""
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
    axes.set_yticks(range(len(systems)), list(systems), parse_math=False)
    axes.set_ylim(len(systems) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("word error rate, %")
    return to_svg(figure, "Word error rate of each system with its interval")


def draw_routing(systems: Mapping[str, Mapping[str, Any]]) -> Markup | None:
    """An SVG of the rest's word error rate when the least confident transcripts go to a human; None without confidences."""
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
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    return to_svg(figure, "Word error rate of the rest, by the share of transcripts that go to a human")


def render_page(
    systems: Mapping[str, Mapping[str, Mapping[str, Any]]],
    shown: Sequence[Shown],
    mistakes: Mapping[str, Sequence[ShownMistake]],
    terms: Mapping[str, Sequence[tuple[str, str, int, int]]],
    notes: Sequence[str],
) -> str:
    """The page. ``systems``: name → normaliser → figures, as in ``scores.json``. ``mistakes`` and ``terms`` are by system."""
    normalisers = list(next(iter(systems.values())))
    parts = []
    for normaliser in normalisers:
        of_system = {name: figures[normaliser] for name, figures in systems.items()}
        parts.append((normaliser, of_system, draw_intervals(of_system), draw_routing(of_system)))
    environment = open_templates(_FOLDER)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.2f}"
    template = environment.get_template("evaluation.html")
    return template.render(parts=parts, shown=shown, mistakes=mistakes, terms=terms, notes=notes)
