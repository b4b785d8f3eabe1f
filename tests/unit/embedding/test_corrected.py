"""Vectors follow corrections: what a person says was said is what is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from dictalake.config.embedding import Embedding
from dictalake.config.sections import Lake
from dictalake.embedding.embed import Embedded, embed_lake, make_encoder
from dictalake.embedding.encoder import TextEncoder
from dictalake.errors import RunError
from dictalake.lake.corrections import CorrectionRecord, Corrections
from dictalake.lake.embeddings import Committed, EmbeddingTable, find_nearest, find_similar
from dictalake.lake.erase import Subjects, forget
from tests.lake_rows import make_row
from tests.unit.embedding.test_embed import make_lake, make_vectors, read_vectors

STONES = "The gallbladder holds two stones."


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(Embedding())  # type: ignore[call-arg]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Of a and b: no acute fracture."""
    return make_lake(tmp_path, make_row("a"), make_row("b"))


def correct(lake: Lake, recording_id: str, text: str) -> str:
    corrections = Corrections(lake)
    corrections.refresh()
    last = corrections.find_last(recording_id)
    record = CorrectionRecord(
        recording_id=recording_id,
        event="corrected",
        who="Ann",
        text=text,
        replaces=None if last is None else last.correction_id,
    )
    return corrections.save(record).correction_id


def find(lake: Lake, encoder: TextEncoder, words: str) -> list[tuple[str, str]]:
    """(recording, passage), the nearest first."""
    hits = find_nearest(lake, make_encoder(encoder), encoder.encode_question(words), 3)
    return [(hit.recording_id, hit.snippet[0][0]) for hit in hits]


def test_a_corrected_recording_is_found_by_what_the_person_wrote(lake: Lake, encoder: TextEncoder) -> None:
    embed_lake(lake, encoder)
    correct(lake, "a", f"Chest: clear.  {STONES}")
    assert find(lake, encoder, "gallstones") == [("b", "No acute fracture.")]  # a text that no longer counts is not found
    assert embed_lake(lake, encoder) == Embedded(transcripts=1, passages=1)
    assert find(lake, encoder, "gallstones") == [("a", f"Chest: clear. {STONES}"), ("b", "No acute fracture.")]


def test_each_text_is_embedded_once_also_when_a_correction_is_undone(lake: Lake, encoder: TextEncoder) -> None:
    correct(lake, "a", STONES)
    assert [embed_lake(lake, encoder).passages for _ in range(2)] == [2, 0]
    seen = correct(lake, "a", "The gallbladder is empty.")
    assert [embed_lake(lake, encoder).passages for _ in range(2)] == [1, 0]
    Corrections(lake).undo("a", seen, "Ben")  # the first one counts again
    assert embed_lake(lake, encoder) == Embedded()
    assert find(lake, encoder, "gallstones")[0] == ("a", STONES)
    correct(lake, "a", " ")  # a person found no words
    assert embed_lake(lake, encoder) == Embedded()
    assert find(lake, encoder, "gallstones") == [("b", "No acute fracture.")]
    assert len(read_vectors(lake)) == 3


def test_what_was_embedded_only_corrected_is_embedded_when_that_is_undone(lake: Lake, encoder: TextEncoder) -> None:
    seen = correct(lake, "a", STONES)
    embed_lake(lake, encoder)
    Corrections(lake).undo("a", seen, "Ben")
    assert find(lake, encoder, "gallstones") == [("b", "No acute fracture.")]
    assert [embed_lake(lake, encoder).passages for _ in range(2)] == [1, 0]
    assert sorted(find(lake, encoder, "gallstones")) == [("a", "No acute fracture."), ("b", "No acute fracture.")]


def test_a_correction_while_its_recording_is_encoded_is_embedded_by_the_next_one(lake: Lake, encoder: TextEncoder) -> None:
    rows, table = make_vectors(lake, encoder), EmbeddingTable(lake)
    correct(lake, "a", STONES)
    table.commit(rows, make_encoder(encoder))  # of what the machine wrote
    assert find(lake, encoder, "gallstones") == [("b", "No acute fracture.")]
    assert [embed_lake(lake, encoder).passages for _ in range(2)] == [1, 0]
    assert find(lake, encoder, "gallstones")[0] == ("a", STONES)


def test_two_processes_write_the_vectors_of_a_corrected_text_once(lake: Lake, encoder: TextEncoder) -> None:
    embed_lake(lake, encoder)
    correct(lake, "a", STONES)
    rows, first, second = make_vectors(lake, encoder), EmbeddingTable(lake), EmbeddingTable(lake)
    assert first.commit(rows, make_encoder(encoder)) == Committed(1, 1, 0, 0)
    assert second.commit(rows, make_encoder(encoder)) == Committed(0, 0, 1, 0)


def test_more_like_this_is_more_like_the_corrected_text(tmp_path: Path, encoder: TextEncoder) -> None:
    rows = [make_row(name, text=text, sections=None) for name, text in (("a", "Chest."), ("b", "Lungs."), ("c", STONES))]
    lake = make_lake(tmp_path, *rows)
    embed_lake(lake, encoder)
    assert [hit.recording_id for hit in find_similar(lake, rows[0], None, 1)] == ["b"]
    correct(lake, "a", "Gallstones.")
    with pytest.raises(RunError, match="the corrected text has no vectors yet: run dictalake embed LAKE"):
        find_similar(lake, rows[0], "Gallstones.", 1)
    embed_lake(lake, encoder)
    assert [hit.recording_id for hit in find_similar(lake, rows[0], "Gallstones.", 1)] == ["c"]


def test_vectors_of_all_texts_of_a_recording_go_with_it(lake: Lake, encoder: TextEncoder) -> None:
    embed_lake(lake, encoder)
    correct(lake, "a", STONES)
    embed_lake(lake, encoder)
    forget(lake, Subjects(uris=("gs://archive/a.wav",)))
    assert [recording_id for recording_id, _ in read_vectors(lake)] == ["b"]
