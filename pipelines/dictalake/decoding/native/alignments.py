"""The likelihood of a text by CTC: the sum over all its alignments. Compiled."""

from __future__ import annotations

import numpy as np

from dictalake.decoding.native.compiled import compiled
from dictalake.decoding.native.frame_loop import add_logs


@compiled
def sum_alignments(emitted: np.ndarray, labels: np.ndarray) -> float:
    """ln of the sum; ``emitted`` float64 ``(frames, labels)`` are the log-probabilities of the labels, blanks between them."""
    count = len(labels)
    alpha = np.full(count, -np.inf)
    alpha[0] = emitted[0, 0]
    if count > 1:
        alpha[1] = emitted[0, 1]
    for frame in range(1, len(emitted)):
        for place in range(count - 1, -1, -1):
            total = alpha[place]
            if place > 0 and alpha[place - 1] > -np.inf:
                total = add_logs(total, alpha[place - 1])
            # A path may skip the blank before a token, except between two equal tokens, which need a blank between them.
            if place > 2 and place % 2 == 1 and labels[place] != labels[place - 2] and alpha[place - 2] > -np.inf:
                total = add_logs(total, alpha[place - 2])
            alpha[place] = total + emitted[frame, place]
    if count == 1 or alpha[count - 2] == -np.inf:
        return alpha[count - 1]
    return add_logs(alpha[count - 1], alpha[count - 2])
