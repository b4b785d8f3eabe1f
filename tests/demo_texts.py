"""A lake with the texts of the demo archive, as a recogniser without errors would have written them; and questions to it."""

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
# Hand-written; no question shares a content word with the sentence that it looks for. Two more were tried and not found:
# "biliary calculi" and "stable calcium deposit between the two halves of the brain".
QUESTIONS = {
    "ruptured knee cartilage": "radiology/mri-knee-0431.ogg",
    "nasogastric catheter misplaced into the airway": "radiology/chest-0420.mp3",
    "implanted cardioverter discharged because of tachycardia": "cardiology/device-check.wav",
    "insect bite with allergic reaction": "medicine/emergency-0710.dcm",
    "asthma attack treated with steroids and noninvasive ventilation": "medicine/discharge-0609.mp3",
    "recovering kidney injury": "medicine/consult-nephrology.wav",
    "belly incision is healing well": "surgery/wound-clinic.flac",
    "epilepsy provoked by tiredness": "neurology/seizure-clinic.ogg",
    "hyperthyroidism": "medicine/clinic-thyroid.wav",
    "surgery for intestinal volvulus": "surgery/op-note-0502.wav",
}


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
