"""Writes transcripts in the formats of other programs. What it writes is text of patients."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from dictalake.cli.query import CsvStyle, answer, ask, check_question
from dictalake.cli.tables import defuse
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError

FORMATS = ("csv", "jsonl", "srt", "vtt", "textgrid", "ctm")
_INDEX = "recordings.csv"
_FLAT = """
    SELECT r.*, {text} AS text, {who} AS corrected_by
    FROM recordings AS r LEFT JOIN transcripts AS t ON t.recording_id = r.recording_id AND r.status = 'ok'
"""
_FULL = """
    SELECT r.recording_id, r.uri, r.recorded_at, r.recorded_at_source, r.duration_s, r.channels, r.specialty, r.metadata,
        r.confidence, r.lost_s, r.model, r.fingerprint, {text} AS text, {who} AS corrected_by, t.words
    FROM recordings AS r JOIN transcripts AS t ON t.recording_id = r.recording_id
"""


@dataclass(frozen=True)
class Filter:
    """Which recordings: all conditions hold. ``where`` is SQL on the columns of the view ``recordings``."""

    where: str | None = None
    month: str | None = None
    specialty: str | None = None
    recordings: Sequence[str] = ()

    def write(self) -> str:
        """The conditions in SQL. Raises ConfigError for SQL that is none."""
        parts = []
        if self.month is not None:
            parts.append(f"r.recorded_month = {_quote(self.month)} AND t.recorded_month = {_quote(self.month)}")
        if self.specialty is not None:
            parts.append(f"r.specialty = {_quote(self.specialty)}")
        if self.recordings:
            parts.append(f"r.recording_id IN ({', '.join(map(_quote, self.recordings))})")
        if self.where is not None:
            check_question(f"SELECT 1 FROM recordings WHERE ({self.where}\n)")
            parts.append(f"r.recording_id IN (SELECT recording_id FROM recordings WHERE ({self.where}\n))")
        return f" WHERE {' AND '.join(parts)}" if parts else ""


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def export(lake: Lake, form: str, out: Path, wanted: Filter, style: CsvStyle, *, as_heard: bool = False) -> int:
    """Returns how many recordings were written, -1 for a CSV. ``as_heard``: the machine's text, also of corrected ones.

    Raises ConfigError, RunError.
    """
    text = "t.text" if as_heard else "coalesce(t.text_corrected, t.text)"
    who = "CAST(NULL AS VARCHAR)" if as_heard else "t.corrected_by"
    if form == "csv":
        # Failed recordings have their line too, with the reason.
        answer(
            lake,
            _FLAT.format(text=text, who=who) + wanted.write().replace("t.recorded_month", "r.recorded_month"),
            "csv",
            out,
            style=style,
        )
        return -1
    question = _FULL.format(text=text, who=who) + wanted.write()
    with TemporaryDirectory(prefix="dictalake-export-") as spill, ask(lake, question, Path(spill)) as (_, batches):
        rows = (row for batch in batches for row in batch.to_pylist(maps_as_pydicts="lossy"))
        try:
            if form in ("jsonl", "ctm"):
                return _write_one_file(rows, form, out)
            return _write_folder(rows, form, out)
        except OSError as error:
            raise RunError(f"--out {out}: cannot be written: {error.strerror or type(error).__name__}") from None


def _write_one_file(rows: Iterator[Mapping[str, Any]], form: str, out: Path) -> int:
    from dictalake.cli.export_formats import write_ctm

    count = 0
    with _open_whole(out) as file:
        for row in rows:
            count += 1
            if form == "ctm":
                file.writelines(write_ctm(row))
            else:
                file.write(json.dumps(row, default=_to_text, ensure_ascii=False) + "\n")
    return count


def _to_text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _write_folder(rows: Iterator[Mapping[str, Any]], form: str, out: Path) -> int:
    """A file for each recording, named by its id, and a list of them with their URIs."""
    from dictalake.cli.export_formats import ENDINGS, FILES

    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: {form} gives a file for each recording; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    with _open_whole(out / _INDEX) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "recording_id", "uri"))
        for row in rows:
            count += 1
            name = f"{row['recording_id']}{ENDINGS[form]}"
            FILES[form](row, out / name)
            writer.writerow((name, row["recording_id"], defuse(row["uri"] or "")))
    return count


@contextmanager
def _open_whole(path: Path) -> Iterator[IO[str]]:
    """A file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
