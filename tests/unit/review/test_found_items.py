"""The findings beside the words: of the text that counts, each with the words that its quote covers."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dictalake.config.sections import Lake
from dictalake.review.found_items import FindingReader
from tests.extracted_lake import add_dictations, add_extractions, make_dictation, make_extraction, make_item

TEXT = "Impression: Growing nodule of 12 mm. No effusion."
CORRECTED = "Growing nodule of 13 mm."


def place(text: str, quote: str, **fields: Any) -> dict[str, Any]:
    start = text.index(quote)
    return {**make_item(quote, **fields), "start_char": start, "end_char": start + len(quote)}


def extraction(text: str, quote: str, **changes: Any) -> dict[str, Any]:
    lists: dict[str, Any] = {name: [] for name in ("findings", "medications", "lab_values", "follow_ups", "impressions")}
    finding = place(text, quote, term="nodule", negated=False, certainty="probable", measurement=12.0, unit="mm", side="left")
    return make_extraction("a", **(lists | {"findings": [finding]} | changes))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return add_dictations(tmp_path / "lake", make_dictation("a", TEXT))


def row_of(lake: Lake) -> dict[str, Any]:
    made = make_dictation("a", TEXT)
    return {**made, "text": TEXT}


def test_an_item_names_the_words_of_its_quote(lake: Lake) -> None:
    add_extractions(lake, extraction(TEXT, "nodule of 12 mm"))
    found = FindingReader(lake).read(row_of(lake), None)
    [(title, [item])] = found.groups
    assert (found.state, found.text, title) == ("ok", "machine", "Findings")
    assert TEXT.split()[item.first : item.last + 1] == ["nodule", "of", "12", "mm."]
    assert (item.name, item.details, item.start_s) == ("nodule", "probable, left, 12 mm", 1.0)


def test_items_of_another_text_do_not_show_beside_a_corrected_one(lake: Lake) -> None:
    reader = FindingReader(lake)
    assert reader.read(row_of(lake), None).state == "none"
    add_extractions(lake, extraction(TEXT, "nodule"))
    assert reader.read(row_of(lake), None).state == "ok"  # the table that was made meanwhile is seen
    assert reader.read(row_of(lake), CORRECTED).state == "old"
    sha = sha256(CORRECTED.encode()).hexdigest()
    add_extractions(lake, extraction(CORRECTED, "13 mm", attempt=1, corrected_sha256=sha))
    found = reader.read(row_of(lake), CORRECTED)
    assert (found.state, found.text) == ("ok", "corrected")
    assert [CORRECTED.split()[one.first : one.last + 1] for _, items in found.groups for one in items] == [["13", "mm."]]


def test_a_failed_extraction_says_why_and_a_good_one_counts_before_it(lake: Lake) -> None:
    error = {"stage": "extract", "reason": "answer_invalid", "detail": "", "retryable": False}
    add_extractions(lake, extraction(TEXT, "nodule", status="failed", error=error, findings=None))
    assert FindingReader(lake).read(row_of(lake), None).reason == "answer_invalid"
    add_extractions(lake, extraction(TEXT, "nodule", attempt=1))
    assert FindingReader(lake).read(row_of(lake), None).state == "ok"
