"""Building the language model: what goes into the corpus, in which form, and what stays out."""

from __future__ import annotations

import os
from pathlib import Path

import kenlm
import numpy as np
import pytest
from transformers import LasrTokenizer

from jobs.build_lm import main
from pipelines.acoustic.compaction import compact
from pipelines.config import Decoding
from pipelines.decoding.decoder import open_decoder
from pipelines.decoding.vocabulary import Vocabulary
from pipelines.errors import ConfigError, RunError
from pipelines.training.kenlm_tools import SOURCE_VERSION, KenlmTools, default_cache, find_or_build_tools
from pipelines.training.lm import CorpusCounts, HeldOut, LmPlan, build_lm, read_dictations, write_pieces
from pipelines.training.tokenizer import build_tokenizer

TEXTS = [
    "[FINDINGS] {colon} no acute fracture {period} the heart size is normal {period}",
    "[IMPRESSION] {colon} lungs are clear {period} {new paragraph} no acute fracture {period}",
    "the lungs are clear and there is no effusion {period}",
]


@pytest.fixture(scope="module")
def tokenizer() -> LasrTokenizer:
    return build_tokenizer(TEXTS * 10, 90)


def test_corpus_is_in_the_form_that_beam_search_compares_with(tokenizer: LasrTokenizer, tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_tokenizer(tokenizer, len(tokenizer))
    counts = write_pieces(TEXTS, tokenizer, vocabulary, HeldOut(), tmp_path / "pieces.txt")
    lines = (tmp_path / "pieces.txt").read_text(encoding="utf-8").splitlines()
    assert [line.replace(" ", "").replace("#", " ").strip() for line in lines] == TEXTS
    labels = set(vocabulary.pyctcdecode_labels())
    assert all(f"▁{piece}" in labels for line in lines for piece in line.split())
    assert counts == CorpusCounts(dictations=3, pieces=sum(len(line.split()) for line in lines))


def test_pieces_that_the_model_cannot_emit_are_left_out_and_counted(tokenizer: LasrTokenizer, tmp_path: Path) -> None:
    cut = Vocabulary.from_tokenizer(tokenizer, len(tokenizer) - 10)
    counts = write_pieces(TEXTS, tokenizer, cut, HeldOut(), tmp_path / "pieces.txt")
    ids = [i for text in TEXTS for i in tokenizer(text, add_special_tokens=False).input_ids]
    assert counts.unknown_pieces == sum(i >= len(tokenizer) - 10 for i in ids)
    assert counts.pieces == len(ids) - counts.unknown_pieces


@pytest.mark.parametrize(
    ("held_out", "dictation", "expected"),
    [
        (["no acute fracture {period}"], "No acute fracture", ("", 0)),
        (["the heart size is normal"], TEXTS[0], ("[FINDINGS] {colon} no acute fracture {period}", 1)),
        (["x {period} The heart size is normal {period}"], TEXTS[0], ("[FINDINGS] {colon} no acute fracture {period}", 1)),
        (["no acute fracture"], TEXTS[0], (TEXTS[0], 0)),
        (["heart size is normal"], TEXTS[0], (TEXTS[0], 0)),
        ([], TEXTS[1], (TEXTS[1], 0)),
        (["lungs are clear today"], "lungs are clear today {new paragraph} lungs are clear today", ("", 2)),
    ],
)
def test_held_out_text_stays_out(held_out: list[str], dictation: str, expected: tuple[str, int]) -> None:
    assert HeldOut(held_out).cut(dictation) == expected


def test_what_was_held_out_is_counted(tokenizer: LasrTokenizer, tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_tokenizer(tokenizer, len(tokenizer))
    held_out = HeldOut([TEXTS[2], "the heart size is normal {period}"])
    counts = write_pieces(TEXTS, tokenizer, vocabulary, held_out, tmp_path / "pieces.txt")
    assert (counts.dictations, counts.excluded_dictations, counts.excluded_sentences) == (2, 1, 1)
    with pytest.raises(ConfigError, match="no dictation is left"):
        write_pieces(TEXTS, tokenizer, vocabulary, HeldOut(TEXTS), tmp_path / "pieces.txt")


def test_text_is_read_by_line_or_by_column(tmp_path: Path) -> None:
    lines = tmp_path / "a.txt"
    lines.write_text("no  fracture {period}\n\n  clear\n", encoding="utf-8")
    assert list(read_dictations(lines)) == ["no fracture {period}", "clear"]
    table = tmp_path / "a.csv"
    table.write_text('id,reference,words\n1,"no fracture, clear",x\n2,,y\n', encoding="utf-8")
    assert list(read_dictations(table)) == ["no fracture, clear"]
    assert list(read_dictations(table, "words")) == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, r"none.txt: cannot be read \(No such file or directory\)"),
        ("a.csv", b"id,said\n1,x\n", "has no column text or reference; its columns are id, said"),
        ("a.csv", b"", "has no column text or reference; its columns are none"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_unreadable_text_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        list(read_dictations(tmp_path / name))


@pytest.mark.parametrize(
    ("order", "prune", "message"),
    [
        (1, (), "--order 1: must be from 2 to 6"),
        (7, (), "--order 7: must be from 2 to 6"),
        (3, (1,), "--prune 1: must begin with 0"),
        (3, (0, 2, 1), "--prune 0 2 1: must begin with 0, not fall"),
        (2, (0, 0, 1), "hold at most 2 numbers"),
    ],
)
def test_impossible_plan_is_refused(order: int, prune: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LmPlan(order=order, prune=prune)


def test_tool_that_fails_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("lmplz", "build_binary"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    tools = find_or_build_tools(tmp_path, tmp_path / "cache", print)
    assert tools == KenlmTools(tmp_path / "lmplz", tmp_path / "build_binary")
    with pytest.raises(RunError, match="lmplz failed with status 3: out of luck"):
        build_lm(tmp_path / "pieces.txt", tmp_path / "out" / "lm.kenlm", LmPlan(), tools)
    assert list((tmp_path / "out").iterdir()) == []


def test_folder_without_the_tools_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold the programs lmplz and build_binary"):
        find_or_build_tools(tmp_path, tmp_path / "cache", print)


def test_without_cmake_the_packages_to_install_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="apt-get install build-essential cmake libboost-program-options-dev"):
        find_or_build_tools(None, tmp_path / "cache", print)


def tools_at_hand() -> bool:
    """Whether lmplz is on PATH or was built before; a test does not build it."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), default_cache() / f"kenlm-{SOURCE_VERSION}"]
    return any((Path(place) / "lmplz").is_file() for place in places)


@pytest.mark.skipif(not tools_at_hand(), reason="lmplz is not on PATH and was not built yet")
@pytest.mark.parametrize("options", [[], ["--quantize"], ["--prune", "0", "0", "1", "--order", "4"]])
def test_job_builds_a_model_that_the_decoder_takes(
    tokenizer: LasrTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 5), encoding="utf-8")
    (tmp_path / "held_out.txt").write_text(TEXTS[2], encoding="utf-8")
    lm = tmp_path / "lm.kenlm"
    command = ["--text", str(tmp_path / "text.txt"), "--exclude", str(tmp_path / "held_out.txt")]
    assert main([*command, "--model", str(tmp_path / "model"), "--out", str(lm), *options]) == 0
    printed = capsys.readouterr().out
    assert "corpus: 10 dictations" in printed
    assert "held out: 5 dictations and 0 sentences left out" in printed
    model = kenlm.Model(str(lm))
    assert model.order == (4 if "--order" in options else 6)
    pieces = [piece.replace("▁", "#") for piece in tokenizer.tokenize("no acute fracture {period}")]
    assert model.score(" ".join(pieces)) > model.score(" ".join(reversed(pieces)))
    vocabulary = Vocabulary.from_tokenizer(tokenizer, len(tokenizer))
    (best,) = open_decoder(Decoding(lm=str(lm)), vocabulary).decode(compact(_silence(len(tokenizer)), -6.0, 0.999, 0))
    assert best.pieces == ()


def _silence(vocabulary_size: int) -> np.ndarray:
    log_probs = np.full((10, vocabulary_size), -30.0, np.float32)
    log_probs[:, 0] = 0.0
    return log_probs


def test_bad_arguments_end_with_status_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--text", "x", "--model", "y", "--out", str(tmp_path / "lm"), "--order", "9"]) == 2
    assert capsys.readouterr().err == "--order 9: must be from 2 to 6, the most that the decoders can read\n"
