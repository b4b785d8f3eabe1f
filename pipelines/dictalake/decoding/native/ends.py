"""Before and after the loop over the frames: the tokens that each frame tries, and the n-best list. Compiled."""

from __future__ import annotations

import math

import numpy as np

from dictalake.decoding.native.compiled import compiled
from dictalake.decoding.native.frame_loop import add_logs, choose
from dictalake.decoding.native.tables import STARTS_WORD, Records

_LEAST_LOGP = math.log(1e-15)


@compiled
def select_tokens(
    offsets: np.ndarray,
    token_ids: np.ndarray,
    logp: np.ndarray,
    vocabulary_size: int,
    min_logp: float,
    tried_offsets: np.ndarray,
    tried_ids: np.ndarray,
    tried_logp: np.ndarray,
) -> int:
    """Writes the tokens that each frame tries, by rising id, with log-probabilities that add up to one; returns the most.

    A frame tries what is at least as likely as ``min_logp``, and always its likeliest token, which is its first.
    """
    count, most = 0, 1
    for frame in range(len(offsets) - 1):
        first, end = offsets[frame], offsets[frame + 1]
        kept = 0.0
        for index in range(first, end):
            kept += math.exp(logp[index])
        # What is left over belongs to the tokens that were pruned: see ``Emissions.dense``.
        total = math.log(kept + max(1.0 - kept, 1e-12) if end - first < vocabulary_size else kept)
        begun = count
        for index in range(first, end):
            normalised = min(max(logp[index] - total, _LEAST_LOGP), 0.0)
            if normalised < min_logp and index > first:
                continue
            place = count
            while place > begun and tried_ids[place - 1] > token_ids[index]:
                tried_ids[place], tried_logp[place] = tried_ids[place - 1], tried_logp[place - 1]
                place -= 1
            tried_ids[place], tried_logp[place] = token_ids[index], normalised
            count += 1
        tried_offsets[frame + 1] = count
        most = max(most, count - begun)
    return most


@compiled
def begin(settings: Records, bonuses: Records, nodes: Records, children: Records, beams: Records, progress: Records) -> None:
    """Forgets the recording before: one beam without text."""
    for place in range(len(children)):
        children[place].key = -1
    state, node, beam = progress[0], nodes[0], beams[0]
    state.frame, state.beams, state.nodes, state.spans, state.quiet, state.stamp, state.missing = 0, 1, 1, 0, 0, 0, 0
    node.token, node.parent, node.word, node.length, node.spoken, node.done = -1, -1, 0, 0, -1, 1
    node.stamp, node.new_stamp, node.has_child = 0, 0, 0
    node.partial, node.lm_score, node.next_lm_score, node.hot_best, node.next_hot_best = 0.0, 0.0, 0.0, 0.0, 0.0
    node.lm_state, node.next_lm_state = settings[0].lm_start, settings[0].lm_start
    node.hot_state, node.next_hot_state = 0, 0
    node.hot_score, node.next_hot_score = bonuses[0].unfinished, bonuses[0].unfinished
    beam.node, beam.last, beam.score, beam.span, beam.start, beam.end = 0, -1, 0.0, -1, -1, -1


@compiled
def finish(
    settings: Records,
    bonuses: Records,
    nodes: Records,
    beams: Records,
    candidates: Records,
    heap: np.ndarray,
    best: Records,
    progress: Records,
) -> int:
    """Joins the beams of one text and writes the n-best list; returns its length.

    The last place of ``best`` gets the hypothesis that is the best without the bonus of hotwords.
    """
    state = progress[0]
    state.stamp += 1
    count = 0
    for beam in range(state.beams):
        node = nodes[beams[beam].node]
        if node.stamp != state.stamp:
            node.stamp, node.slot = state.stamp, count
            one = candidates[count]
            one.node, one.source, one.score = beams[beam].node, beam, beams[beam].score
            count += 1
        else:
            candidates[node.slot].score = add_logs(candidates[node.slot].score, beams[beam].score)
    plain = 0
    for candidate in range(count):
        one, node = candidates[candidate], nodes[candidates[candidate].node]
        # In the loop the score was without the last word.
        node.lm_score = settings[0].nothing
        if node.token >= 0:
            node.lm_score = node.next_lm_score + node.end_score
        one.plain_total = one.score + node.lm_score
        one.total = one.plain_total
        if settings[0].has_hotwords == 1:
            one.total = one.score + (node.lm_score + node.next_hot_score)
        if one.plain_total > candidates[plain].plain_total:
            plain = candidate
    chosen = choose(count, settings, candidates, heap)
    heap[chosen] = plain
    for rank in range(chosen + 1):
        one, found = candidates[heap[rank]], best[rank if rank < chosen else len(best) - 1]
        source, node = beams[one.source], nodes[one.node]
        found.node, found.span, found.start, found.end = one.node, source.span, source.start, source.end
        found.acoustic, found.lm, found.hot = one.score, node.lm_score, 0.0
        if settings[0].has_hotwords == 1:  # a term that is not finished counts no longer
            found.hot = node.next_hot_best + bonuses[node.next_hot_state].finished
    return chosen


@compiled
def list_pieces(
    best: Records,
    nodes: Records,
    spans: Records,
    tokens: Records,
    first_rows: np.ndarray,
    ends: np.ndarray,
    chosen: np.ndarray,
    pieces: np.ndarray,
) -> tuple[int, int]:
    """Writes the pieces of the first ``len(ends)`` hypotheses, the last first, each of them a row of ``pieces``.

    A row is token, first and last frame, and the next row that begins in the same frame, whose first is in ``first_rows``;
    hypotheses share rows. ``ends[n]`` becomes the number of ``chosen`` rows up to hypothesis ``n``. Returns how many are chosen
    and how many rows there are; where that is more than there is room for call again.
    """
    used, rows = 0, 0
    for frame in range(len(first_rows)):
        first_rows[frame] = -1
    for rank in range(len(ends)):
        node, span, start, end = best[rank].node, best[rank].span, best[rank].start, best[rank].end
        while node > 0:
            token = nodes[node].token
            if tokens[token].kind == STARTS_WORD:
                row = first_rows[start]
                while row >= 0 and (pieces[row, 0] != token or pieces[row, 2] != end - 1):
                    row = pieces[row, 3]
                if row < 0 and rows < len(pieces):
                    row = rows
                    pieces[row, 0], pieces[row, 1], pieces[row, 2], pieces[row, 3] = token, start, end - 1, first_rows[start]
                    first_rows[start] = row
                    rows += 1
                if used < len(chosen):
                    chosen[used] = row
                used += 1
            node = 0
            if span >= 0:
                node, start, end, span = spans[span].node, spans[span].start, spans[span].end, spans[span].before
        ends[rank] = used
    return used, rows


@compiled
def find_peaks(pieces: np.ndarray, offsets: np.ndarray, token_ids: np.ndarray, logp: np.ndarray, peaks: np.ndarray) -> None:
    """The highest log-probability of each piece in its frames."""
    for row in range(len(pieces)):
        peak = -np.inf
        for index in range(offsets[pieces[row, 1]], offsets[pieces[row, 2] + 1]):
            if token_ids[index] == pieces[row, 0]:
                peak = max(peak, logp[index])
        peaks[row] = min(peak, 0.0)


@compiled
def share_best(
    pieces: np.ndarray,
    chosen: np.ndarray,
    ends: np.ndarray,
    frame_index: np.ndarray,
    scores: np.ndarray,
    slack: int,
    shares: np.ndarray,
) -> None:
    """The posterior of each piece of the first hypothesis: see ``measure_posterior``. Pieces come the last first."""
    highest, total = -np.inf, 0.0
    for rank in range(len(scores)):
        highest = max(highest, scores[rank])
    for rank in range(len(scores)):
        total += math.exp(scores[rank] - highest)
    for mine in range(ends[0]):
        shares[mine] = 1.0
    for other in range(1, len(ends)):
        share = math.exp(scores[other] - highest) / total
        near = ends[other - 1]
        for mine in range(ends[0]):
            token, start = pieces[chosen[mine], 0], frame_index[pieces[chosen[mine], 1]]
            # Pieces of the other that begin too late for this one are too late for all that follow.
            while near < ends[other] and frame_index[pieces[chosen[near], 1]] - slack > start:
                near += 1
            found, at = False, near
            while at < ends[other] and not found and start < frame_index[pieces[chosen[at], 2]] + 1 + slack:
                found = pieces[chosen[at], 0] == token
                at += 1
            if not found:
                shares[mine] = max(0.0, shares[mine] - share)
