"""Chooses the frames that a search sees: it skips repeated blanks, and cuts a long channel at pauses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dictalake.records import Emissions

PART_FRAMES = 2000


def skip_repeated_blanks(emissions: Emissions, blank_id: int, min_logp: float) -> tuple[Emissions, float]:
    """Emissions without the frames that change nothing for a search, and the log p(blank) that these add to every score.

    A search tries the tokens of at least ``min_logp``. After a frame where only the blank is that likely, every beam ends in a
    blank, so another such frame neither makes, joins nor reorders beams.
    """
    counts = np.diff(emissions.offsets)
    rows = np.repeat(np.arange(emissions.kept), counts)
    tried = np.bincount(rows, emissions.logp >= min_logp, minlength=emissions.kept) <= 1
    first = emissions.offsets[:-1]  # the likeliest token of each frame
    blank = tried & (emissions.token_ids[first] == blank_id)
    repeated = blank & np.concatenate([[False], blank[:-1]])
    kept = ~repeated
    shortened = replace(
        emissions,
        frame_index=emissions.frame_index[kept],
        offsets=np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int32),
        token_ids=emissions.token_ids[kept[rows]],
        logp=emissions.logp[kept[rows]],
    )
    return shortened, float(emissions.logp[first[repeated]].sum(dtype=np.float64))


def cut_at_pauses(emissions: Emissions, blank_id: int) -> list[tuple[int, int]]:
    """Intervals ``[start, end)`` that together cover all kept frames, none longer than ``PART_FRAMES``.

    Each cut is in the second half of the longest possible part: at the longest collapsed run of blanks there, else at the
    frame with the likeliest blank.
    """
    blank_logp = np.full(emissions.kept, -np.inf, dtype=np.float32)
    frames = np.repeat(np.arange(emissions.kept), np.diff(emissions.offsets))
    is_blank = emissions.token_ids == blank_id
    blank_logp[frames[is_blank]] = emissions.logp[is_blank]
    length = np.diff(emissions.frame_index, append=emissions.frames)
    cuts = [0]
    while emissions.kept - cuts[-1] > PART_FRAMES:
        first, last = cuts[-1] + PART_FRAMES // 2, cuts[-1] + PART_FRAMES
        pause = np.lexsort((blank_logp[first:last], length[first:last]))[-1]
        cuts.append(first + int(pause))
    return list(zip(cuts, [*cuts[1:], emissions.kept], strict=True))


def slice_frames(emissions: Emissions, start: int, end: int) -> Emissions:
    """Kept frames ``[start, end)`` on the same true time axis."""
    first, last = int(emissions.offsets[start]), int(emissions.offsets[end])
    return Emissions(
        frames=emissions.frames,
        vocabulary_size=emissions.vocabulary_size,
        frame_index=emissions.frame_index[start:end],
        offsets=emissions.offsets[start : end + 1] - first,
        token_ids=emissions.token_ids[first:last],
        logp=emissions.logp[first:last],
    )
