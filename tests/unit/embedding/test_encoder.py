"""Text encoders: what they say of themselves, and how they make a vector of a text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dictalake.config.embedding import Embedding
from dictalake.embedding.encoder import TextEncoder
from dictalake.errors import ConfigError
from tests.text_encoders import write_bert, write_siglip


def open_encoder(model: str | Path, **values: object) -> TextEncoder:
    return TextEncoder(Embedding.model_validate({"model": str(model), **values}))


def test_the_text_tower_of_siglip_reads_64_tokens_padded_and_without_a_mask(tmp_path: Path) -> None:
    encoder = open_encoder(write_siglip(tmp_path), passage_tokens=400)
    assert (encoder.identity.limit, encoder.identity.passage_tokens, encoder.identity.pooling) == (64, 64, "pooler")
    vectors = encoder.encode(["no fracture", "no fracture of the wrist"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    tokens = encoder._tokenizer(["no fracture"], padding="max_length", max_length=64, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        wanted = torch.nn.functional.normalize(encoder._model(input_ids=tokens).pooler_output, dim=1)[0].numpy()
    assert np.allclose(vectors[0], wanted, atol=1e-5)


def test_a_vector_does_not_depend_on_what_stands_in_the_same_batch(tmp_path: Path) -> None:
    encoder = open_encoder(write_bert(tmp_path), batch=2)
    texts = ["no fracture", "no fracture of the wrist and of the hand", "fracture"]
    together, alone = encoder.encode(texts), np.concatenate([encoder.encode([text]) for text in texts])
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("description", [{"pooling_mode_cls_token": True}, {"pooling_mode": "cls"}])
def test_a_sentence_encoder_that_wants_its_first_token_gets_it(tmp_path: Path, description: object) -> None:
    mean = open_encoder(write_bert(tmp_path))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(description), encoding="utf-8")
    first = open_encoder(tmp_path)
    assert (mean.identity.pooling, first.identity.pooling) == ("mean", "first")
    assert mean.identity.fingerprint != first.identity.fingerprint
    assert not np.allclose(mean.encode(["no fracture"]), first.encode(["no fracture"]), atol=1e-3)


def test_other_passages_are_vectors_of_another_encoder(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    names = {open_encoder(folder, passage_tokens=tokens).identity.fingerprint for tokens in (16, 32, 32)}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("packaged:large", r"^embedding.model = packaged:large: no such package; there is packaged:all-minilm-l6-v2$"),
        ("nowhere/at/all", r"^embedding.model = nowhere/at/all: no such folder"),
        ("embedded:medasr-mini", r"^embedding.model = embedded:medasr-mini: cannot be loaded as a text encoder"),
    ],
)
def test_what_is_no_text_encoder_is_refused_by_its_key(model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_encoder(model)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_an_encoder_for_search_gets_its_words_before_questions_and_passages(tmp_path: Path) -> None:
    plain, short = open_encoder(write_bert(tmp_path), passage_tokens=400), open_encoder(tmp_path, passage_tokens=16)
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": {"query": "the wrist ", "passage": "of hand "}})
    encoder = open_encoder(tmp_path, passage_tokens=400)
    assert np.allclose(encoder.encode_question("no fracture"), plain.encode_question("the wrist no fracture"), atol=1e-5)
    assert np.allclose(encoder.encode(["no fracture"]), plain.encode(["of hand no fracture"]), atol=1e-5)
    assert encoder.passage_tokens == plain.passage_tokens - 2
    assert open_encoder(tmp_path, passage_tokens=16).identity.fingerprint != short.identity.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, "by lasttoken"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "by lasttoken"),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "by Dense, mean"),
    ],
)
def test_an_encoder_that_makes_its_vectors_otherwise_is_refused(tmp_path: Path, name: str, content: object, told: str) -> None:
    write_json(write_bert(tmp_path) / name, content)
    with pytest.raises(ConfigError, match=told):
        open_encoder(tmp_path)
