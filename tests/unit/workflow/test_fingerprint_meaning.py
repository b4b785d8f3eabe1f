"""What does not change words does not change the fingerprint, what does, does, and every key is one of the two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.config.load import load_config
from dictalake.config.locations import resolve
from dictalake.config.sections import Acoustic, Config, Decoding, Windows
from dictalake.transcript import provenance
from dictalake.transcript.provenance import HASHED, HASHED_SINCE, NOT_HASHED, Provenance
from dictalake.workflow.identity import identify


def name(config: Config) -> Provenance:
    return identify(config, find_checkpoint(config.acoustic))


def configure(**keys: str) -> Config:
    return load_config("demo", [(key.replace("__", "."), value) for key, value in keys.items()], environment={})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The embedded model without its language model, in a folder that may be changed."""
    folder = tmp_path / "model"
    shutil.copytree(resolve("embedded:medasr-mini"), folder, ignore=shutil.ignore_patterns("*.kenlm", "README.md"))
    return folder


def lay_out_anew(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(dict(reversed(values.items())), indent=4), encoding="utf-8")


def add_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"max_length": 20}', encoding="utf-8")


def change_a_value(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps({**values, "layerdrop": 0.5}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


@pytest.mark.parametrize(("change", "is_same"), [(lay_out_anew, True), (add_generation_config, True), (change_a_value, False)])
def test_the_layout_of_a_models_files_is_not_in_the_fingerprint_and_their_content_is(
    model: Path, change: Callable[[Path], None], is_same: bool
) -> None:
    config = configure(acoustic__model=str(model), decoding__lm="null")
    before = name(config)
    assert before.fingerprint == before.spelling, "the shipped files are as Hugging Face writes them"
    change(model)
    after = name(config)
    assert (after.fingerprint == before.fingerprint) == is_same
    assert after.spelling != before.spelling, "0.1.0 went by the bytes"
    assert after.model_sha256 != before.model_sha256, "rows name the bytes, and workers compare them"


@pytest.mark.parametrize(
    ("content", "is_same"),
    [
        (b"warfarin\naspirin\t2\n", True),
        (b"aspirin\t2.0\r\nwarfarin\r\n", True),
        (b"# our list\n\n  warfarin \naspirin\t2,0", True),
        ("aspirin\t2\nwarfarin\n".encode("utf-16"), True),
        (b"aspirin\t3\nwarfarin\n", False),
        (b"aspirin\t2\n", False),
    ],
)
def test_order_and_ends_of_lines_of_hotwords_are_not_in_the_fingerprint_and_terms_and_weights_are(
    tmp_path: Path, content: bytes, is_same: bool
) -> None:
    file = tmp_path / "hotwords.txt"
    file.write_bytes(b"aspirin\t2\nwarfarin\n")
    config = configure(decoding__hotwords=str(file))
    before = name(config).fingerprint
    file.write_bytes(content)
    assert (name(config).fingerprint == before) == is_same


def test_weights_of_a_language_model_count_only_where_there_is_one() -> None:
    without = {"decoding__lm": "null"}
    plain = name(configure(**without)).fingerprint
    for keys in ({"decoding__lm_weight": "0.9"}, {"decoding__word_score": "0"}, {"decoding__known_pieces": "false"}):
        assert name(configure(**without, **keys)).fingerprint == plain
        assert name(configure(**keys)).fingerprint != name(configure()).fingerprint


def test_a_dtype_that_is_asked_for_is_another_request_than_auto() -> None:
    assert len({name(configure(acoustic__dtype=dtype)).fingerprint for dtype in ("auto", "float32", "bfloat16")}) == 3


@pytest.mark.parametrize(("section", "kind"), [("acoustic", Acoustic), ("windows", Windows), ("decoding", Decoding)])
def test_of_every_key_it_is_said_once_whether_it_is_in_the_fingerprint(section: str, kind: type) -> None:
    """A new key that can change words goes into HASHED_SINCE, with the value that is as if it did not exist."""
    said = [*HASHED[section], *HASHED_SINCE[section], *NOT_HASHED[section]]
    assert sorted({*said, *kind.model_fields}) == sorted(said)  # type: ignore[attr-defined]
    assert set(said) == set(kind.model_fields)  # type: ignore[attr-defined]


def test_a_key_that_came_later_is_left_out_at_the_value_it_came_with_and_not_at_todays_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``nbest`` stands for a key that came later, with the frozen value 7, and whose default is 1 today."""
    golden = name(configure()).fingerprint
    monkeypatch.setitem(provenance.HASHED_SINCE, "decoding", {"nbest": 7})
    assert name(configure(decoding__nbest="7")).fingerprint == golden
    assert name(configure()).fingerprint != golden
