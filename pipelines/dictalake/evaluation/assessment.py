"""The figures of a system, from the counts of each recording: rates with intervals, and mistakes that may hurt patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import jiwer
import numpy as np

from dictalake.errors import ConfigError
from dictalake.evaluation.bootstrap import Interval, bootstrap_rate, compare_rates
from dictalake.evaluation.clinical import ClinicalCount, TermCount, TermErrors, Terms, count_clinical, count_terms
from dictalake.evaluation.entities import compare_entities
from dictalake.evaluation.utterances import UNLABELLED, Utterance
from dictalake.evaluation.word_errors import ErrorCount, count_errors

_CATEGORIES = {"drug": "drugs"}  # categories of terms whose word errors are figures of their own
_ROUTED = (0.0, 0.01, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 11)))


@dataclass(frozen=True)
class Assessed:
    """One recording under one normaliser: the texts as they were scored, and the counts."""

    utterance: Utterance
    reference: str
    hypothesis: str
    errors: ErrorCount
    characters: int
    character_errors: int
    clinical: ClinicalCount
    terms: Sequence[tuple[str, str, str]]  # term, category, outcome
    term_errors: Mapping[str, TermErrors]  # all terms, and those of one category
    entities: Mapping[str, TermCount]  # by kind; of the texts as they were given

    @property
    def word_errors(self) -> int:
        return self.errors.substitutions + self.errors.deletions + self.errors.insertions


def assess(
    utterance: Utterance,
    normalise: Callable[[str], str],
    terms: Terms,
    entities: Mapping[str, TermCount] | None = None,
) -> Assessed:
    """Counts one recording; all words of a failed one count as deleted. Characters include the spaces. ``entities``, which no
    normaliser changes, are counted here unless they are given."""
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
        terms.compare(reference, hypothesis),
        {
            "term": terms.count_errors(reference, hypothesis),
            **{name: terms.count_errors(reference, hypothesis, (category,)) for name, category in _CATEGORIES.items()},
        },
        count_entities(utterance) if entities is None else entities,
    )


def count_entities(utterance: Utterance) -> dict[str, TermCount]:
    """By kind, of the texts as they were given."""
    return compare_entities(utterance.reference, utterance.hypothesis or "")


def describe(
    assessed: Sequence[Assessed], baseline: Sequence[Assessed] | None = None, cluster: str | None = None
) -> dict[str, Any]:
    """The figures of one system under one normaliser, as ``scores.json`` holds them. Rates are fractions, or None where there
    is nothing to divide by. ``baseline`` is another system on the same recordings in the same order, for comparison.
    Recordings with the same label ``cluster`` are drawn together, because one speaker's recordings are hard or easy together.
    """
    clusters = _find_clusters(assessed, cluster)
    errors, words, character_errors, characters = (
        _sum_by(clusters, [value(one) for one in assessed])
        for value in (_word_errors, lambda one: one.errors.words, lambda one: one.character_errors, lambda one: one.characters)
    )
    clinical = reduce(add, (one.clinical for one in assessed), ClinicalCount())
    terms = count_terms(term for one in assessed for term in one.terms)
    all_terms = reduce(add, terms.values(), TermCount())
    figures: dict[str, Any] = {
        **_interval("wer", bootstrap_rate(errors, words)),
        **_interval("cer", bootstrap_rate(character_errors, characters)),
        **{name: sum(getattr(one.errors, name) for one in assessed) for name in ("substitutions", "deletions", "insertions")},
        "reference_words": int(words.sum()),
        "utterances": len(assessed),
        "clusters": len(words),
        "failed": sum(one.utterance.hypothesis is None for one in assessed),
        "term_recall": all_terms.recall,
        "term_precision": all_terms.precision,
        **_describe_term_errors(assessed, clusters),
        **_describe_entities(assessed, clusters),
        "terms": {
            category: {**vars(count), "recall": count.recall, "precision": count.precision}
            for category, count in sorted(terms.items())
        },
        **vars(clinical),
        "routing": measure_routing(assessed),
    }
    if baseline is not None:
        compared = compare_rates(_sum_by(clusters, [_word_errors(one) for one in baseline]), errors, words)
        figures["difference"] = {**_interval("wer", compared.delta), "p_value": _rate(compared.p_value)}
    return figures


def _describe_term_errors(assessed: Sequence[Assessed], clusters: np.ndarray) -> dict[str, Any]:
    """``term_wer`` and ``drug_wer`` with their intervals, and what they were counted from."""
    figures: dict[str, Any] = {}
    for name in ("term", *_CATEGORIES):
        counts = [one.term_errors[name] for one in assessed]
        errors, words = (_sum_by(clusters, values) for values in ([c.errors for c in counts], [c.words for c in counts]))
        total = reduce(add, counts, TermErrors())
        figures |= _interval(f"{name}_wer", bootstrap_rate(errors, words))
        figures |= {f"{name}_words": total.words}
        figures |= {f"{name}_{kind}": getattr(total, kind) for kind in ("substitutions", "deletions", "insertions")}
    return figures


def _describe_entities(assessed: Sequence[Assessed], clusters: np.ndarray) -> dict[str, Any]:
    """Recall and precision of formatted entities with their intervals, of all and by kind."""
    of_all = [reduce(add, one.entities.values(), TermCount()) for one in assessed]
    said, heard, found = (_sum_by(clusters, [getattr(count, name) for count in of_all]) for name in ("said", "heard", "found"))
    kinds: dict[str, TermCount] = {}
    for one in assessed:
        for kind, count in one.entities.items():
            kinds[kind] = kinds.get(kind, TermCount()) + count
    return {
        **_interval("entity_recall", bootstrap_rate(found, said)),
        **_interval("entity_precision", bootstrap_rate(found, heard)),
        "entities": {
            kind: {**vars(count), "recall": count.recall, "precision": count.precision} for kind, count in sorted(kinds.items())
        },
    }


def _find_clusters(assessed: Sequence[Assessed], label: str | None) -> np.ndarray:
    """The cluster of each recording, ``(recordings,)`` from 0; a recording without the label is a cluster of its own."""
    names = [(one.utterance.labels.get(label) if label else None, one.utterance.recording_id) for one in assessed]
    numbers: dict[tuple[str | None, str], int] = {}
    return np.array([numbers.setdefault((name, "" if name else alone), len(numbers)) for name, alone in names], dtype=np.int64)


def _sum_by(clusters: np.ndarray, values: Sequence[int]) -> np.ndarray:
    sums = np.zeros(int(clusters.max(initial=-1)) + 1, dtype=np.int64)
    np.add.at(sums, clusters, np.array(values, dtype=np.int64))
    return sums


def _word_errors(one: Assessed) -> int:
    return one.word_errors


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: _rate(interval.value), f"{name}_low": _rate(interval.low), f"{name}_high": _rate(interval.high)}


def describe_groups(assessed: Sequence[Assessed], by: str, cluster: str | None = None) -> dict[str, dict[str, Any]]:
    """Word error rate with its interval for each value of the label ``by``."""
    groups: dict[str, list[Assessed]] = {}
    for one in assessed:
        groups.setdefault(one.utterance.labels.get(by, UNLABELLED), []).append(one)
    described = {}
    for name, members in sorted(groups.items()):
        full = describe(members, cluster=cluster)
        kept = ("wer", "wer_low", "wer_high", "cer", "substitutions", "deletions", "insertions", "reference_words")
        described[name] = {key: full[key] for key in (*kept, "utterances", "clusters", "failed")}
    return described


def measure_routing(assessed: Sequence[Assessed]) -> list[dict[str, float]] | None:
    """What happens if a human reads the least confident transcripts. For each share of transcripts sent to the human: the word
    error rate of the rest (0 where none is left), and the share of all errors that the human sees. Above a share of 0 at
    least one transcript is sent, and failed recordings go first. None where no transcript has a confidence.
    """
    sure = [one.utterance.confidence for one in assessed]
    if all(value is None for value in sure):
        return None
    order = np.argsort([-1.0 if value is None else value for value in sure], kind="stable")
    errors = np.array([one.word_errors for one in assessed])[order]
    words = np.array([one.errors.words for one in assessed])[order]
    routed = []
    for share in _ROUTED:
        sent = math.ceil(round(share * len(order), 9))
        left = words[sent:].sum()
        routed.append(
            {
                "share": share,
                "wer_of_rest": float(errors[sent:].sum() / left) if left else 0.0,
                "errors_caught": float(errors[:sent].sum() / errors.sum()) if errors.sum() else 0.0,
            }
        )
    return routed


def read_terms(texts: Mapping[str, str], normalise: Callable[[str], str]) -> Terms:
    """``texts``: category → lines of terms. A line may name its own category after a tab. Raises ConfigError without terms."""
    terms: dict[str, str] = {}
    for category, text in texts.items():
        for line in text.splitlines():
            term, _, own = line.partition("\t")
            if term.strip() and not term.startswith("#"):
                terms[normalise(term)] = own.strip() or category
    if not terms:
        raise ConfigError("--terms: the file holds no term; expected one a line, and behind a tab its category where wanted")
    return Terms(terms)


def _rate(value: float) -> float | None:
    return value if math.isfinite(value) else None
