"""Gemma 3's architecture with tiny random weights: in the worker, behind a server over HTTP, and in vLLM's processor."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dictalake.config.load import load_config
from dictalake.config.sections import Config
from dictalake.errors import AnswerCutOff, ConfigError
from dictalake.extraction.local_model import LocalModel, make_grammar
from dictalake.extraction.model import Reply, Request
from dictalake.extraction.prompt import JSON_SCHEMA, make_messages
from dictalake.extraction.provenance import make_extract_provenance
from dictalake.extraction.transcripts import TranscriptReader
from dictalake.extraction.vllm_rows import ERROR, ROWS, StoreRows, make_row, preprocess
from tests.extracted_lake import Run, add_dictations, make_config, make_dictation, select
from tests.gemma_server import GemmaServer, make_gemma, make_texts, narrow
from tests.model_server import answer_by_rules, serving

TEXT = "No pleural effusion. She takes metoprolol 25 mg twice daily. Potassium 3.1."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [make_messages(text)[0]["content"] for text in (TEXT, *make_texts(3))]
    return make_gemma(tmp_path_factory.mktemp("models") / "gemma", texts)


def configure(folder: Path, **keys: Any) -> Config:
    given = {"model": folder, "device": "cpu", **keys}
    return load_config("extract-transformers", [(f"extract.{name}", str(value)) for name, value in given.items()], {})


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalModel:
    return LocalModel(configure(folder, max_tokens=600).extract)


def test_each_answer_of_a_batch_keeps_to_its_own_schema(model: LocalModel) -> None:
    schemas = [
        {"type": "object", "properties": {"word": {"enum": [word]}}, "required": ["word"], "additionalProperties": False}
        for word in ("left", "bilateral")
    ]
    replies = model.generate(["a", "a longer prompt"], ["r", "s"], [make_grammar(json.dumps(one)) for one in schemas])
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == ['{"word":"left"}', '{"word":"bilateral"}']


def test_an_answer_of_random_weights_is_json_of_the_schema_with_quotes_of_the_transcript(model: LocalModel) -> None:
    grammar = make_grammar(json.dumps(narrow(JSON_SCHEMA, TEXT)))
    prompt = model.tokenizer.apply_chat_template(make_messages(TEXT), add_generation_prompt=True, tokenize=False)
    [reply] = model.generate([prompt], ["r"], [grammar])
    assert isinstance(reply, Reply)
    document = json.loads(reply.text)
    assert list(document) == list(JSON_SCHEMA["properties"])
    assert all(item["quote"] in TEXT for items in document.values() for item in items)


def test_a_model_that_does_not_stop_is_cut_off(folder: Path) -> None:
    short = LocalModel(configure(folder, max_tokens=64).extract)
    [reply] = short.answer([Request("r", make_messages(TEXT))])
    assert isinstance(reply, AnswerCutOff)
    assert "after 64 tokens" in reply.detail


def test_items_are_stored_from_a_server_that_enforces_the_schema(folder: Path, tmp_path: Path) -> None:
    """`python -m tests.gemma_server` does the same with 40 transcripts."""
    lake = add_dictations(tmp_path / "lake", make_dictation("a", TEXT))
    with serving(GemmaServer(folder).app) as address:
        run = Run(make_config(lake, address))
        assert run.ask().commit() == 1
    for kind in ("findings", "medications", "lab_values", "follow_ups", "impressions"):
        [(items, quoted)] = select(lake, f"SELECT count(*), count(*) FILTER (start_s IS NOT NULL) FROM {kind}")
        assert items == quoted == 3, kind


def test_a_folder_without_a_language_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"extract\.model: .* is no language model of transformers"):
        LocalModel(configure(tmp_path).extract)


def test_the_fingerprint_follows_the_weights_and_not_the_folder(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first, second = (make_extract_provenance(configure(one), {}) for one in (folder, copy))
    assert first.fingerprint == second.fingerprint
    assert first.row["model_sha256"] == second.row["model_sha256"]
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert make_extract_provenance(configure(copy), {}).fingerprint != first.fingerprint


def test_no_connection_but_to_this_machine_is_opened_from_a_folder_to_findings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local lake, a local model folder, a local server; then the model in the worker. Names are not looked up either."""
    asked: list[Any] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def watch(self: socket.socket, address: Any) -> Any:
        asked.append(address)
        return connect(self, address)

    def watch_names(host: Any, *arguments: Any, **options: Any) -> Any:
        asked.append((host,))
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", watch)
    monkeypatch.setattr(socket, "getaddrinfo", watch_names)
    lake = add_dictations(tmp_path / "lake", make_dictation("a", TEXT))
    with serving(GemmaServer(folder).app) as address:
        assert Run(make_config(lake, address)).ask().commit() == 1
    assert asked, "the server was reached"
    local = load_config(
        "extract-transformers",
        [("extract.model", str(folder)), ("extract.device", "cpu"), ("lake.uri", str(lake.uri)), ("extract.max_tokens", "64")],
        {},
    )
    assert Run(local).ask().commit() == 1
    assert {str(one[0]) if isinstance(one, tuple) else one for one in asked} <= {"127.0.0.1", "localhost"}


def test_vllm_answers_become_rows_and_its_errors_failed_ones(folder: Path, tmp_path: Path) -> None:
    """The stages before and after the processor; vLLM itself needs a GPU."""
    lake = add_dictations(tmp_path / "lake", *(make_dictation(one, TEXT) for one in "abc"))
    config = load_config("extract-vllm", [("extract.model", str(folder)), ("lake.uri", str(lake.uri))], {})
    run = Run(config)
    found = TranscriptReader(lake).read(list("abc"), ["2026-03"])
    rows = pa.Table.from_pylist([make_row(found[one], 0) for one in "abc"], schema=ROWS).to_pylist()
    asked = preprocess(rows[0], 100)
    assert TEXT in asked["messages"][0]["content"]
    assert asked["sampling_params"]["temperature"] == 0.0
    good = {"generated_text": json.dumps(answer_by_rules(TEXT)), "num_generated_tokens": 50, ERROR: ""}
    answered = [
        {**rows[0], **good},
        {**rows[1], **good, "num_generated_tokens": 4096},
        {**rows[2], ERROR: f"too long: {TEXT}", "generated_text": ""},
    ]
    report = StoreRows(config, run.provenance)(pa.Table.from_pylist(answered))
    from dictalake.lake.staged_files import StagedFile

    assert run.table.commit([StagedFile.from_row(row) for row in report.to_pylist()]).rows == 3
    rows = select(lake, "SELECT recording_id, status, error.reason FROM finding_rows ORDER BY ALL")
    assert rows == [("a", "ok", None), ("b", "failed", "answer_cut_off"), ("c", "failed", "model_refused")]
