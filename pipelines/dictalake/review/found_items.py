"""The findings of one recording, as its page shows them beside the words: what was found, its quote, where that stands."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.delta import has_table, make_dataset, open_table
from dictalake.lake.findings_schema import FINDINGS, ITEM_LISTS
from dictalake.lake.places import FINDINGS_FOLDER
from dictalake.lake.storage import open_storage

_TOKEN = re.compile(r"\S+")
_TITLES = {
    "findings": "Findings",
    "medications": "Drugs",
    "lab_values": "Values",
    "follow_ups": "Follow-up",
    "impressions": "Impression",
}
_KEY = ("recording_id", "recorded_month", "transcript_fingerprint", "transcript_attempt")


@dataclass(frozen=True)
class ShownItem:
    """``first`` and ``last`` count the words of the text from 0, as its page has them in elements. ``start_s`` is None where no
    word of the machine's stands for the quote."""

    name: str
    details: str
    quote: str
    first: int
    last: int
    start_s: float | None
    confidence: float | None
    places: int


@dataclass(frozen=True)
class FoundItems:
    """``text`` says which text the quotes are of. ``state``: none (nobody extracted), old (from another text than that which
    counts), failed (for ``reason``), or ok."""

    state: Literal["none", "old", "failed", "ok"]
    text: Literal["machine", "corrected"] = "machine"
    groups: Sequence[tuple[str, Sequence[ShownItem]]] = ()
    model: str = ""
    reason: str = ""
    dropped: int = 0


@dataclass
class FindingReader:
    """Keeps the table ``findings`` open, once there is one. Threads may share it."""

    lake: Lake
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _delta: DeltaTable | None = None

    def read(self, row: Mapping[str, Any], corrected: str | None) -> FoundItems:
        """What was extracted from a row of ``transcripts``, as ``corrected`` by a person. Raises RunError."""
        found = self._read_rows(row)
        if not found:
            return FoundItems("none")
        wanted = None if corrected is None else sha256(corrected.encode()).hexdigest()
        of_text = [one for one in found if one["corrected_sha256"] == wanted]
        if not of_text:
            return FoundItems("old")
        best = max(of_text, key=lambda one: (one["status"], one["provenance"]["extracted_at"], one["attempt"]))
        text = (row["text"] or "") if corrected is None else corrected
        return _show(best, text, "machine" if corrected is None else "corrected")

    def _read_rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        storage = open_storage(self.lake, FINDINGS_FOLDER)
        values = (row["recording_id"], row["recorded_month"], row["fingerprint"], row["attempt"])
        condition = ds.scalar(True)
        for name, value in zip(_KEY, values, strict=True):
            condition &= ds.field(name) == value
        try:
            with self._lock:
                if self._delta is None:
                    if not has_table(storage):
                        return []
                    self._delta = open_table(storage, FINDINGS, to_read=True)
                else:
                    self._delta.update_incremental()
                rows = make_dataset(self._delta, storage, FINDINGS)
            return list(rows.to_table(filter=condition).to_pylist())
        except (OSError, DeltaError, pa.ArrowException) as error:
            raise RunError(f"cannot read the findings of the lake: {type(error).__name__}") from error


def _show(row: Mapping[str, Any], text: str, kind: Literal["machine", "corrected"]) -> FoundItems:
    if row["status"] != "ok":
        return FoundItems("failed", kind, reason=row["error"]["reason"])
    words = [match.span() for match in _TOKEN.finditer(text)]
    groups = [(_TITLES[name], [_show_item(name, item, words) for item in row[name] or ()]) for name in ITEM_LISTS]
    return FoundItems(
        "ok",
        kind,
        [group for group in groups if group[1]],
        row["provenance"]["model"] or "",
        dropped=max(0, (row["offered"] or 0) - sum(len(row[name] or ()) for name in ITEM_LISTS)),
    )


def _show_item(kind: str, item: Mapping[str, Any], words: Sequence[tuple[int, int]]) -> ShownItem:
    start, end = item["start_char"], item["end_char"]
    under = [place for place, (first, last) in enumerate(words) if first < end and start < last]
    name, details = _DESCRIBE[kind](item)
    return ShownItem(
        name,
        ", ".join(one for one in details if one),
        item["quote"],
        under[0] if under else 0,
        under[-1] if under else -1,
        item["start_s"],
        item["confidence"],
        item["places"],
    )


def _write_amount(value: float | None, unit: str | None) -> str:
    return "" if value is None else f"{value:g} {unit or ''}".strip()


def _describe_finding(item: Mapping[str, Any]) -> tuple[str, list[str | None]]:
    certainty = item["certainty"] or "certainty unknown"
    certainty = None if certainty == "certain" else certainty
    size = _write_amount(item["measurement"], item["unit"])
    return item["term"], ["absent" if item["negated"] else None, certainty, item["side"], item["anatomy"], size, item["change"]]


def _describe_drug(item: Mapping[str, Any]) -> tuple[str, list[str | None]]:
    dose = _write_amount(item["dose"], item["unit"])
    return item["drug"], [dose, item["route"], item["frequency"], "not taken" if item["negated"] else None]


_DESCRIBE: dict[str, Any] = {
    "findings": _describe_finding,
    "medications": _describe_drug,
    "lab_values": lambda item: (item["test"], [f"{item['value']} {item['unit'] or ''}".strip()]),
    "follow_ups": lambda item: (item["what"], [item["when"]]),
    "impressions": lambda item: ("", []),
}
