"""Shows how good the transcripts of a lake are, as its reviewers found."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from dictalake.cli.tables import Column, print_json, print_lines, print_table
from dictalake.evaluation.bootstrap import Interval
from dictalake.review.measure import LakeRate


def show_rate(measured: LakeRate, form: str) -> None:
    if form == "json":
        print_json(asdict(measured))
        return
    console = Console()
    if measured.rate is None:
        line = "nobody has corrected a recording that was drawn at random: `dictalake review`, Queue, Measure the lake"
    else:
        line = f"word error rate {_show(measured.rate)} by {measured.checked} recordings drawn at random; the strata that were "
        line += f"sampled hold {100 * measured.covered:.0f} % of the speech"
        if measured.is_thin:
            line += "; fewer than 20 were checked in some of them, so the truth may lie outside of the interval"
    print_lines(console, line)
    columns = [Column("confidence"), *(Column(name, is_number=True) for name in ("recordings", "share", "checked", "words"))]
    columns.append(Column("word error rate", is_number=True))
    rows = [
        (
            f"{one.low:.2f} – {one.high:.2f}",
            f"{one.recordings:,}",
            f"{100 * one.share:.0f} %",
            f"{one.checked:,}",
            f"{one.words:,}",
            _show(one.rate) if one.rate is not None and one.words else "-",
        )
        for one in measured.strata
    ]
    print_table(columns, rows, console=console)
    if measured.of_all_checked is not None:
        note = (
            f"of all that were checked, also the worst: {_show(measured.of_all_checked)}, which says nothing about the others"
        )
        print_lines(console, note)


def _show(rate: Interval) -> str:
    return f"{100 * rate.value:.1f} % ({100 * rate.low:.1f} – {100 * rate.high:.1f})"
