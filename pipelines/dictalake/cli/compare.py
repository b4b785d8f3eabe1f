"""Shows what a promotion would change, and pairs of transcripts to read."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from dictalake.cli.tables import Column, print_fields, print_json, print_table
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError
from dictalake.evaluation.promotion import Comparison, Group, ReadPair, compare_fingerprints
from dictalake.terminal import printable

_MOST_TERMS = 8
_PAIRS_OF_A_FILE = 1000


def compare(lake: Lake, arguments: argparse.Namespace) -> None:
    """Raises ConfigError, RunError."""
    if arguments.sample < 0 or arguments.pairs < 0:
        raise ConfigError("--sample and --pairs take 0 or more")
    pairs = arguments.pairs or (_PAIRS_OF_A_FILE if arguments.out else 0)
    found = compare_fingerprints(lake, arguments.old, arguments.new, sample=arguments.sample or None, pairs=pairs)
    if arguments.out:
        _write_pairs(found.pairs, arguments.out)
    if arguments.format == "json":
        print_json(_describe(found))
    else:
        _show(found)
    if arguments.pairs and not arguments.out:
        _show_pairs(found.pairs)


def _describe(found: Comparison) -> dict[str, Any]:
    groups = {name: _numbers(group) for name, group in found.groups.items()}
    return {"old": found.old, "new": found.new, "whole": _numbers(found.whole), "by_specialty": groups}


def _numbers(group: Group) -> dict[str, Any]:
    return asdict(group) | {
        "word_difference_rate": group.rate,
        "terms_lost": dict(_named(group.terms_lost)),
        "terms_gained": dict(_named(group.terms_gained)),
    }


def _named(terms: Counter[str]) -> list[tuple[str, int]]:
    return sorted(((term, count) for term, count in terms.items() if count), key=lambda one: (-one[1], one[0]))


def _show(found: Comparison) -> None:
    whole = found.whole
    fields = [
        ("recordings of both", f"{whole.both:,}"),
        (f"only of {found.old}", f"{whole.only_old:,} (they stay as they are)"),
        (f"only of {found.new}", f"{whole.only_new:,} (new in transcripts)"),
        ("compared", f"{whole.compared:,}, {whole.changed:,} of them with other words"),
        ("words that differ", f"{_percent(whole.rate)} of {whole.words:,}"),
        ("negations, numbers, sides", _clinical(whole)),
        ("terms lost", _terms(whole.terms_lost)),
        ("terms gained", _terms(whole.terms_gained)),
        ("confidence", f"{_mean(whole.old_confidence)} → {_mean(whole.new_confidence)}"),
    ]
    print_fields(fields, title=f"{found.old} → {found.new}")
    print()
    names = ("specialty", "both", "compared", "changed", "words", "differ", "confidence")
    columns = [Column(name, name in names[1:]) for name in names]
    rows = [
        (
            *(printable(name), f"{group.both:,}", f"{group.compared:,}", f"{group.changed:,}", f"{group.words:,}"),
            _percent(group.rate),
            f"{_mean(group.old_confidence)} → {_mean(group.new_confidence)}",
        )
        for name, group in found.groups.items()
    ]
    print_table(columns, rows)


def _clinical(group: Group) -> str:
    count = group.clinical
    return f"{count.negation_errors}, {count.number_errors}, {count.laterality_errors} differ"


def _terms(terms: Counter[str]) -> str:
    shown = [f"{term} {count}" if count > 1 else term for term, count in _named(terms)[:_MOST_TERMS]]
    return f"{sum(terms.values()):,}" + (f" ({', '.join(shown)})" if shown else "")


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _show_pairs(pairs: list[ReadPair]) -> None:
    console = Console()
    for pair in pairs:
        console.print(
            f"\n{pair.recording_id} ({printable(pair.specialty)}), {pair.differences} words differ",
            highlight=False,
            markup=False,
        )
        for name, text in (("old", pair.old_text), ("new", pair.new_text)):
            console.print(f"  {name}: {printable(text)}", highlight=False, markup=False, soft_wrap=True)


def _write_pairs(pairs: list[ReadPair], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            for pair in pairs:
                file.write(json.dumps(asdict(pair), ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.strerror or error}; give a file that can be written") from None
