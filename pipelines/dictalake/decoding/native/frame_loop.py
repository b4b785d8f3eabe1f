"""The search itself, frame by frame. Compiled.

A beam is a text and its last token (the blank, or the piece that still sounds), as in pyctcdecode; so "text, then blank" and
"text, still sounding" are two beams. In each frame every beam goes on by every token of the frame; what gives the same beam is
added up; the best ``width`` remain. Equal scores go by the order of token ids, then by the order of the beams before.

With hotwords there are two rankings in one pass, without their bonus (``PLAIN``) and with it (``BIASED``). Each keeps its own
best ``width`` and adds up its own scores, so each is exactly the search that it would be alone. Beams that both keep, nearly
all, are made once.
"""

from __future__ import annotations

import math

import numpy as np

from dictalake.decoding.native.compiled import compiled, compiled_part
from dictalake.decoding.native.steps import complete_words, find_place
from dictalake.decoding.native.tables import BIASED, CONTINUES_WORD, NO_RANK, PLAIN, UNKNOWN, Records

DONE, MISSING, FULL = range(3)  # why the loop returned: at the last frame, to fill tables, or for larger arrays
_NEGLIGIBLE = -37.0
_REPEAT_BLANK, _REPEAT_TOKEN, _NEW_TOKEN = range(3)  # ``step`` of a claim


@compiled
def search_frames(
    settings: Records,
    offsets: np.ndarray,
    token_ids: np.ndarray,
    logp: np.ndarray,
    tokens: Records,
    words: Records,
    ngrams: Records,
    contexts: Records,
    asked: Records,
    hot_steps: Records,
    bonuses: Records,
    nodes: Records,
    children: Records,
    spans: Records,
    beams: Records,
    standings: Records,
    candidates: Records,
    claims: Records,
    heap: np.ndarray,
    progress: Records,
    missing: np.ndarray,
) -> int:
    """Searches from frame ``progress.frame`` on; returns why it stopped. Nothing of the frame where it stopped is kept."""
    rankings, blank_id, width = settings[0].rankings, settings[0].blank_id, settings[0].width
    state = progress[0]
    while state.frame < len(offsets) - 1:
        first, end = offsets[state.frame], offsets[state.frame + 1]
        only_blank = end - first == 1 and token_ids[first] == blank_id
        if only_blank and state.quiet == 1:
            # After a blank, another one neither makes, joins nor reorders beams.
            for beam in range(state.beams):
                for ranking in range(rankings):
                    standings[state.side, ranking, beam].score += logp[first]
            state.frame += 1
            continue
        if state.nodes + rankings * width > len(nodes) or state.spans + 2 * rankings * width > len(spans):
            return FULL
        if not only_blank:
            complete_words(settings, words, ngrams, contexts, asked, hot_steps, bonuses, nodes, beams, progress, missing)
            if state.missing > 0:
                return MISSING
        count = 0
        for index in range(first, end):
            count = _extend(
                token_ids[index], logp[index], count, settings, nodes, children, beams, standings, candidates, claims, progress
            )
        agree = _score(count, settings, tokens, nodes, candidates, claims)
        kept, chosen = 0, 0
        for ranking in range(rankings):
            if ranking == PLAIN or not agree:
                chosen = choose(ranking, count, settings, claims, heap)
            kept = _keep(ranking, chosen, kept, settings, tokens, nodes, children, standings, candidates, heap, progress)
            _place(ranking, chosen, spans, beams, standings, candidates, claims, heap, progress)
        state.quiet = 1
        for candidate in range(count):
            one = candidates[candidate]
            if one.beam >= 0:
                beams[one.beam].node, beams[one.beam].last = one.node, one.token
                if one.token != blank_id:
                    state.quiet = 0
        state.side = 1 - state.side
        state.beams = kept
        state.frame += 1
    return DONE


@compiled_part
def _extend(
    token: int,
    logp: float,
    count: int,
    settings: Records,
    nodes: Records,
    children: Records,
    beams: Records,
    standings: Records,
    candidates: Records,
    claims: Records,
    progress: Records,
) -> int:
    """Lets all beams go on by one token; returns how many candidates there are now."""
    progress[0].stamp += 1
    stamp, rankings, side = progress[0].stamp, settings[0].rankings, progress[0].side
    for beam in range(progress[0].beams):
        node = beams[beam].node
        target, step = node, _REPEAT_BLANK
        if token != settings[0].blank_id:
            step = _REPEAT_TOKEN
            if beams[beam].last != token:
                step, target = _NEW_TOKEN, -1
                if nodes[node].has_child == 1:
                    place = find_place(children, node * settings[0].tokens + token)
                    if children[place].key != -1:
                        target = children[place].next
        if target >= 0:
            is_new = nodes[target].stamp != stamp
            if is_new:
                nodes[target].stamp, nodes[target].slot = stamp, count
            candidate = nodes[target].slot
        else:
            is_new = nodes[node].new_stamp != stamp
            if is_new:
                nodes[node].new_stamp, nodes[node].new_slot = stamp, count
            candidate = nodes[node].new_slot
        before = np.nan
        if is_new:
            count += 1
            one = candidates[candidate]
            one.node, one.parent, one.token, one.beam = target, node, token, -1
            for ranking in range(rankings):
                claims[ranking, candidate].score, claims[ranking, candidate].source = -np.inf, -1
        for ranking in range(rankings):
            standing, claim = standings[side, ranking, beam], claims[ranking, candidate]
            if standing.rank == NO_RANK:
                continue
            score = standing.score + logp
            if claim.source < 0:
                claim.score = score
            elif ranking == BIASED and score == standings[side, PLAIN, beam].score + logp and claim.score == before:
                claim.score = claims[PLAIN, candidate].score  # the same sum again
            else:
                before = claim.score
                claim.score = add_logs(claim.score, score)
            # The times are those of the best beam that leads here.
            if claim.source < 0 or standing.rank < standings[side, ranking, claim.source].rank:
                claim.source, claim.step = beam, step
    return count


@compiled_part
def _score(count: int, settings: Records, tokens: Records, nodes: Records, candidates: Records, claims: Records) -> bool:
    """Writes the totals of all candidates; returns whether both rankings have them in the same order, as a bonus is rare."""
    rankings, agree, bonus = settings[0].rankings, True, np.nan
    for candidate in range(count):
        node, parent = candidates[candidate].node, nodes[candidates[candidate].parent]
        token = candidates[candidate].token
        if node >= 0:
            lm_score, hot_score, partial = nodes[node].lm_score, nodes[node].hot_score, nodes[node].partial
        elif is_glued(parent.token, token, tokens):
            lm_score, hot_score = parent.lm_score, parent.hot_score
            partial = stretch(settings[0].glued_partial, parent.length + tokens[token].length)
        else:
            lm_score, hot_score, partial = parent.next_lm_score, parent.next_hot_score, tokens[token].partial
        claims[PLAIN, candidate].total = claims[PLAIN, candidate].score + (lm_score + partial)
        if rankings == 2:
            claims[BIASED, candidate].total = claims[BIASED, candidate].score + (lm_score + hot_score + partial)
            agree = agree and claims[BIASED, candidate].score == claims[PLAIN, candidate].score
            agree = agree and (candidate == 0 or hot_score == bonus)
            bonus = hot_score
    return agree


@compiled_part
def is_glued(before: int, token: int, tokens: Records) -> bool:
    """Whether ``token`` behind ``before`` begins no word: pyctcdecode glues a special token to the word before."""
    return before >= 0 and tokens[token].kind == CONTINUES_WORD and tokens[before].kind != UNKNOWN


@compiled_part
def stretch(price: float, length: int) -> float:
    """The price of an unfinished word of ``length`` letters: more if it is long."""
    return price * length / 6 if length > 6 else price


@compiled_part
def _keep(
    ranking: int,
    chosen: int,
    kept: int,
    settings: Records,
    tokens: Records,
    nodes: Records,
    children: Records,
    standings: Records,
    candidates: Records,
    heap: np.ndarray,
    progress: Records,
) -> int:
    """Makes beams of the chosen candidates, with nodes for texts that have none yet; returns how many beams there are now."""
    for rank in range(chosen):
        one = candidates[heap[rank]]
        if one.beam >= 0:
            continue
        one.beam = kept
        if ranking == BIASED:
            standings[1 - progress[0].side, PLAIN, kept].rank = NO_RANK
        elif settings[0].rankings == 2:
            standings[1 - progress[0].side, BIASED, kept].rank = NO_RANK
        kept += 1
        if one.node >= 0:
            continue
        one.node = progress[0].nodes
        progress[0].nodes += 1
        node, parent, token = nodes[one.node], nodes[one.parent], one.token
        node.token, node.parent, node.done, node.stamp, node.new_stamp, node.has_child = token, one.parent, 0, 0, 0, 0
        if is_glued(parent.token, token, tokens):
            node.word, node.length, node.spoken = settings[0].glued_word, parent.length + tokens[token].length, parent.spoken
            node.partial = stretch(settings[0].glued_partial, node.length)
            node.lm_state, node.lm_score, node.hot_state = parent.lm_state, parent.lm_score, parent.hot_state
            node.hot_best, node.hot_score = parent.hot_best, parent.hot_score
        else:
            node.word, node.length, node.partial = token, tokens[token].length, tokens[token].partial
            node.spoken = token if tokens[token].kind < CONTINUES_WORD else -1
            node.lm_state, node.lm_score = parent.next_lm_state, parent.next_lm_score
            node.hot_state, node.hot_best, node.hot_score = parent.next_hot_state, parent.next_hot_best, parent.next_hot_score
        parent.has_child = 1
        key = one.parent * settings[0].tokens + token
        place = find_place(children, key)
        children[place].key, children[place].next = key, one.node
    return kept


@compiled_part
def _place(
    ranking: int,
    chosen: int,
    spans: Records,
    beams: Records,
    standings: Records,
    candidates: Records,
    claims: Records,
    heap: np.ndarray,
    progress: Records,
) -> None:
    """Writes how the chosen candidates stand in a ranking, and where their tokens lie in time."""
    side, frame = progress[0].side, progress[0].frame
    for rank in range(chosen):
        candidate = heap[rank]
        claim = claims[ranking, candidate]
        source, to = standings[side, ranking, claim.source], standings[1 - side, ranking, candidates[candidate].beam]
        to.rank, to.score, to.span, to.start, to.end = rank, claim.score, source.span, source.start, source.end
        if claim.step == _NEW_TOKEN:
            if ranking == BIASED and _is_placed(candidate, claim.source, side, standings, candidates, claims):
                to.span = standings[1 - side, PLAIN, candidates[candidate].beam].span
            elif source.start >= 0:
                span = spans[progress[0].spans]
                span.start, span.end, span.before, span.node = source.start, source.end, source.span, beams[claim.source].node
                to.span = progress[0].spans
                progress[0].spans += 1
            to.start = frame
        if claim.step != _REPEAT_BLANK:
            to.end = frame + 1


@compiled_part
def _is_placed(candidate: int, source: int, side: int, standings: Records, candidates: Records, claims: Records) -> bool:
    """Whether the plain ranking has the same beam with the same times."""
    if standings[1 - side, PLAIN, candidates[candidate].beam].rank == NO_RANK or claims[PLAIN, candidate].source != source:
        return False
    plain, biased = standings[side, PLAIN, source], standings[side, BIASED, source]
    return plain.span == biased.span and plain.start == biased.start and plain.end == biased.end


@compiled_part
def add_logs(one: float, other: float) -> float:
    """ln(e^one + e^other)."""
    best, difference = max(one, other), -abs(one - other)
    # Below, the sum is the larger one to the last bit.
    return best + math.log(1.0 + math.exp(difference)) if difference > _NEGLIGIBLE else best


@compiled_part
def choose(ranking: int, count: int, settings: Records, claims: Records, heap: np.ndarray) -> int:
    """Puts the best candidates of a ranking first in ``heap``, the best first; returns how many there are.

    There are ``width`` at most, none more than ``prune_logp`` worse than the best. Of equals the first counts as better.
    """
    least = -np.inf
    for candidate in range(count):
        least = max(least, claims[ranking, candidate].total)
    least += settings[0].prune_logp
    size = 0
    for candidate in range(count):
        if claims[ranking, candidate].source < 0 or claims[ranking, candidate].total < least:
            continue
        if size < settings[0].width:  # the worst of the chosen is on top
            place = size
            size += 1
            while place > 0 and is_worse(ranking, candidate, heap[(place - 1) // 2], claims):
                heap[place] = heap[(place - 1) // 2]
                place = (place - 1) // 2
            heap[place] = candidate
        elif is_worse(ranking, heap[0], candidate, claims):
            _sink(ranking, candidate, size, claims, heap)
    for last in range(size - 1, 0, -1):
        worst = heap[0]
        _sink(ranking, heap[last], last, claims, heap)
        heap[last] = worst
    return size


@compiled_part
def _sink(ranking: int, candidate: int, size: int, claims: Records, heap: np.ndarray) -> None:
    """Replaces the top of a heap of ``size`` by ``candidate``."""
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and is_worse(ranking, heap[child + 1], heap[child], claims):
            child += 1
        if not is_worse(ranking, heap[child], candidate, claims):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = candidate


@compiled_part
def is_worse(ranking: int, one: int, other: int, claims: Records) -> bool:
    mine, theirs = claims[ranking, one].total, claims[ranking, other].total
    return mine < theirs or (mine == theirs and one > other)
