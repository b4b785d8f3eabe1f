"""What corrections tell of the transcripts that nobody has checked: the word error rate of the lake, and which to check next.

Only recordings that were drawn at random tell of the others; those that were checked because they looked worst would make the
lake look worse than it is. They are drawn in strata of confidence, and each counts by how much of the lake's speech is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from dictalake.evaluation.bootstrap import RESAMPLES, Interval, bootstrap_rate
from dictalake.lake.corrections import CorrectionRecord, Sampling
from dictalake.review.snapshot import Snapshot

EDGES = (0.0, 0.7, 0.85, 0.95)  # of confidence: a stratum from each to the next; the last ends at 1
WORDS_A_SECOND = 2.3  # of dictation, in speech
_LISTENING, _BETWEEN_S = 1.5, 15.0  # how often a person hears a recording, and the time between two
_BINS = 200
_LEAST = 20  # corrections from which confidence is calibrated
_SEED = 20040517
_STRATUM = " + ".join(f"(coalesce(confidence, 0) >= {edge})::INT" for edge in EDGES[1:])  # as ``find_stratum``
_SPEECH = f"""
    SELECT {_STRATUM} AS stratum, count(*) AS recordings, coalesce(sum(speech_s), 0) AS speech_s
    FROM listed WHERE status = 'ok' GROUP BY ALL
"""
# The narrow columns of all that may be offered; the rest is read of those that are.
_OPEN = f"""
    open AS (
        SELECT number, key, {_STRATUM} AS stratum,
            $speed * (coalesce(speech_s, 0) * $rates[least(floor(coalesce(confidence, 0) * $bins)::INT, $bins - 1) + 1]
                + coalesce(uncovered_s, 0) + coalesce(lost_s, 0)) AS errors,
            $listening * coalesce(duration_s, 0) + $between AS cost_s
        FROM listed
        WHERE status = 'ok' AND key NOT IN (SELECT key FROM checked) AND key NOT IN (SELECT to_key(unnest($hidden)))
    )
"""
_WORST = "SELECT number, key, errors, cost_s FROM open"
# The first of each stratum alone: to number all rows would take a second of a million.
_DRAWN = """
    SELECT o.number, o.key, o.errors, $checked[o.stratum + 1] + d.place AS random_place
    FROM (
        SELECT unnest(keys) AS key, generate_subscripts(keys, 1) AS place
        FROM (SELECT min(key, $most) AS keys FROM open GROUP BY stratum)
    ) AS d JOIN open AS o USING (key)
"""


@dataclass(frozen=True)
class Stratum:
    """Recordings whose confidence lies in ``[low, high)``. ``share`` is theirs of the lake's speech."""

    low: float
    high: float
    recordings: int
    share: float
    checked: int
    words: int
    errors: int
    rate: Interval | None


@dataclass(frozen=True)
class LakeRate:
    """``rate`` is over the strata that were sampled, which hold ``covered`` of the lake's speech; None where none was."""

    rate: Interval | None
    covered: float
    strata: tuple[Stratum, ...]
    checked: int
    of_all_checked: Interval | None

    @property
    def is_thin(self) -> bool:
        """Whether a stratum was sampled by so few recordings that its interval says too much."""
        return any(0 < one.checked < _LEAST for one in self.strata)


@dataclass(frozen=True)
class Next:
    """A recording to check."""

    recording_id: str
    confidence: float | None
    duration_s: float
    expected_errors: float
    specialty: str | None


def measure_lake(snapshot: Snapshot) -> LakeRate:
    """The word error rate of the transcripts that count, as people found it, with 95 % intervals."""
    return snapshot.remember("the word error rate", lambda: _measure_lake(snapshot))


def _measure_lake(snapshot: Snapshot) -> LakeRate:
    found = [one for one in snapshot.corrections.list_current() if one.words and "not_dictation" not in one.flags]
    drawn = [one for one in found if one.sampling == "random"]
    speech = snapshot.query(_SPEECH)
    strata = [_measure_stratum(place, drawn, speech) for place in range(len(EDGES))]
    sampled = [(one, _take(place, drawn)) for place, one in enumerate(strata) if one.words]
    covered = sum(one.share for one, _ in sampled)
    rate = None
    if sampled and covered > 0:
        value = sum(one.share * one.errors / one.words for one, _ in sampled) / covered
        rates = sum(one.share * _resample(records) for one, records in sampled) / covered
        low, high = np.percentile(rates, [2.5, 97.5])
        rate = Interval(value, min(float(low), value), max(float(high), value))
    whole = bootstrap_rate(*_count(found)) if found else None
    return LakeRate(rate, covered, tuple(strata), len(drawn), whole)


def _measure_stratum(place: int, drawn: Sequence[CorrectionRecord], speech: Sequence[Mapping[str, Any]]) -> Stratum:
    low, high = EDGES[place], (*EDGES[1:], 1.0)[place]
    records = _take(place, drawn)
    errors, words = _count(records)
    mine = [one for one in speech if one["stratum"] == place]
    all_s = sum(one["speech_s"] for one in speech)
    share = sum(one["speech_s"] for one in mine) / all_s if all_s else 0.0
    rate = bootstrap_rate(errors, words) if records else None
    return Stratum(
        low, high, sum(one["recordings"] for one in mine), share, len(records), int(words.sum()), int(errors.sum()), rate
    )


def _take(place: int, records: Sequence[CorrectionRecord]) -> list[CorrectionRecord]:
    return [one for one in records if find_stratum(one.confidence) == place]


def find_stratum(confidence: float | None) -> int:
    return sum((confidence or 0.0) >= edge for edge in EDGES[1:])


def _count(records: Sequence[CorrectionRecord]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([one.word_errors or 0 for one in records]), np.array([one.words or 0 for one in records])


def _resample(records: Sequence[CorrectionRecord]) -> np.ndarray:
    """The rate of a stratum, ``(RESAMPLES,)``, in recordings drawn anew."""
    errors, words = _count(records)
    drawn = np.random.default_rng(_SEED).integers(0, len(records), (RESAMPLES, len(records)))
    return errors[drawn].sum(axis=1) / np.maximum(words[drawn].sum(axis=1), 1)


def calibrate(records: Sequence[CorrectionRecord]) -> tuple[float, ...]:
    """The error rate to expect at each of ``_BINS`` confidences. It never rises with confidence; until there are enough
    corrections it is one less confidence."""
    plain = tuple(1 - (place + 0.5) / _BINS for place in range(_BINS))
    known = sorted((one.confidence, (one.word_errors or 0) / one.words) for one in records if one.confidence and one.words)
    if len(known) < _LEAST:
        return plain
    confidences, rates = (np.array(values) for values in zip(*known, strict=True))
    fitted = isotonic_regression(rates, increasing=False).x
    return tuple(float(value) for value in np.interp([1 - one for one in plain], confidences, fitted))


def list_next(snapshot: Snapshot, who: str, sampling: Sampling, claim_min: float, limit: int = 20) -> list[Next]:
    """The next recordings for a person to check: none that was corrected, that another person has, or that this one left.

    ``worst``: the most errors to be expected for the time that it takes, by calibrated confidence, speech without words and
    lost sound. ``random``: of each stratum in the order of the ids, which are hashes, first the one with the fewest checked.
    """
    corrections = snapshot.corrections
    since = datetime.now(UTC) - timedelta(minutes=claim_min)
    recent = {one.recording_id for one in corrections.records if one.at >= since and one.event == "claimed"}
    taken = [one for one in recent if corrections.find_claim(one, since) not in (None, who)]
    left = {one.recording_id for one in corrections.records if one.event == "passed" and one.who == who}
    current = corrections.list_current()
    checked = [0] * len(EDGES)
    for one in current:
        if one.sampling == "random":
            checked[find_stratum(one.confidence)] += 1
    order, placed = ("random_place, key", _DRAWN) if sampling == "random" else ("errors / cost_s DESC, key", _WORST)
    rows = snapshot.query(
        f"""
        WITH {_OPEN}, placed AS MATERIALIZED ({placed} ORDER BY {order} LIMIT $most)
        SELECT recording_id, confidence, coalesce(duration_s, 0) AS duration_s, errors AS expected_errors, specialty
        FROM placed JOIN listed USING (number) ORDER BY {order.replace("key", "listed.key")}
        """,
        {
            "speed": WORDS_A_SECOND,
            "rates": list(calibrate(current)),
            "bins": _BINS,
            "listening": _LISTENING,
            "between": _BETWEEN_S,
            "hidden": sorted({*taken, *left}),
            "most": limit,
            **({"checked": checked} if sampling == "random" else {}),
        },
    )
    return [Next(**row) for row in rows]
