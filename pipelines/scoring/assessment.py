"""What is told of a system: rates with intervals, and the mistakes that hurt patients, from the counts of each recording."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import jiwer
import numpy as np

from pipelines.errors import ConfigError
from pipelines.scoring.bootstrap import bootstrap_rate, compare_rates
from pipelines.scoring.clinical import ClinicalCount, TermCount, Terms, count_clinical, sum_terms
from pipelines.scoring.errors import ErrorCount, count_errors
from pipelines.scoring.utterances import UNLABELLED, Utterance

_ROUTED = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Assessed:
    """One recording under one normaliser: the texts as they were scored, and what was counted."""

    utterance: Utterance
    reference: str
    hypothesis: str
    errors: ErrorCount
    characters: int
    character_errors: int
    clinical: ClinicalCount
    terms: Mapping[str, TermCount]

    @property
    def word_errors(self) -> int:
        return self.errors.substitutions + self.errors.deletions + self.errors.insertions


def assess(utterance: Utterance, normalise: Callable[[str], str], terms: Terms) -> Assessed:
    """Counts one recording; a failed one has all its words deleted. Characters are those of the texts with their spaces."""
    reference, hypothesis = normalise(utterance.reference), normalise(utterance.hypothesis or "")
    if reference:
        output = jiwer.process_characters(reference, hypothesis)
        character_errors = output.substitutions + output.deletions + output.insertions
    else:
        character_errors = len(hypothesis)
    return Assessed(
        utterance,
        reference,
        hypothesis,
        count_errors([(reference, hypothesis)]),
        len(reference),
        character_errors,
        count_clinical(reference, hypothesis),
        terms.count(reference, hypothesis),
    )


def describe(assessed: Sequence[Assessed], baseline: Sequence[Assessed] | None = None) -> dict[str, Any]:
    """The figures of one system under one normaliser, as they go into ``scores.json``. Rates are fractions, None where there is
    nothing to divide by. ``baseline`` is another system on the same recordings in the same order, to be compared with.
    """
    errors, words = _column(assessed, lambda one: one.word_errors), _column(assessed, lambda one: one.errors.words)
    wer = bootstrap_rate(errors, words)
    cer = bootstrap_rate(_column(assessed, lambda one: one.character_errors), _column(assessed, lambda one: one.characters))
    clinical = reduce(add, (one.clinical for one in assessed), ClinicalCount())
    terms = sum_terms(one.terms for one in assessed)
    all_terms = reduce(add, terms.values(), TermCount())
    figures: dict[str, Any] = {
        "wer": _rate(wer.value),
        "wer_low": _rate(wer.low),
        "wer_high": _rate(wer.high),
        "cer": _rate(cer.value),
        "cer_low": _rate(cer.low),
        "cer_high": _rate(cer.high),
        **{name: sum(getattr(one.errors, name) for one in assessed) for name in ("substitutions", "deletions", "insertions")},
        "reference_words": int(words.sum()),
        "utterances": len(assessed),
        "failed": sum(one.utterance.hypothesis is None for one in assessed),
        "term_recall": all_terms.recall,
        "term_precision": all_terms.precision,
        "terms": {
            category: {"said": count.said, "heard": count.heard, "recall": count.recall, "precision": count.precision}
            for category, count in sorted(terms.items())
        },
        **vars(clinical),
        "routing": measure_routing(assessed),
    }
    if baseline is not None:
        compared = compare_rates(_column(baseline, lambda one: one.word_errors), errors, words)
        figures["difference"] = {
            "wer": _rate(compared.delta.value),
            "wer_low": _rate(compared.delta.low),
            "wer_high": _rate(compared.delta.high),
            "p_value": _rate(compared.p_value),
        }
    return figures


def describe_groups(assessed: Sequence[Assessed], by: str) -> dict[str, dict[str, Any]]:
    """Word error rate with its interval for each value of the label ``by``."""
    groups: dict[str, list[Assessed]] = {}
    for one in assessed:
        groups.setdefault(one.utterance.labels.get(by, UNLABELLED), []).append(one)
    described = {}
    for name, members in sorted(groups.items()):
        full = describe(members)
        kept = ("wer", "wer_low", "wer_high", "cer", "substitutions", "deletions", "insertions", "reference_words")
        described[name] = {key: full[key] for key in (*kept, "utterances", "failed")}
    return described


def measure_routing(assessed: Sequence[Assessed]) -> list[dict[str, float]] | None:
    """Of sending the least confident transcripts to a human: for each share, the word error rate of the rest, and the share of
    all errors that a human would see. A failed recording goes first. None where no transcript has a confidence.
    """
    sure = [one.utterance.confidence for one in assessed]
    if all(value is None for value in sure):
        return None
    order = np.argsort([-1.0 if value is None else value for value in sure], kind="stable")
    errors = _column(assessed, lambda one: one.word_errors)[order]
    words = _column(assessed, lambda one: one.errors.words)[order]
    routed = []
    for share in _ROUTED:
        sent = math.ceil(share * len(order))
        left = words[sent:].sum()
        routed.append(
            {
                "share": share,
                "wer_of_rest": float(errors[sent:].sum() / left) if left else 0.0,
                "errors_seen": float(errors[:sent].sum() / errors.sum()) if errors.sum() else 0.0,
            }
        )
    return routed


def read_terms(texts: Mapping[str, str], normalise: Callable[[str], str]) -> Terms:
    """``texts``: category → lines of terms, a line's own category behind a tab. Raises ConfigError where there is no term."""
    terms: dict[str, str] = {}
    for category, text in texts.items():
        for line in text.splitlines():
            term, _, own = line.partition("\t")
            if term.strip() and not term.startswith("#"):
                terms[normalise(term)] = own.strip() or category
    if not terms:
        raise ConfigError("--terms: the file holds no term; expected one a line, and behind a tab its category where wanted")
    return Terms(terms)


def _column(assessed: Sequence[Assessed], value: Callable[[Assessed], int]) -> np.ndarray:
    return np.array([value(one) for one in assessed], dtype=np.int64)


def _rate(value: float) -> float | None:
    return None if math.isnan(value) else value
