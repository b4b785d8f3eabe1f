"""Scores of a system by group: voice, specialty, or any other column of the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dictalake.evaluation.word_errors import ErrorCount, count_errors

TOTAL = "all"
UNLABELLED = "(none)"


@dataclass(frozen=True)
class Utterance:
    """A reference and a system's hypothesis, which is None if the recording failed. ``labels`` are manifest columns, and
    ``confidence`` is the transcript's, 0–1.
    """

    recording_id: str
    reference: str
    hypothesis: str | None
    labels: Mapping[str, str]
    confidence: float | None = None


@dataclass(frozen=True)
class Score:
    """The errors of one group. ``failed`` of its utterances failed, and all their words count as deletions."""

    group: str
    errors: ErrorCount
    failed: int


def score(utterances: Sequence[Utterance], normalise: Callable[[str], str], by: str | None = None) -> list[Score]:
    """A Score for each value of the label ``by``, sorted, and at the end one for the group TOTAL."""
    groups: dict[str, list[Utterance]] = {}
    if by is not None:
        for utterance in utterances:
            groups.setdefault(utterance.labels.get(by, UNLABELLED), []).append(utterance)
    parts = [*sorted(groups.items()), (TOTAL, list(utterances))]
    return [
        Score(
            group,
            count_errors([(normalise(u.reference), normalise(u.hypothesis or "")) for u in members]),
            sum(u.hypothesis is None for u in members),
        )
        for group, members in parts
    ]


def relative_improvement(before: ErrorCount, after: ErrorCount) -> float | None:
    """The share by which the error rate fell, negative if it grew; None if there were no errors to begin with."""
    return (before.rate - after.rate) / before.rate if before.rate else None


def find_worst(
    utterances: Sequence[Utterance], normalise: Callable[[str], str], count: int
) -> list[tuple[Utterance, ErrorCount]]:
    """The ``count`` utterances with the highest error rates, worst first, without those that have no error."""
    counted = [(u, count_errors([(normalise(u.reference), normalise(u.hypothesis or ""))])) for u in utterances]
    counted.sort(key=lambda pair: (-pair[1].rate, pair[0].recording_id))
    return [pair for pair in counted[:count] if pair[1].rate > 0]
