"""The tables of ``dictalake evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from dictalake.cli.tables import Column, print_lines, print_table

_KINDS = {"negation": "negations", "laterality": "sides", "number": "numbers"}
_NUMBERS = ("utterances", "failed", "words", "WER %", "95 %", "CER %", "S", "D", "I")
Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]


def show_figures(figures: Figures, normaliser: str, by: str | None, console: Console) -> None:
    """Systems and groups, and each system against the first."""
    rows = []
    for system, of_normaliser in figures.items():
        total = of_normaliser[normaliser]
        groups = {} if by is None else total["by"][by]
        rows += [[system, group, *_cells(of_group)] for group, of_group in groups.items()]
        rows.append([system, *([] if by is None else ["all"]), *_cells(total)])
    columns = [Column("system"), *([] if by is None else [Column(by)]), *(Column(n, is_number=True) for n in _NUMBERS)]
    title = f"word errors, normaliser {normaliser}; 95 % intervals over recordings"
    print_table(columns, rows, title=title, console=console)
    for system, of_normaliser in figures.items():
        if difference := of_normaliser[normaliser].get("difference"):
            print_lines(
                console,
                f"{system} against {next(iter(figures))}, normaliser {normaliser}: {100 * difference['wer']:+.2f} points "
                f"({_show_bounds(difference)}), p = {difference['p_value']:.4f}",
            )


def show_clinical(figures: Figures, normaliser: str, console: Console) -> None:
    """What of the errors may hurt a patient."""
    rows = []
    for system, of_normaliser in figures.items():
        of = of_normaliser[normaliser]
        wrong = [f"{of[f'{name}_errors']} of {of[said]}" for name, said in _KINDS.items()]
        rates = [_percent(of[name]) for name in ("term_recall", "term_precision")]
        rows.append([system, *rates, *wrong[:2], str(of["laterality_swapped"]), wrong[2]])
    numbers = ("term recall %", "precision %", "negations wrong", "sides wrong", "swapped", "numbers wrong")
    title = f"medical terms, negations, sides and numbers, normaliser {normaliser}"
    print_table(["system", *(Column(name, is_number=True) for name in numbers)], rows, title=title, console=console)
    names = {
        "term_wer": "term WER %",
        "drug_wer": "drug WER %",
        "entity_recall": "entity recall %",
        "entity_precision": "precision %",
    }
    rows = [[system, *(_with_bounds(of[normaliser], name) for name in names)] for system, of in figures.items()]
    title = "word errors of terms and drugs; doses, measurements, dates and levels with the right value and unit (95 %)"
    print_table(["system", *(Column(name, is_number=True) for name in names.values())], rows, title=title, console=console)


def _cells(of: Mapping[str, Any]) -> list[str]:
    counts = [str(of[name]) for name in ("substitutions", "deletions", "insertions")]
    has_interval = of["wer_low"] is not None and of["clusters"] > 1
    interval = "–" if not has_interval else f"{100 * of['wer_low']:.2f}–{100 * of['wer_high']:.2f}"
    heading = [str(of["utterances"]), str(of["failed"] or ""), str(of["reference_words"])]
    return [*heading, _percent(of["wer"]), interval, _percent(of["cer"]), *counts]


def _with_bounds(of: Mapping[str, Any], name: str) -> str:
    low, high = of[f"{name}_low"], of[f"{name}_high"]
    if low is None or of["clusters"] < 2:
        return _percent(of[name])
    return f"{_percent(of[name])} ({_percent(low)}–{_percent(high)})"


def _show_bounds(difference: Mapping[str, Any]) -> str:
    """The interval of a difference; too few recordings have none."""
    low, high = difference["wer_low"], difference["wer_high"]
    return "too few recordings to tell" if low is None or high is None else f"{100 * low:+.2f} to {100 * high:+.2f}"


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.2f}"
