"""Combines the hypotheses for the channels of a recording into hypotheses for the whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from dictalake.records import Hypothesis


def combine_channels(channels: Sequence[Sequence[Hypothesis]], most: int) -> list[tuple[Hypothesis, ...]]:
    """The ``most`` best ways to take one hypothesis of each channel, by the sum of their total scores.

    ``channels`` are n-best lists, best first. The first result has the best hypothesis of each channel. Channels are searched
    separately, so their scores add up.
    """
    combined: list[tuple[Hypothesis, ...]] = [()]
    for readings in channels:
        best, *others = [(*before, reading) for before, reading in product(combined, readings)]
        # What the decoder puts first stays first: its score may include a hotword that was refused.
        combined = [best, *sorted(others, key=lambda chosen: -sum(reading.total_score for reading in chosen))[: most - 1]]
    return combined
