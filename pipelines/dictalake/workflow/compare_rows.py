"""Compares a row with the same row made again: what differs in what made it (causes), and in the result (effects)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein

Row = Mapping[str, Any]
# Sections of the configuration that decide what is in a row. The others name places, outputs and the speed of the run.
ROW_SECTIONS = ("archive", "limits", "acoustic", "windows", "decoding", "confidence", "formatting", "quality")
_MASKED = {"storage_options"}  # in a run's record
_FORMAT = ("container", "codec", "sample_rate_hz", "channels", "bits_per_sample", "tracks")
_PROVENANCE = ("model_sha256", "lm_sha256", "decoder", "device", "git_commit")
_ACCOUNT = ("lost_s", "repairs")  # of quality
_QUALITY = 1e-4  # relative and absolute


@dataclass(frozen=True)
class Tolerance:
    """Differences up to these count as equal: a model rounds the last digits differently in another batch or with another
    number of threads. Rows have confidences in thousandths, and older ones all digits.
    """

    time_s: float = 0.001
    confidence: float = 0.0011

    @classmethod
    def of(cls, row: Row) -> Tolerance:
        """The tolerance for the dtype that made the row: bfloat16 keeps 8 bits, and its rounding depends on the batch."""
        dtype = dict((row["provenance"] or {}).get("versions") or ()).get("dtype")
        return cls(confidence=0.01) if dtype == "bfloat16" else cls()


@dataclass(frozen=True)
class Cause:
    """Something that made the row and has changed; ``then`` or ``now`` is None if there was nothing."""

    what: str
    then: str | None
    now: str | None


@dataclass(frozen=True)
class Effect:
    """How the result differs. ``fields`` names the columns that differ and is empty if the rows are the same. Ids, provenance,
    timings, patient hashes and the scores of ``nbest`` are not compared.

    The old row has ``words`` words, of which ``words_changed`` were replaced, deleted or inserted. The shifts are the largest
    among the words in both rows. ``then`` and ``now`` are ``ok`` or ``stage: reason``.
    """

    fields: tuple[str, ...]
    then: str
    now: str
    words: int = 0
    words_changed: int = 0
    time_shift_s: float = 0.0
    confidence_shift: float = 0.0

    @property
    def word_error_rate(self) -> float | None:
        """The word error rate of the new words against the old ones (0–1 and above); None if the old row had no words."""
        return self.words_changed / self.words if self.words else None


def find_causes(then: Row, now: Row, config_then: Mapping[str, Any], config_now: Mapping[str, Any]) -> list[Cause]:
    """Everything that made two rows (schema TRANSCRIPTS) and differs, whether it changed the result or not.

    The configurations are given as ``Config.model_dump("json")``.
    """
    pairs: list[tuple[str, Any, Any]] = []
    source_then, source_now = then["source"] or {}, now["source"] or {}
    for name, label in (("sha256", "source bytes (sha256)"), ("version", "source object version")):
        pairs.append((label, source_then.get(name), source_now.get(name)))
    pairs.append(("loader", source_then.get("loader"), source_now.get("loader")))
    made_then, made_now = then["provenance"] or {}, now["provenance"] or {}
    pairs += [(name, made_then.get(name), made_now.get(name)) for name in _PROVENANCE]
    libraries_then, libraries_now = (dict(made.get("versions") or ()) for made in (made_then, made_now))
    for name in sorted({*libraries_then, *libraries_now}):
        label = name if name in ("dtype", "confidence", "formatter") else f"version of {name}"
        pairs.append((label, libraries_then.get(name), libraries_now.get(name)))
    if then["status"] != now["status"]:  # one of them was not read, or came to no model
        reached = {"source bytes (sha256)", "loader", "device", "dtype"}
        pairs = [pair for pair in pairs if pair[0] not in reached or None not in pair]
    pairs += _compare_configs(config_then, config_now)
    return [Cause(what, _text(old), _text(new)) for what, old, new in pairs if old != new]


def _compare_configs(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for section in ROW_SECTIONS:
        keys_then, keys_now = then.get(section, {}), now.get(section, {})
        for key in sorted({*keys_then, *keys_now} - _MASKED):
            old, new = (keys.get(key, "unknown") for keys in (keys_then, keys_now))
            yield f"{section}.{key}", old, new


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def compare_rows(then: Row, now: Row, tolerance: Tolerance = Tolerance()) -> Effect:
    """How two rows of the schema TRANSCRIPTS differ. Two failed rows are the same if their stage and reason are."""
    ends = (_name_end(then), _name_end(now))
    if "ok" not in ends:
        return Effect(() if ends[0] == ends[1] else ("error",), *ends)
    words, changed, time_shift_s, confidence_shift = _compare_words(then["words"] or (), now["words"] or ())
    if ends[0] != ends[1]:
        return Effect(("status",), *ends, words, changed, time_shift_s, confidence_shift)
    differs = {
        "text_raw": then["text_raw"] != now["text_raw"],
        "text": then["text"] != now["text"],
        "words": changed > 0 or time_shift_s > tolerance.time_s or confidence_shift > tolerance.confidence,
        "sections": (then["sections"] or []) != (now["sections"] or []),
        "nbest": _texts(then["nbest"]) != _texts(now["nbest"]),
        "confidence": _shift(then["confidence"], now["confidence"]) > tolerance.confidence,
        "quality": not _are_near(then["quality"] or {}, now["quality"] or {}),
        "source": _read_format(then) != _read_format(now),
        "dicom": _read_dicom(then) != _read_dicom(now),
        "recorded_month": then["recorded_month"] != now["recorded_month"],
    }
    fields = tuple(name for name, is_so in differs.items() if is_so)
    return Effect(fields, *ends, words, changed, time_shift_s, confidence_shift)


def _name_end(row: Row) -> str:
    return "ok" if row["status"] == "ok" else f"{row['error']['stage']}: {row['error']['reason']}"


def _compare_words(then: Sequence[Row], now: Sequence[Row]) -> tuple[int, int, float, float]:
    """The number of words, how many changed, and the largest shifts in time and confidence of the words in both rows."""
    keys = [[(word["word"], word["channel"]) for word in words] for words in (then, now)]
    steps = Levenshtein.opcodes(*keys)
    changed = sum(max(s.src_end - s.src_start, s.dest_end - s.dest_start) for s in steps if s.tag != "equal")
    same = [
        pair
        for s in steps
        if s.tag == "equal"
        for pair in zip(then[s.src_start : s.src_end], now[s.dest_start : s.dest_end], strict=True)
    ]
    times = [abs(old[name] - new[name]) for old, new in same for name in ("start_s", "end_s")]
    return (
        len(then),
        changed,
        max(times, default=0.0),
        max((_shift(old["confidence"], new["confidence"]) for old, new in same), default=0.0),
    )


def _shift(then: float | None, now: float | None) -> float:
    if then is None or now is None:
        return 0.0 if then is now else 1.0
    return abs(then - now)


def _texts(readings: Sequence[Row] | None) -> list[str] | None:
    return None if readings is None else [reading["text"] for reading in readings]


def _read_format(row: Row) -> list[Any]:
    """The format of the source. Its place and version are causes, not effects."""
    return [(row["source"] or {}).get(name) for name in _FORMAT]


def _read_dicom(row: Row) -> dict[str, Any]:
    """The attributes that have a value, without the hashes, whose key is not needed to make a row again."""
    return {name: value for name, value in (row["dicom"] or {}).items() if value is not None and not name.endswith("_hash")}


def _are_near(then: Row, now: Row) -> bool:
    """Whether the measures are nearly equal; a value that only one row has counts as a difference.

    The account of time does not count where the old row has none: its loader kept none.
    """
    names = {*then, *now} - (set(_ACCOUNT) if then.get("repairs") is None else set())
    return all(_is_near(then.get(name), now.get(name)) for name in names)


def _is_near(old: Any, new: Any) -> bool:
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return bool(old == new)
    return math.isclose(old, new, rel_tol=_QUALITY, abs_tol=_QUALITY)
