"""Measures how well a language model predicts held-out text: perplexity per piece and per word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import kenlm

from dictalake.errors import ConfigError


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of one model on one text. ``pieces`` and ``words`` do not count the ends of lines; the logarithms do.

    ``log10_p`` is over all tokens. ``unknown`` counts the pieces that the model does not know, and ``log10_p_unknown`` is
    their part of ``log10_p``.
    """

    pieces: int
    words: int
    lines: int
    unknown: int
    log10_p: float
    log10_p_unknown: float

    @property
    def per_piece(self) -> float:
        """10^(-log10 p / (pieces + ends of lines)), as ``kenlm.Model.perplexity`` gives for one line."""
        return float(10.0 ** (-self.log10_p / (self.pieces + self.lines)))

    @property
    def per_word(self) -> float:
        """The same per word and end of line: comparable between models over other pieces if no piece is unknown."""
        return float(10.0 ** (-self.log10_p / (self.words + self.lines)))

    @property
    def per_known_piece(self) -> float:
        """The same without unknown pieces: ``<unk>`` covers them all, so a model that knows little would look good."""
        known = self.pieces + self.lines - self.unknown
        return float(10.0 ** (-(self.log10_p - self.log10_p_unknown) / known))


def measure(model: kenlm.Model, lines: Sequence[str], words: int) -> Perplexity:
    """Measures ``model`` on ``lines`` of pieces that spell ``words`` words. Raises ConfigError if there is no line."""
    if not lines:
        raise ConfigError("--held-out: no dictation is left to measure perplexity on")
    scores = [score for line in lines for score in model.full_scores(line, bos=True, eos=True)]
    unknown = [log10_p for log10_p, _, is_unknown in scores if is_unknown]
    return Perplexity(
        pieces=len(scores) - len(lines),
        words=words,
        lines=len(lines),
        unknown=len(unknown),
        log10_p=math.fsum(log10_p for log10_p, _, _ in scores),
        log10_p_unknown=math.fsum(unknown),
    )
