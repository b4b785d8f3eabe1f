"""A lake with the texts of the demo archive, as a recogniser without errors would have written them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from dictalake.config.sections import Lake
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.transcript.formatting import format_text
from tests.lake_rows import make_row

TEXTS = Path(__file__).parents[1] / "pipelines/dictalake/assets/demo-archive/texts.csv"


def make_demo_rows() -> list[dict[str, Any]]:
    """A row for each recording; its id is its path in the archive."""
    said: dict[str, list[str]] = {}
    for line in csv.DictReader(TEXTS.read_text(encoding="utf-8").splitlines()):
        said.setdefault(line["recording"], []).append(line["text"])
    rows = []
    for recording, texts in said.items():
        readable = format_text(" ".join(texts))
        sections = [{"heading": s.heading, "name": s.name, "text": s.text} for s in readable.sections]
        rows.append(make_row(recording, text=readable.text, sections=sections))
    return rows


def write_demo_lake(folder: Path) -> Lake:
    lake = Lake.model_validate({"uri": str(folder)})
    TranscriptTable(lake).commit(write_staged(make_transcripts(make_demo_rows()), lake))
    return lake
