"""Corrections for other programs: references to score and train by, text for a language model, tasks of Label Studio, CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from dictalake.errors import RunError
from dictalake.lake.corrections import CorrectionRecord
from dictalake.review.snapshot import Snapshot
from dictalake.review.words import make_reference

FORMATS = ("manifest", "text", "label-studio", "csv")
_CSV: tuple[str, ...] = (
    "recording_id",
    "uri",
    "fingerprint",
    "who",
    "at",
    "text",
    "text_corrected",
    "flags",
    "minutes",
    "words",
    "word_errors",
)
_CSV += ("sampling",)


@dataclass(frozen=True)
class Corrected:
    """A correction that counts, and the row that it was made on."""

    record: CorrectionRecord
    row: dict[str, Any]

    @property
    def reference(self) -> str:
        """What was said, as the machine writes it, spoken marks too."""
        return make_reference(self.record.text or "", self.row["words"] or [])


@dataclass
class Exported:
    """How many were written; ``inside`` are files in archive objects, which a manifest cannot name, ``flagged`` are none that a
    machine should learn from, and of ``rowless`` the lake no longer has the row that was corrected."""

    written: int = 0
    inside: int = 0
    flagged: int = 0
    rowless: int = 0


def list_corrected(snapshot: Snapshot) -> Iterator[Corrected | None]:
    """The corrections that count; None for one whose row is no longer in the lake."""
    for record in snapshot.corrections.list_current():
        rows = snapshot.read_rows(record.recording_id)
        key = (record.fingerprint, record.attempt)
        row = next((one for one in rows if (one["fingerprint"], one["attempt"]) == key), None)
        yield None if row is None else Corrected(record, row)


def write_export(
    snapshot: Snapshot, form: str, out: Path, others: Sequence[str], write_down: Callable[[list[str]], None]
) -> Exported:
    """Writes a file whole or not at all. ``others`` are recordings that nobody corrected yet, for tasks of Label Studio.
    ``write_down`` gets the ids of the recordings in it before it is there; if it raises, no file is left. Raises RunError."""
    counts, ids = Exported(), list[str]()

    def take() -> Iterator[Corrected]:
        for one in list_corrected(snapshot):
            if one is None:
                counts.rowless += 1
                continue
            is_bad = bool(one.record.flags) or not (one.record.text or "").strip()
            is_inside = one.row["archive_id"] not in (None, one.record.recording_id)
            if form in ("manifest", "text") and is_bad:
                counts.flagged += 1
            elif form == "manifest" and is_inside:
                counts.inside += 1
            else:
                counts.written += 1
                ids.append(one.record.recording_id)
                yield one

    partial = out.with_name(f".{out.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            partial.chmod(0o600)
            if form == "label-studio":
                rows = [snapshot.read_rows(one) for one in others]
                ids += [one[0]["recording_id"] for one in rows if one]
                tasks = [*map(_make_task, take()), *(_make_open_task(one[0]) for one in rows if one)]
                counts.written = len(tasks)
                json.dump(tasks, file, ensure_ascii=False, indent=1)
            else:
                _WRITERS[form](take(), file)
        if ids:
            write_down(ids)
        partial.replace(out)
    except OSError as error:
        raise RunError(f"--out {out}: cannot be written: {error.strerror or type(error).__name__}") from None
    finally:
        partial.unlink(missing_ok=True)
    return counts


def _write_manifest(found: Iterator[Corrected], file: IO[str]) -> None:
    """For `evaluate`, `finetune` and `tune`; the columns of your own manifest come along."""
    rows = []
    for one in found:
        own = dict(one.row["metadata"] or ())
        own.pop("reference", None)
        known = {"uri": one.row["source"]["uri"], "reference": one.reference, "text_corrected": one.record.text or ""}
        rows.append({**known, "checked_by": one.record.who, **{key: value or "" for key, value in own.items()}})
    names = list(dict.fromkeys(["uri", "reference", "text_corrected", "checked_by", *(name for row in rows for name in row)]))
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_text(found: Iterator[Corrected], file: IO[str]) -> None:
    """A line for each recording, for `build-lm`."""
    file.writelines(f"{one.reference}\n" for one in found)


def _write_csv(found: Iterator[Corrected], file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_CSV)
    for one in found:
        record = one.record
        named = {
            "uri": one.row["source"]["uri"],
            "text": one.row["text"],
            "text_corrected": record.text,
            "flags": ", ".join(record.flags),
        }
        values = [named.get(name, getattr(record, name, None)) for name in _CSV]
        writer.writerow([_defuse(value) for value in values])


def _defuse(value: Any) -> Any:
    """An apostrophe precedes what a spreadsheet would run as a formula."""
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _make_task(one: Corrected) -> dict[str, Any]:
    task = _make_open_task(one.row)
    made = {"completed_by": {"email": one.record.who}, "result": [_make_result(one.record.text)]}
    return {**task, "annotations": [{**made, "created_at": one.record.at.isoformat()}]}


def _make_open_task(row: dict[str, Any]) -> dict[str, Any]:
    prediction = {"model_version": row["fingerprint"], "score": row["confidence"], "result": [_make_result(row["text"])]}
    data = {"audio": row["source"]["uri"], "recording_id": row["recording_id"], "fingerprint": row["fingerprint"]}
    return {"data": data, "predictions": [prediction]}


def _make_result(text: str | None) -> dict[str, Any]:
    """Of Label Studio's template for transcription: a TextArea ``transcription`` beside an Audio ``audio``."""
    return {"from_name": "transcription", "to_name": "audio", "type": "textarea", "value": {"text": [text or ""]}}


_WRITERS: dict[str, Callable[[Iterator[Corrected], IO[str]], None]] = {
    "manifest": _write_manifest,
    "text": _write_text,
    "csv": _write_csv,
}
