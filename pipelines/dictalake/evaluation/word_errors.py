"""Word errors of hypotheses against references, counted by jiwer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True)
class ErrorCount:
    """Substitutions, deletions and insertions over the ``words`` reference words of ``utterances`` pairs."""

    utterances: int = 0
    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def rate(self) -> float:
        """Word error rate as a fraction; with no reference words, 0 when nothing was inserted and infinity otherwise."""
        errors = self.substitutions + self.deletions + self.insertions
        if self.words == 0:
            return 0.0 if errors == 0 else float("inf")
        return errors / self.words


def count_errors(pairs: Sequence[tuple[str, str]]) -> ErrorCount:
    """Counts the errors in ``(reference, hypothesis)`` pairs of normalised texts. Without a reference, all are insertions."""
    spoken = [(reference, hypothesis) for reference, hypothesis in pairs if reference]
    inserted = sum(len(hypothesis.split()) for reference, hypothesis in pairs if not reference)
    if not spoken:
        return ErrorCount(utterances=len(pairs), insertions=inserted)
    output = jiwer.process_words([r for r, _ in spoken], [h for _, h in spoken])
    return ErrorCount(
        utterances=len(pairs),
        words=output.hits + output.substitutions + output.deletions,
        substitutions=output.substitutions,
        deletions=output.deletions,
        insertions=output.insertions + inserted,
    )
