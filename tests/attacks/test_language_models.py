"""Language models that are damaged or exchanged: refused before KenLM loads them, by the hash or by the list of their words."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.config.load import load_config
from dictalake.config.locations import ASSETS
from dictalake.config.sections import Config, Decoding
from dictalake.decoding import kenlm_file, lm_file
from dictalake.decoding.base import open_decoder
from dictalake.errors import ConfigError
from dictalake.workflow.identity import find_decoder_files, identify, read_vocabulary

EMBEDDED = "embedded:medasr-mini/lm_6.kenlm"
LM = ASSETS / "medasr-mini/lm_6.kenlm"
COUNT_AT = 0x6C


@pytest.fixture(scope="module")
def content() -> bytes:
    return LM.read_bytes()


def damage(content: bytes, seed: int) -> bytes:
    """A bit, a page of zeros or a page of noise somewhere in it, or a part of it is missing."""
    at, changed, rng = random.Random(seed).randrange(len(content) - 4096), bytearray(content), random.Random(seed)
    match seed % 4:
        case 0:
            changed[at] ^= 1 << rng.randrange(8)
        case 1:
            changed[at : at + 4096] = bytes(4096)
        case 2:
            changed[at : at + 4096] = rng.randbytes(4096)
        case _:
            del changed[at:]
    return bytes(changed)


def make_config(lm: str, **keys: object) -> Config:
    return Config.model_validate({"decoding": {"lm": lm, **keys}})


def test_the_hash_of_the_embedded_model_is_that_of_the_file() -> None:
    assert {EMBEDDED: hashlib.sha256(LM.read_bytes()).hexdigest()} == lm_file.EMBEDDED


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_of_a_known_hash_is_refused_before_it_is_loaded(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    damaged = tmp_path / "lm.kenlm"
    damaged.write_bytes(damage(content, seed))
    monkeypatch.setattr(kenlm_file.kenlm, "Model", lambda *_: pytest.fail("KenLM loaded it"))
    config = make_config(str(damaged), lm_sha256=hashlib.sha256(content).hexdigest())
    vocabulary, _ = read_vocabulary(find_checkpoint(config.acoustic))
    with pytest.raises(ConfigError, match=r"the file is damaged or another one.*correct decoding\.lm_sha256"):
        find_decoder_files(config)  # a run
    with pytest.raises(ConfigError, match="the file is damaged or another one"):
        open_decoder(config.decoding, vocabulary)  # doctor, evaluate, tune


def test_a_damaged_embedded_model_is_refused(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "medasr-mini").mkdir()
    (tmp_path / "medasr-mini/lm_6.kenlm").write_bytes(damage(content, 0))
    config = make_config(EMBEDDED)
    vocabulary, _ = read_vocabulary(find_checkpoint(config.acoustic))
    monkeypatch.setattr("dictalake.config.locations.ASSETS", tmp_path)
    with pytest.raises(ConfigError, match=f"decoding.lm = {EMBEDDED}: the file is damaged or another one"):
        open_decoder(config.decoding, vocabulary)
    with pytest.raises(ConfigError, match=f"decoding.lm = {EMBEDDED}: the file is damaged or another one"):
        find_decoder_files(config)


def test_a_damaged_file_in_the_cache_of_the_hub_is_refused(tmp_path: Path, content: bytes) -> None:
    blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(damage(content, 1))
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots/lm_6.kenlm").symlink_to(blob)
    config = make_config(str(tmp_path / "snapshots/lm_6.kenlm"))
    with pytest.raises(ConfigError, match="the file is damaged or another one"):
        find_decoder_files(config)
    blob.write_bytes(content)
    assert find_decoder_files(config).lm is not None


def change_count(content: bytes, count: int = 999) -> bytes:
    return content[:COUNT_AT] + count.to_bytes(8, "little") + content[COUNT_AT + 8 :]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content[:90], "it ends in its header"),
        (lambda content: content[:0x58] + b"\x09" + content[0x59:], "its header makes no sense"),
        (lambda content: content[:0x60] + b"\x09" + content[0x61:], "its header makes no sense"),
        (lambda content: content[:0x64] + b"\x02" + content[0x65:], "its header makes no sense"),
        (lambda content: change_count(content, 2**60), "its header makes no sense"),
        (change_count, "the list of its 999 words at the end is not whole"),
        (lambda content: content[:-300], "the list of its 457 words at the end is not whole"),
        (lambda content: content + bytes(8), "the list of its 457 words at the end is not whole"),
        (lambda content: content[:-4096] + bytes(4096), "the list of its 457 words at the end is not whole"),
    ],
    ids=[
        "header cut",
        "order 9",
        "kind 9",
        "words 2",
        "2**60 words",
        "another count",
        "end cut",
        "more at the end",
        "zeros at the end",
    ],
)
def test_without_a_known_hash_a_file_that_is_not_whole_is_refused(
    tmp_path: Path, content: bytes, change: object, problem: str
) -> None:
    assert callable(change)
    damaged = tmp_path / "lm.kenlm"
    damaged.write_bytes(change(content))
    with pytest.raises(ConfigError) as caught:
        lm_file.check_lm_file(Decoding(lm=str(damaged)), damaged)  # type: ignore[call-arg]
    assert str(caught.value) == f"decoding.lm = {damaged}: the file is damaged ({problem}); fetch or copy it again"


def test_the_hash_in_the_configuration_changes_no_fingerprint() -> None:
    plain = load_config("demo", environment={})
    checked = load_config("demo", [("decoding.lm_sha256", lm_file.EMBEDDED[EMBEDDED])], environment={})
    checkpoint = find_checkpoint(plain.acoustic)
    assert identify(plain, checkpoint).fingerprint == identify(checked, checkpoint).fingerprint


def test_what_is_no_hash_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match=r"decoding\.lm_sha256"):
        load_config("demo", [("decoding.lm_sha256", "abc")], environment={})
