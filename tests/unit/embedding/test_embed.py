"""Vectors of a lake: exactly once, erased with their recording, and nearest to what means the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dictalake.cli.main import run_command
from dictalake.config.embedding import Embedding
from dictalake.config.sections import Lake
from dictalake.embedding import embed
from dictalake.embedding.embed import Embedded, embed_lake, make_encoder, make_rows
from dictalake.embedding.encoder import TextEncoder
from dictalake.errors import RunError
from dictalake.lake.delta import open_dataset
from dictalake.lake.embeddings import Committed, EmbeddingTable, find_nearest
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.fingerprints import FingerprintLog
from dictalake.lake.places import EMBEDDINGS_FOLDER
from dictalake.lake.schema import EMBEDDINGS, make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from tests.audited_lake import read_all
from tests.demo_texts import make_demo_rows, write_demo_lake
from tests.lake_rows import FINGERPRINT, make_row
from tests.meaning_questions import FIRST, FRESH, TRIED, Question, find_stated

NEW = "7be1d0a94c52"


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    """A real one, all-MiniLM-L6-v2."""
    return TextEncoder(Embedding())  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, encoder: TextEncoder) -> Lake:
    lake = write_demo_lake(tmp_path_factory.mktemp("demo") / "lake")
    embed_lake(lake, encoder)
    return lake


def find(lake: Lake, encoder: TextEncoder, words: str, limit: int = 3) -> list[str]:
    hits = find_nearest(lake, make_encoder(encoder), encoder.encode_question(words), limit)
    return [hit.recording_id for hit in hits]


@pytest.mark.parametrize("question", [*FIRST, *FRESH], ids=lambda question: question.words)
def test_a_question_without_a_word_of_the_sentence_finds_it(demo: Lake, encoder: TextEncoder, question: Question) -> None:
    assert question.recording in find(demo, encoder, question.words)


def test_the_questions_share_no_content_word_with_what_they_look_for() -> None:
    texts = {row["recording_id"]: row["text"].lower() for row in make_demo_rows()}
    common = " a and be because between for in into is no of the to up was well with "
    for question in (*FIRST, *FRESH):
        beginnings = {word[:5] for word in re.findall("[a-z]+", texts[question.recording])}
        words = re.findall("[a-z]+", question.words)
        assert not {word for word in words if f" {word} " not in common and word[:5] in beginnings}, question.words


def test_what_states_a_fact_is_told_by_its_words() -> None:
    texts = {row["recording_id"]: row["text"] for row in make_demo_rows()}
    assert all(question.is_stated_by(texts[question.recording]) for question in (*FIRST, *FRESH, *TRIED))
    assert [one.words for one in find_stated(FIRST, "Meniscal tear. The feeding tube is in the stomach.")] == [
        "ruptured knee cartilage"
    ]


def make_lake(folder: Path, *rows: dict[str, Any]) -> Lake:
    lake = Lake.model_validate({"uri": str(folder / "lake")})
    commit(lake, *rows)
    return lake


def commit(lake: Lake, *rows: dict[str, Any]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(list(rows)), lake))


def read_vectors(lake: Lake) -> list[tuple[str, str]]:
    """(recording, fingerprint) of every vector, sorted, repeats kept."""
    rows = open_dataset(open_storage(lake, EMBEDDINGS_FOLDER), EMBEDDINGS).to_table()
    return sorted(zip(rows["recording_id"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))


def make_vectors(lake: Lake, encoder: TextEncoder) -> pa.Table:
    """What a process would commit now."""
    (chunk,) = embed._split(EmbeddingTable(lake).iter_missing(encoder.identity.fingerprint), encoder)
    return make_rows(chunk, encoder)


def test_a_killed_embedding_goes_on_and_gives_each_passage_one_vector(
    tmp_path: Path, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, *(make_row(name) for name in "abc"))
    monkeypatch.setattr(embed, "_COMMIT_TRANSCRIPTS", 1)

    def kill(done: Embedded) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_lake(lake, encoder, kill)
    assert len(read_vectors(lake)) == 1
    assert embed_lake(lake, encoder) == Embedded(transcripts=2, passages=2)
    assert read_vectors(lake) == [(name, FINGERPRINT) for name in "abc"]
    assert embed_lake(lake, encoder) == Embedded()


def test_two_processes_with_the_same_passages_write_them_once(tmp_path: Path, encoder: TextEncoder) -> None:
    lake = make_lake(tmp_path, make_row("a"), make_row("b"))
    rows, first, second = make_vectors(lake, encoder), EmbeddingTable(lake), EmbeddingTable(lake)
    assert first.commit(rows, make_encoder(encoder)) == Committed(2, 2, 0, 0)
    assert second.commit(rows, make_encoder(encoder)) == Committed(0, 0, 2, 0)
    assert read_vectors(lake) == [("a", FINGERPRINT), ("b", FINGERPRINT)]


def test_a_commit_between_the_look_and_the_write_is_seen(
    tmp_path: Path, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, make_row("a"))
    rows, slow, fast = make_vectors(lake, encoder), EmbeddingTable(lake), EmbeddingTable(lake)
    drop, calls = slow._drop_gone, iter([lambda: fast.commit(rows, make_encoder(encoder))])

    def drop_late(table: pa.Table) -> pa.Table:
        next(calls, lambda: None)()  # the other process is quicker, once
        return drop(table)

    monkeypatch.setattr(slow, "_drop_gone", drop_late)
    assert slow.commit(rows, make_encoder(encoder)).already_there == 1
    assert read_vectors(lake) == [("a", FINGERPRINT)]


def test_vectors_go_with_their_recording_and_leave_no_byte(tmp_path: Path, encoder: TextEncoder) -> None:
    lake = make_lake(tmp_path, make_row("a"), make_row("b", text="Chest.", sections=None))
    embed_lake(lake, encoder)
    rows = open_dataset(open_storage(lake, EMBEDDINGS_FOLDER), EMBEDDINGS).to_table().to_pylist()
    vectors = {row["recording_id"]: json.dumps(str(row["vector"])).encode() for row in rows}  # as read_all writes it
    receipt = forget(lake, Subjects(uris=("gs://archive/a.wav",)))
    assert receipt.other_rows == 1
    assert read_vectors(lake) == [("b", FINGERPRINT)]
    there = b"".join(content for _, content in read_all(lake, EMBEDDINGS_FOLDER))
    assert (vectors["a"] in there, vectors["b"] in there) == (False, True)
    assert find(lake, encoder, "bone") == ["b"]


def test_what_is_erased_while_it_is_encoded_gets_no_vector(tmp_path: Path, encoder: TextEncoder) -> None:
    lake = make_lake(tmp_path, make_row("a"), make_row("b"))
    table, rows = EmbeddingTable(lake), make_vectors(lake, encoder)
    forget(lake, Subjects(uris=("gs://archive/a.wav",)))
    assert table.commit(rows, make_encoder(encoder)) == Committed(1, 1, 0, 1)
    assert read_vectors(lake) == [("b", FINGERPRINT)]


def test_what_is_erased_between_the_look_and_the_commit_is_taken_out(
    tmp_path: Path, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, make_row("a"), make_row("b"))
    table, rows = EmbeddingTable(lake), make_vectors(lake, encoder)
    drop, calls = table._drop_gone, iter([lambda: forget(lake, Subjects(uris=("gs://archive/a.wav",)))])

    def drop_early(given: pa.Table) -> pa.Table:
        left = drop(given)
        next(calls, lambda: None)()
        return left

    monkeypatch.setattr(table, "_drop_gone", drop_early)
    table.commit(rows, make_encoder(encoder))
    assert read_vectors(lake) == [("b", FINGERPRINT)]


def test_what_a_killed_embedding_left_of_an_erased_recording_goes_with_the_next_one(
    tmp_path: Path, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, make_row("a"), make_row("b"))
    table, rows = EmbeddingTable(lake), make_vectors(lake, encoder)
    looks = iter([lambda: forget(lake, Subjects(uris=("gs://archive/a.wav",)))])

    def die_at_the_second(given: pa.Table) -> pa.Table:
        next(looks)()
        return given

    monkeypatch.setattr(table, "_drop_gone", die_at_the_second)
    with pytest.raises(StopIteration):
        table.commit(rows, make_encoder(encoder))
    assert len(read_vectors(lake)) == 2
    assert embed_lake(lake, encoder) == Embedded()
    assert read_vectors(lake) == [("b", FINGERPRINT)]


def test_search_follows_the_production_view(tmp_path: Path, encoder: TextEncoder) -> None:
    stone = {"text": "Gallstones.", "sections": None}
    lake = make_lake(tmp_path, make_row("a"), make_row("b", **stone), make_row("a", fingerprint=NEW, **stone))
    log = FingerprintLog(lake)
    log.promote_first(FINGERPRINT, "r1")
    embed_lake(lake, encoder)
    assert read_vectors(lake) == [("a", FINGERPRINT), ("b", FINGERPRINT)]  # the experiment has none
    hits = find_nearest(lake, make_encoder(encoder), encoder.encode_question("biliary calculi"), 2)
    assert [(hit.recording_id, hit.snippet[0][0]) for hit in hits] == [("b", "Gallstones."), ("a", "No acute fracture.")]
    log.promote(NEW)
    assert find(lake, encoder, "biliary calculi") == ["b"]  # until the new row of a has its vector
    embed_lake(lake, encoder)
    assert sorted(find(lake, encoder, "biliary calculi")) == ["a", "b"]
    assert read_vectors(lake) == [("a", FINGERPRINT), ("a", NEW), ("b", FINGERPRINT)]


def test_without_vectors_of_this_encoder_it_says_what_to_do(tmp_path: Path, encoder: TextEncoder) -> None:
    lake = make_lake(tmp_path, make_row("a"))
    with pytest.raises(RunError, match="has no vectors: run dictalake embed"):
        find(lake, encoder, "fracture")
    embed_lake(lake, encoder)
    other = replace(make_encoder(encoder), fingerprint="0" * 12)
    with pytest.raises(RunError, match="no vectors of packaged:all-minilm-l6-v2"):
        find_nearest(lake, other, np.zeros(encoder.dimensions, np.float32), 3)


def test_the_commands_embed_a_lake_and_search_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoder: TextEncoder
) -> None:
    lake = make_lake(tmp_path, make_row("a"), make_row("b", text="Gallstones.", sections=None))
    assert run_command("embed", [str(lake.uri)]) == 0
    assert "384 numbers a vector, passages of at most 64 tokens (the model reads 256)" in capsys.readouterr().out
    assert run_command("search", [str(lake.uri), "--by-meaning", "biliary calculi", "--format", "json", "--limit", "1"]) == 0
    (hit,) = json.loads(capsys.readouterr().out)
    assert (hit["recording_id"], hit["specialty"], hit["snippet"]) == ("b", "radiology", "Gallstones.")
