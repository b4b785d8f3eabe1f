"""How well a language model predicts held-out text: perplexity a piece and a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import kenlm

from dictalake.errors import ConfigError


@dataclass(frozen=True)
class Perplexity:
    """Of one model on one text. ``pieces`` and ``words`` do not count the ends of lines; the logarithms do.

    ``log10_p`` is of all tokens, ``unknown`` of the pieces that the model does not know, ``log10_p_unknown`` their share of it.
    """

    pieces: int
    words: int
    lines: int
    unknown: int
    log10_p: float
    log10_p_unknown: float

    @property
    def per_piece(self) -> float:
        """10^(-log10 p / (pieces + ends of lines)), what ``kenlm.Model.perplexity`` gives for one line."""
        return float(10.0 ** (-self.log10_p / (self.pieces + self.lines)))

    @property
    def per_word(self) -> float:
        """The same for words and ends of lines: comparable between models over other pieces, as long as none is unknown."""
        return float(10.0 ** (-self.log10_p / (self.words + self.lines)))

    @property
    def per_known_piece(self) -> float:
        """Unknown pieces left out: ``<unk>`` stands for all of them, so a model that knows little looks good otherwise."""
        known = self.pieces + self.lines - self.unknown
        return float(10.0 ** (-(self.log10_p - self.log10_p_unknown) / known))


def measure(model: kenlm.Model, lines: Sequence[str], words: int) -> Perplexity:
    """``model`` on ``lines`` of pieces, which spell ``words`` words. Raises ConfigError if there is no line."""
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
