"""The search itself, frame by frame. Compiled.

A beam is a text and its last token (the blank, or the piece that still sounds), as in pyctcdecode; so "text, then blank" and
"text, still sounding" are two beams. In each frame every beam goes on by every token of the frame; what gives the same beam is
added up; the best ``width`` remain. Equal scores go by the order of token ids, then by the order of the beams before.

With hotwords beams are ranked with their bonus. Some that are the best without any bonus stay too, so that there is a plain
hypothesis to compare with. Where no beam has a bonus, or all have the same, these are among the best anyway.
"""

from __future__ import annotations

import math

import numpy as np

from dictalake.decoding.native.compiled import compiled, compiled_part
from dictalake.decoding.native.hash_table import find_place
from dictalake.decoding.native.steps import complete_words
from dictalake.decoding.native.tables import CONTINUES_WORD, MAPPED, UNKNOWN, LmTables, Records

# Why the loop returned: at the end of the recording, to fill tables, for larger arrays, or for larger tables of a KenLM file
DONE, MISSING, FULL, TABLES_FULL = range(4)
_NEGLIGIBLE = -37.0
_REPEAT_BLANK, _REPEAT_TOKEN, _NEW_TOKEN = range(3)  # ``step`` of a candidate


@compiled
def search_frames(
    settings: Records,
    offsets: np.ndarray,
    token_ids: np.ndarray,
    logp: np.ndarray,
    tokens: Records,
    words: Records,
    lm: LmTables,
    hot_steps: Records,
    bonuses: Records,
    nodes: Records,
    children: Records,
    spans: Records,
    beams: Records,
    after: Records,
    candidates: Records,
    heap: np.ndarray,
    progress: Records,
    missing: np.ndarray,
) -> int:
    """Searches from frame ``progress.frame`` on; returns why it stopped.

    Nothing of the frame where it stopped is kept. At the end it scores the last word of each beam, and the end itself.
    """
    blank_id, plain_width = settings[0].blank_id, settings[0].plain_width
    state, most, frames = progress[0], settings[0].width + plain_width, len(offsets) - 1
    while True:
        first, end, is_end = 0, 0, state.frame == frames
        if not is_end:
            first, end = offsets[state.frame], offsets[state.frame + 1]
            if state.nodes + most > len(nodes) or state.spans + most > len(spans):
                return FULL
        only_blank = end - first == 1 and token_ids[first] == blank_id
        if only_blank and state.quiet == 1:
            # After a blank, another one neither makes, joins nor reorders beams.
            for beam in range(state.beams):
                beams[beam].score += logp[first]
            state.frame += 1
            continue
        if not only_blank:
            if settings[0].lm_kind == MAPPED and not _has_room(most, lm):
                return TABLES_FULL
            complete_words(is_end, settings, words, lm, hot_steps, bonuses, nodes, beams, progress, missing)
            if state.missing > 0:
                return MISSING
        if is_end:
            return DONE
        count = 0
        for index in range(first, end):
            count = _extend(token_ids[index], logp[index], count, settings, nodes, children, beams, candidates, progress)
        agree = _score(count, settings, tokens, nodes, candidates)
        chosen = choose(count, settings, candidates, heap)
        if not agree:
            chosen = _add_plain(count, chosen, plain_width, candidates, heap)
        _keep(chosen, settings, tokens, nodes, children, spans, beams, after, candidates, heap, progress)
        state.quiet, state.beams = 1, chosen
        for beam in range(chosen):
            beams[beam] = after[beam]
            if beams[beam].last != blank_id:
                state.quiet = 0
        state.frame += 1


@compiled_part
def _has_room(most: int, lm: LmTables) -> bool:
    """Whether all that ``most`` beams can look up in a mapped KenLM file fits into its tables: two words each.

    Where it does not, ``KenlmTables.make_room`` makes the table larger that fails here.
    """
    _, _, table, _, _, states, filled = lm
    return 2 * (filled[0].places + 4 * most) < len(table) and filled[0].states + 2 * most < len(states)


@compiled_part
def _extend(
    token: int,
    logp: float,
    count: int,
    settings: Records,
    nodes: Records,
    children: Records,
    beams: Records,
    candidates: Records,
    progress: Records,
) -> int:
    """Lets all beams go on by one token; returns how many candidates there are now."""
    progress[0].stamp += 1
    stamp = progress[0].stamp
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
        one = candidates[candidate]
        if is_new:
            # The beams come with the best first, and the times are those of the best that leads here.
            one.node, one.parent, one.token, one.source, one.step, one.is_kept = target, node, token, beam, step, 0
            one.score = beams[beam].score + logp
            count += 1
        else:
            one.score = add_logs(one.score, beams[beam].score + logp)
    return count


@compiled_part
def _score(count: int, settings: Records, tokens: Records, nodes: Records, candidates: Records) -> bool:
    """Writes the totals of all candidates; returns whether they have all the same bonus, so that it changes no order."""
    agree, bonus = True, 0.0
    for candidate in range(count):
        one = candidates[candidate]
        parent = nodes[one.parent]
        if one.node >= 0:
            node = nodes[one.node]
            lm_score, hot_score, partial = node.lm_score, node.hot_score, node.partial
        elif is_glued(parent.token, one.token, tokens):
            lm_score, hot_score = parent.lm_score, parent.hot_score
            partial = stretch(settings[0].glued_partial, parent.length + tokens[one.token].length)
        else:
            lm_score, hot_score, partial = parent.next_lm_score, parent.next_hot_score, tokens[one.token].partial
        one.plain_total = one.score + (lm_score + partial)
        one.total = one.plain_total
        if settings[0].has_hotwords == 1:
            one.total = one.score + (lm_score + hot_score + partial)
            agree = agree and (candidate == 0 or hot_score == bonus)
            bonus = hot_score
    return agree


@compiled_part
def _add_plain(count: int, chosen: int, plain_width: int, candidates: Records, heap: np.ndarray) -> int:
    """Adds those of the ``plain_width`` best candidates without their bonus that are not among the chosen."""
    kept = chosen
    for rank in range(chosen):
        candidates[heap[rank]].is_kept = 1
    for _ in range(plain_width):
        best = -1
        for candidate in range(count):
            if candidates[candidate].is_kept < 2 and (
                best < 0 or candidates[candidate].plain_total > candidates[best].plain_total
            ):
                best = candidate
        if best < 0:
            break
        if candidates[best].is_kept == 0:
            heap[kept] = best
            kept += 1
        candidates[best].is_kept = 2
    return kept


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
    chosen: int,
    settings: Records,
    tokens: Records,
    nodes: Records,
    children: Records,
    spans: Records,
    beams: Records,
    after: Records,
    candidates: Records,
    heap: np.ndarray,
    progress: Records,
) -> None:
    """Makes beams of the chosen candidates, with nodes for texts that have none yet, and spans for pieces that are over."""
    for beam in range(chosen):
        one, to = candidates[heap[beam]], after[beam]
        source = beams[one.source]
        to.score, to.last, to.span, to.start, to.end = one.score, one.token, source.span, source.start, source.end
        if one.step == _NEW_TOKEN:
            if source.start >= 0:
                span = spans[progress[0].spans]
                span.start, span.end, span.before, span.node = source.start, source.end, source.span, source.node
                to.span = progress[0].spans
                progress[0].spans += 1
            to.start = progress[0].frame
        if one.step != _REPEAT_BLANK:
            to.end = progress[0].frame + 1
        to.node = one.node
        if one.node >= 0:
            continue
        to.node = progress[0].nodes
        progress[0].nodes += 1
        node, parent, token = nodes[to.node], nodes[one.parent], one.token
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
        children[place].key, children[place].next = key, to.node


@compiled_part
def add_logs(one: float, other: float) -> float:
    """ln(e^one + e^other)."""
    best, difference = max(one, other), -abs(one - other)
    # Below, the sum is the larger one to the last bit.
    return best + math.log(1.0 + math.exp(difference)) if difference > _NEGLIGIBLE else best


@compiled_part
def choose(count: int, settings: Records, candidates: Records, heap: np.ndarray) -> int:
    """Puts the best candidates first in ``heap``, the best first; returns how many there are.

    There are ``width`` at most, none more than ``prune_logp`` worse than the best. Of equals the first counts as better.
    """
    least = -np.inf
    for candidate in range(count):
        least = max(least, candidates[candidate].total)
    least += settings[0].prune_logp
    size = 0
    for candidate in range(count):
        if candidates[candidate].total < least:
            continue
        if size < settings[0].width:  # the worst of the chosen is on top
            place = size
            size += 1
            while place > 0 and is_worse(candidate, heap[(place - 1) // 2], candidates):
                heap[place] = heap[(place - 1) // 2]
                place = (place - 1) // 2
            heap[place] = candidate
        elif is_worse(heap[0], candidate, candidates):
            _sink(candidate, size, candidates, heap)
    for last in range(size - 1, 0, -1):
        worst = heap[0]
        _sink(heap[last], last, candidates, heap)
        heap[last] = worst
    return size


@compiled_part
def _sink(candidate: int, size: int, candidates: Records, heap: np.ndarray) -> None:
    """Replaces the top of a heap of ``size`` by ``candidate``."""
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and is_worse(heap[child + 1], heap[child], candidates):
            child += 1
        if not is_worse(heap[child], candidate, candidates):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = candidate


@compiled_part
def is_worse(one: int, other: int, candidates: Records) -> bool:
    mine, theirs = candidates[one].total, candidates[other].total
    return mine < theirs or (mine == theirs and one > other)
