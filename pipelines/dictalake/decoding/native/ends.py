"""Before and after the loop over the frames: the tokens that each frame tries, and the n-best list. Compiled."""

from __future__ import annotations

import math

import numpy as np

from dictalake.decoding.native.compiled import compiled, compiled_part
from dictalake.decoding.native.frame_loop import DONE, MISSING, add_logs, choose
from dictalake.decoding.native.steps import complete, score_end
from dictalake.decoding.native.tables import BIASED, NO_RANK, STARTS_WORD, Records

_LEAST_LOGP = math.log(1e-15)


@compiled
def select_tokens(
    offsets: np.ndarray,
    token_ids: np.ndarray,
    logp: np.ndarray,
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
        total = math.log(kept + max(1.0 - kept, 1e-12))
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
def begin(
    settings: Records,
    bonuses: Records,
    nodes: Records,
    children: Records,
    beams: Records,
    standings: Records,
    progress: Records,
) -> None:
    """Forgets the recording before: one beam without text."""
    for place in range(len(children)):
        children[place].key = -1
    state, node = progress[0], nodes[0]
    state.frame, state.beams, state.nodes, state.spans, state.quiet, state.stamp, state.missing = 0, 1, 1, 0, 0, 0, 0
    node.token, node.parent, node.word, node.length, node.spoken, node.done = -1, -1, 0, 0, -1, 1
    node.stamp, node.new_stamp = 0, 0
    node.partial, node.lm_score, node.next_lm_score, node.hot_best, node.next_hot_best = 0.0, 0.0, 0.0, 0.0, 0.0
    node.lm_state, node.next_lm_state = settings[0].lm_start, settings[0].lm_start
    node.hot_state, node.next_hot_state = 0, 0
    node.hot_score, node.next_hot_score = bonuses[0].unfinished, bonuses[0].unfinished
    beams[0].node, beams[0].last = 0, -1
    for ranking in range(settings[0].rankings):
        standing = standings[ranking, 0]
        standing.score, standing.rank, standing.span, standing.start, standing.end = 0.0, 0, -1, -1, -1


@compiled
def finish(
    settings: Records,
    words: Records,
    ngrams: Records,
    contexts: Records,
    asked: Records,
    hot_steps: Records,
    bonuses: Records,
    nodes: Records,
    beams: Records,
    standings: Records,
    candidates: Records,
    claims: Records,
    heap: np.ndarray,
    best: Records,
    counts: np.ndarray,
    progress: Records,
    missing: np.ndarray,
) -> int:
    """Joins the beams of one text, scores their last words and the end, and writes the n-best list of each ranking."""
    state, rankings = progress[0], settings[0].rankings
    for beam in range(state.beams):
        complete(beams[beam].node, settings, words, ngrams, contexts, asked, hot_steps, bonuses, nodes, progress, missing)
        if nodes[beams[beam].node].done == 1:
            score_end(nodes[beams[beam].node].next_lm_state, settings, words, ngrams, contexts, asked, progress, missing)
    if state.missing > 0:
        return MISSING
    count = _join_texts(settings, nodes, beams, standings, candidates, claims, progress)
    for ranking in range(rankings):
        for candidate in range(count):
            node = nodes[candidates[candidate].node]
            lm_score = settings[0].nothing
            if node.token >= 0:
                lm_score = node.next_lm_score + score_end(
                    node.next_lm_state, settings, words, ngrams, contexts, asked, progress, missing
                )
            # A beam's node needs its score in the loop no longer.
            node.lm_score = lm_score
            hot_score = node.next_hot_score if ranking == BIASED else 0.0
            claims[ranking, candidate].total = claims[ranking, candidate].score + (lm_score + hot_score)
        counts[ranking] = choose(ranking, count, settings, claims, heap)
        for rank in range(counts[ranking]):
            one, claim = candidates[heap[rank]], claims[ranking, heap[rank]]
            source, node, found = standings[ranking, claim.source], nodes[one.node], best[ranking, rank]
            found.node, found.span, found.start, found.end = one.node, source.span, source.start, source.end
            found.acoustic, found.lm, found.hot = claim.score, node.lm_score, 0.0
            if ranking == BIASED:  # a term that is not finished counts no longer
                found.hot = node.next_hot_best + bonuses[node.next_hot_state].finished
    return DONE


@compiled_part
def _join_texts(
    settings: Records,
    nodes: Records,
    beams: Records,
    standings: Records,
    candidates: Records,
    claims: Records,
    progress: Records,
) -> int:
    """A candidate for each text, whether it ends in a blank or not; returns how many there are."""
    progress[0].stamp += 1
    count = 0
    for beam in range(progress[0].beams):
        node = nodes[beams[beam].node]
        if node.stamp != progress[0].stamp:
            node.stamp, node.slot = progress[0].stamp, count
            candidates[count].node = beams[beam].node
            for ranking in range(settings[0].rankings):
                claims[ranking, count].score, claims[ranking, count].source = -np.inf, -1
            count += 1
        for ranking in range(settings[0].rankings):
            standing, claim = standings[ranking, beam], claims[ranking, node.slot]
            if standing.rank == NO_RANK:
                continue
            claim.score = standing.score if claim.source < 0 else add_logs(claim.score, standing.score)
            if claim.source < 0 or standing.rank < standings[ranking, claim.source].rank:
                claim.source = beam
    return count


@compiled
def unroll(
    best: Records,
    nodes: Records,
    spans: Records,
    tokens: Records,
    offsets: np.ndarray,
    token_ids: np.ndarray,
    logp: np.ndarray,
    ends: np.ndarray,
    pieces: np.ndarray,
    peaks: np.ndarray,
) -> int:
    """Writes the pieces of each of ``best``, the last first: token, first and last frame, highest log-probability there.

    ``pieces`` is ``(most, 3)``; ``ends[n]`` becomes the number of pieces up to hypothesis ``n``, and there are ``len(ends)``.
    Returns how many pieces there are, which may be more than there is room for; then call again.
    """
    count = 0
    for rank in range(len(ends)):
        found = best[rank]
        node, span, start, end = found.node, found.span, found.start, found.end
        while node > 0:
            token = nodes[node].token
            if tokens[token].kind == STARTS_WORD:
                if count < len(peaks):
                    pieces[count, 0], pieces[count, 1], pieces[count, 2] = token, start, end - 1
                    peak = -np.inf
                    for index in range(offsets[start], offsets[end]):
                        if token_ids[index] == token:
                            peak = max(peak, logp[index])
                    peaks[count] = min(peak, 0.0)
                count += 1
            node = nodes[node].parent
            if node > 0:
                start, end, span = spans[span].start, spans[span].end, spans[span].before
        ends[rank] = count
    return count
