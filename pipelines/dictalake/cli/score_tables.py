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
                f"({100 * difference['wer_low']:+.2f} to {100 * difference['wer_high']:+.2f}), p = {difference['p_value']:.4f}",
            )


def show_clinical(figures: Figures, normaliser: str, console: Console) -> None:
    """What of the errors may hurt a patient."""
    rows = []
    for system, of_normaliser in figures.items():
        of = of_normaliser[normaliser]
        wrong = [f"{of[f'{name}_errors']} of {of[said]}" for name, said in _KINDS.items()]
        recall, precision = _percent(of["term_recall"]), _percent(of["term_precision"])
        rows.append([system, recall, precision, *wrong[:2], str(of["laterality_swapped"]), wrong[2]])
    numbers = ("term recall %", "precision %", "negations wrong", "sides wrong", "swapped", "numbers wrong")
    title = f"medical terms, negations, sides and numbers, normaliser {normaliser}"
    print_table(["system", *(Column(name, is_number=True) for name in numbers)], rows, title=title, console=console)


def _cells(of: Mapping[str, Any]) -> list[str]:
    counts = [str(of[name]) for name in ("substitutions", "deletions", "insertions")]
    has_interval = of["wer_low"] is not None and of["clusters"] > 1
    interval = "–" if not has_interval else f"{100 * of['wer_low']:.2f}–{100 * of['wer_high']:.2f}"
    heading = [str(of["utterances"]), str(of["failed"] or ""), str(of["reference_words"])]
    return [*heading, _percent(of["wer"]), interval, _percent(of["cer"]), *counts]


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.2f}"
