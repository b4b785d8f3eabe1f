"""The check against over-biasing: a change that hotwords made stays only where the acoustics support it.

Shallow fusion with hotwords trades the sound against the list, so a long list with a high weight invents terms. The check
looks at each place where the hypothesis with hotwords differs from the plain one. It compares the CTC likelihoods of the
two over the frames of that place, which is a judgement by the sound alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from dictalake.decoding.segments import slice_frames
from dictalake.records import Emissions, Piece

_SLACK_FRAMES = 2


@dataclass
class _Place:
    """A stretch of both hypotheses. Where they agree, ``theirs`` is ``mine``."""

    mine: tuple[Piece, ...]
    theirs: tuple[Piece, ...]
    is_changed: bool
    keeps_mine: bool = True

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return self.mine if self.keeps_mine else self.theirs


def drop_unsupported(
    biased: Sequence[Piece],
    plain: Sequence[Piece],
    emissions: Emissions,
    blank_id: int,
    most_nats: float,
    count_bonus: Callable[[Sequence[Piece]], float],
) -> tuple[Piece, ...]:
    """``biased``, with the pieces of ``plain`` wherever its own earn no hotword or sound ``most_nats`` less likely.

    ``count_bonus`` gives the bonus of the hotwords in some pieces. A hotword that loses one of its places loses the others too.
    """
    places = _find_places(biased, plain)
    frame_index = emissions.frame_index
    changed = [place for place in places if place.is_changed]
    for index, place in enumerate(places):
        if not place.is_changed:
            continue
        before = places[index - 1].mine[-1].end_frame if index else 0
        after = places[index + 1].mine[0].start_frame if index + 1 < len(places) else int(frame_index[-1]) + 1
        inside = [*place.mine, *place.theirs]
        # The shared neighbours may have moved between the hypotheses; leave room for the pieces of either.
        first_frame = min([before, *(piece.start_frame for piece in inside)])
        last_frame = max([after, *(piece.end_frame for piece in inside)])
        first, last = (int(at) for at in np.searchsorted(frame_index, [first_frame, last_frame]))
        rows = slice_frames(emissions, first, max(last, first + 1)).dense()
        loss = log_likelihood(rows, _ids(place.theirs), blank_id) - log_likelihood(rows, _ids(place.mine), blank_id)
        place.keeps_mine = loss <= most_nats
    undone = True
    while undone:
        undone = False
        for place in changed:
            if place.keeps_mine:
                bonus = count_bonus(_join(places))
                place.keeps_mine = False
                if count_bonus(_join(places)) < bonus:
                    place.keeps_mine = True
                else:
                    undone = True
    return _join(places)


def _find_places(biased: Sequence[Piece], plain: Sequence[Piece]) -> list[_Place]:
    """What the hypotheses share, and what lies between."""
    places = []
    mine = theirs = 0
    for i, j in [*_find_shared(biased, plain), (len(biased), len(plain))]:
        if i > mine or j > theirs:
            places.append(_Place(tuple(biased[mine:i]), tuple(plain[theirs:j]), is_changed=True))
        if i < len(biased):
            places.append(_Place((biased[i],), (biased[i],), is_changed=False))
        mine, theirs = i + 1, j + 1
    return places


def _find_shared(biased: Sequence[Piece], plain: Sequence[Piece]) -> list[tuple[int, int]]:
    """The indices of pieces that both have at the same time; by text alone, a frequent piece would be paired with another one.

    A shared piece separates what is before it in either hypothesis from what is behind it in either. A piece that is before
    it here and behind it there would else be taken twice, or not at all.
    """
    matcher = SequenceMatcher(None, _ids(biased), _ids(plain), autojunk=False)
    pairs = [(block.a + offset, block.b + offset) for block in matcher.get_matching_blocks() for offset in range(block.size)]
    shared = {(i, j) for i, j in pairs if abs(biased[i].start_frame - plain[j].start_frame) <= _SLACK_FRAMES}

    def separates(i: int, j: int) -> bool:
        before = (*biased[max(i - 1, 0) : i], *plain[max(j - 1, 0) : j])
        behind = (*biased[i + 1 : i + 2], *plain[j + 1 : j + 2])
        both = biased[i], plain[j]
        is_begun = (i - 1, j - 1) in shared or _last_frame(before) <= _first_frame(both)
        return is_begun and ((i + 1, j + 1) in shared or _first_frame(behind) >= _last_frame(both))

    while mixed := {pair for pair in shared if not separates(*pair)}:
        shared -= mixed
    return sorted(shared)


def _first_frame(pieces: Iterable[Piece]) -> float:
    return min((piece.start_frame for piece in pieces), default=math.inf)


def _last_frame(pieces: Iterable[Piece]) -> float:
    return max((piece.end_frame for piece in pieces), default=-math.inf)


def _join(places: Sequence[_Place]) -> tuple[Piece, ...]:
    return tuple(piece for place in places for piece in place.pieces)


def _ids(pieces: Sequence[Piece]) -> list[int]:
    return [piece.token_id for piece in pieces]


def log_likelihood(log_probs: np.ndarray, token_ids: Sequence[int], blank_id: int) -> float:
    """ln P(``token_ids`` | frames) over all CTC alignments (Graves et al. 2006, section 4.1); -inf where they do not fit.

    ``log_probs`` ``(frames, vocabulary)``. No tokens: the likelihood of nothing but blanks.
    """
    from dictalake.decoding.native.alignments import sum_alignments  # numba takes half a second to import

    labels = np.full(2 * len(token_ids) + 1, blank_id)
    labels[1::2] = token_ids
    return sum_alignments(log_probs[:, labels].astype(np.float64), labels)
