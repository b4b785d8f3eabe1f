"""What a promotion would change: compares the words of recordings that two fingerprints of a lake both transcribed.

Nobody knows which of the two transcripts is right. So the "errors" of the new one against the old one are differences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError
from dictalake.evaluation.assessment import read_terms
from dictalake.evaluation.clinical import ClinicalCount, count_clinical
from dictalake.evaluation.normalise import normalise_words_only
from dictalake.evaluation.word_errors import ErrorCount, count_errors
from dictalake.lake.query import connect

UNKNOWN_SPECIALTY = "unknown"
_TERMS = Path(__file__).parent / "terms"
_BATCH = 500
# The newest good row of each current recording, under each of the two fingerprints.
_GOOD = """
    SELECT recording_id, fingerprint, text_raw, confidence, quality.duration_s AS duration_s,
        coalesce(metadata['specialty'], metadata['department'], 'unknown') AS specialty
    FROM history WHERE status = 'ok' AND is_current AND fingerprint IN ($old, $new)
    QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint ORDER BY attempt DESC) = 1
"""
_BOTH = f"""
    WITH good AS ({_GOOD})
    SELECT o.recording_id, o.specialty, o.text_raw AS old_text, n.text_raw AS new_text
    FROM good AS o JOIN good AS n ON n.recording_id = o.recording_id AND n.fingerprint = $new
    WHERE o.fingerprint = $old ORDER BY o.recording_id
"""
_COVERED = f"""
    WITH good AS ({_GOOD}), by_recording AS (
        SELECT recording_id, any_value(specialty) AS specialty, any_value(duration_s) AS duration_s,
            bool_or(fingerprint = $old) AS has_old, bool_or(fingerprint = $new) AS has_new,
            max(confidence) FILTER (fingerprint = $old) AS old, max(confidence) FILTER (fingerprint = $new) AS new
        FROM good GROUP BY recording_id
    )
    SELECT specialty, count(*) FILTER (has_old AND has_new) AS "both", count(*) FILTER (has_old AND NOT has_new) AS only_old,
        count(*) FILTER (has_new AND NOT has_old) AS only_new,
        avg(old) FILTER (has_old AND has_new)::DOUBLE AS old_confidence,
        avg(new) FILTER (has_old AND has_new)::DOUBLE AS new_confidence
    FROM by_recording GROUP BY specialty ORDER BY "both" DESC, specialty
"""


@dataclass(frozen=True)
class ReadPair:
    """The two transcripts of a recording. They are patient text, so they go to the user who asked and into no log."""

    recording_id: str
    specialty: str
    old_text: str
    new_text: str
    differences: int


@dataclass
class Group:
    """The figures of a specialty. Counts and confidences cover all its recordings, words only the ``compared`` ones."""

    both: int = 0
    only_old: int = 0
    only_new: int = 0
    old_confidence: float | None = None
    new_confidence: float | None = None
    compared: int = 0
    changed: int = 0
    words: int = 0
    word_differences: int = 0
    clinical: ClinicalCount = field(default_factory=ClinicalCount)
    terms_lost: Counter[str] = field(default_factory=Counter)
    terms_gained: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float | None:
        """The word error rate of the new transcripts against the old ones."""
        return self.word_differences / self.words if self.words else None


@dataclass(frozen=True)
class Comparison:
    old: str
    new: str
    groups: dict[str, Group]
    pairs: list[ReadPair]

    @property
    def whole(self) -> Group:
        total = Group()
        for group in self.groups.values():
            for name in ("both", "only_old", "only_new", "compared", "changed", "words", "word_differences"):
                setattr(total, name, getattr(total, name) + getattr(group, name))
            total.clinical += group.clinical
            total.terms_lost += group.terms_lost
            total.terms_gained += group.terms_gained
        for name in ("old_confidence", "new_confidence"):
            known = [(getattr(group, name), group.both) for group in self.groups.values() if getattr(group, name) is not None]
            weight = sum(both for _, both in known)
            setattr(total, name, sum(value * both for value, both in known) / weight if weight else None)
        return total


def compare_fingerprints(lake: Lake, old: str, new: str, *, sample: int | None = None, pairs: int = 0) -> Comparison:
    """Compares the words of at most ``sample`` recordings, in the order of their random ids. Keeps the ``pairs`` that
    differ most.

    Raises ConfigError for a fingerprint without rows, RunError where the lake cannot be read.
    """
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted(_TERMS.glob("*.txt"))}
    terms = read_terms(texts, normalise_words_only)
    values = {"old": old, "new": new}
    with connect(lake.uri or "", lake.storage_options, names=("history",)) as database:
        there = [name for (name,) in database.sql("SELECT DISTINCT fingerprint FROM transcript_rows ORDER BY 1").fetchall()]
        for name in (old, new):
            if name not in there:
                raise ConfigError(f"{name}: the lake has no rows of this fingerprint; it has {', '.join(there) or 'none'}")
        groups = {row["specialty"]: _make_group(row) for row in _ask(database, _COVERED, values)}
        limit = "" if sample is None else f"LIMIT {int(sample)}"
        read: list[ReadPair] = []
        for row in _ask(database, f"{_BOTH} {limit}", values):
            before, after = (normalise_words_only(row[name] or "") for name in ("old_text", "new_text"))
            count = count_errors([(before, after)])
            group = groups.setdefault(row["specialty"], Group())
            _add(group, count, before != after)
            group.clinical += count_clinical(before, after)
            for term, _, outcome in terms.compare(before, after):
                group.terms_lost[term] += outcome == "missed"
                group.terms_gained[term] += outcome == "added"
            differences = _differences(count)
            if pairs and differences:
                read.append(
                    ReadPair(row["recording_id"], row["specialty"], row["old_text"] or "", row["new_text"] or "", differences)
                )
                if len(read) > 2 * pairs:
                    read = _keep_worst(read, pairs)
    return Comparison(old, new, groups, _keep_worst(read, pairs))


def _keep_worst(read: list[ReadPair], most: int) -> list[ReadPair]:
    return sorted(read, key=lambda pair: (-pair.differences, pair.recording_id))[:most]


def _make_group(row: dict[str, Any]) -> Group:
    return Group(**{name: value for name, value in row.items() if name != "specialty"})


def _add(group: Group, count: ErrorCount, is_changed: bool) -> None:
    group.compared += 1
    group.changed += is_changed
    group.words += count.words
    group.word_differences += _differences(count)


def _differences(count: ErrorCount) -> int:
    return count.substitutions + count.deletions + count.insertions


def _ask(database: Any, question: str, values: dict[str, str]) -> Iterator[dict[str, Any]]:
    answer = database.execute(question, values)
    names = [column[0] for column in answer.description]
    while rows := answer.fetchmany(_BATCH):
        for row in rows:
            yield dict(zip(names, row, strict=True))
