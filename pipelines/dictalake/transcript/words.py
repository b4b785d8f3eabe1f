"""Pieces → written words with their times and confidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from dictalake.config.sections import Confidence
from dictalake.records import SAMPLE_RATE_HZ, FrameGrid, Hypothesis, Piece, Word

_WORD_START = "▁"
_CLOSING = {"{": "}", "[": "]"}
_MOST_MARKUP_WORDS = 4
_DUAL_MONO_SHARE = 0.95
_SAME_TIME_S = 0.2
_TURN_GAP_S = 1.0
_LEAST = 1e-4  # no model can know a probability nearer to 0 or 1
UNCALIBRATED = Confidence.model_validate({})


def words_of(hypothesis: Hypothesis, grid: FrameGrid, channel: int = 0, calibration: Confidence = UNCALIBRATED) -> list[Word]:
    """The words of one channel in order; joined by single spaces they are its ``text_raw``.

    A piece that begins with ``▁`` starts a word. Markup of several words, ``{new paragraph}`` or ``[EXAM TYPE]``, is one
    ``Word`` (with a space in it) if it is closed within four words. A bracket that stays open is left as it is.

    Times: frame ``i`` is centred on ``(step × i + centre)`` samples (for LASR: 640 i + 1160) and covers half a step on
    either side. A word lasts from the beginning of its first piece's first frame to the end of its last piece's last frame.
    CTC models place a piece at a peak rather than over its sound, so words tend to be short.
    :func:`confidence_of` explains the confidence. A lone ``▁`` counts for neither.
    """
    return [_word(group, grid, channel, calibration) for group in find_word_pieces(hypothesis)]


def find_word_pieces(hypothesis: Hypothesis) -> list[list[Piece]]:
    """The pieces of each word that ``words_of`` gives, in the same order."""
    groups = [group for group in _group_pieces(hypothesis.pieces) if _text(group)]
    return list(_join_markup(groups))


def measure_evidence(pieces: Sequence[Piece]) -> tuple[float, float]:
    """The evidence for a word of ``pieces``, as logits: the mean of their peak probabilities, and their least posterior."""
    sounding = [piece for piece in pieces if piece.text != _WORD_START]
    sound = float(np.mean([np.exp(min(0.0, piece.logp)) for piece in sounding]))
    return _logit(sound), _logit(min(piece.posterior for piece in sounding))


def confidence_of(evidence: tuple[float, float], calibration: Confidence) -> float:
    """The confidence, 0–1. Uncalibrated (temperature 1, no bias, ``nbest_weight`` 0) it is the mean peak probability."""
    sound, support = evidence
    return float(
        1.0 / (1.0 + np.exp(-((sound + calibration.nbest_weight * support) / calibration.temperature + calibration.bias)))
    )


def merge_channels(channels: Sequence[Sequence[Word]]) -> list[Word]:
    """The words of all channels in order of time, without channels that repeat an earlier one (dual mono).

    Two channels are the same if at least 95 % of the longer one's words are in the other at the same time (within
    0.2 s). The order is by turns: words of one channel with pauses of at most a second stay together, so two people
    who speak at once give two sentences and not a mixture.
    """
    turns = [turn for index in find_distinct(channels) for turn in _turns(channels[index])]
    turns.sort(key=lambda turn: (turn[0].start_s, turn[0].channel))
    return [word for turn in turns for word in turn]


def find_distinct(channels: Sequence[Sequence[Word]]) -> list[int]:
    """Indices of the channels that do not repeat an earlier one."""
    distinct: list[int] = []
    for index, words in enumerate(channels):
        if words and not any(_are_same(words, channels[kept]) for kept in distinct):
            distinct.append(index)
    return distinct


def join_words(words: Sequence[Word]) -> str:
    """``text_raw`` of words."""
    return " ".join(word.word for word in words)


def mean_confidence(words: Sequence[Word]) -> float | None:
    """The mean confidence of the words, 0–1; None if no word has one."""
    known = [word.confidence for word in words if word.confidence is not None]
    return float(np.mean(known)) if known else None


def _group_pieces(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    for piece in pieces:
        if piece.text.startswith(_WORD_START) and group:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _text(group: Sequence[Piece]) -> str:
    # A "▁" inside a piece is a space too: such a piece holds several words that have one time.
    return " ".join("".join(piece.text for piece in group).replace(_WORD_START, " ").split())


def _join_markup(groups: Sequence[list[Piece]]) -> Iterator[list[Piece]]:
    """Joins the words of ``{new paragraph}`` and the like."""
    index = 0
    while index < len(groups):
        length = _markup_length([_text(group) for group in groups[index : index + _MOST_MARKUP_WORDS]])
        yield [piece for group in groups[index : index + length] for piece in group]
        index += length


def _markup_length(texts: Sequence[str]) -> int:
    """How many of ``texts``, from the first on, form one markup word; 1 if they form none."""
    opening = texts[0][:1]
    if opening not in _CLOSING or _CLOSING[opening] in texts[0]:
        return 1
    for length, text in enumerate(texts[1:], start=2):
        if opening in text:
            return 1
        if _CLOSING[opening] in text:
            return length if text.endswith(_CLOSING[opening]) else 1
    return 1


def _logit(probability: float) -> float:
    bounded = min(max(probability, _LEAST), 1.0 - _LEAST)
    return float(np.log(bounded) - np.log1p(-bounded))


def _word(group: Sequence[Piece], grid: FrameGrid, channel: int, calibration: Confidence) -> Word:
    sounding = [piece for piece in group if piece.text != _WORD_START]
    half_step_s = grid.step / 2 / SAMPLE_RATE_HZ
    return Word(
        word=_text(group),
        start_s=max(0.0, grid.time_s(sounding[0].start_frame) - half_step_s),
        end_s=grid.time_s(sounding[-1].end_frame - 1) + half_step_s,
        confidence=confidence_of(measure_evidence(group), calibration),
        channel=channel,
    )


def end_with_recording(words: Sequence[Word], duration_s: float) -> list[Word]:
    """``words`` with none that ends after the recording: the last frame sees beyond it, and engines round up."""
    return [word if word.end_s <= duration_s else _end_at(word, duration_s) for word in words]


def _end_at(word: Word, end_s: float) -> Word:
    """A word that would lie behind the end keeps its length before it, as far as there is room."""
    start_s = word.start_s if word.start_s < end_s else max(0.0, end_s - (word.end_s - word.start_s))
    return replace(word, start_s=start_s, end_s=end_s)


def _turns(words: Sequence[Word]) -> Iterator[list[Word]]:
    turn = [words[0]]
    for before, word in pairwise(words):
        if word.start_s - before.end_s > _TURN_GAP_S:
            yield turn
            turn = []
        turn.append(word)
    yield turn


def _are_same(words: Sequence[Word], others: Sequence[Word]) -> bool:
    """Whether nearly all words of the longer list are in the other one, with the same text at the same time."""
    longest = max(len(words), len(others))
    starts = np.array([word.start_s for word in others])
    used = np.zeros(len(others), dtype=bool)
    matched = 0
    for word in words:
        first = int(np.searchsorted(starts, word.start_s - _SAME_TIME_S, side="left"))
        last = int(np.searchsorted(starts, word.start_s + _SAME_TIME_S, side="right"))
        match = next((i for i in range(first, last) if not used[i] and others[i].word == word.word), None)
        if match is not None:
            used[match] = True
            matched += 1
    return matched >= _DUAL_MONO_SHARE * longest
