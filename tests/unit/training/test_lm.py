"""Building the language model: what goes into the corpus, in which form, and what stays out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import kenlm
import numpy as np
import pytest
from transformers import LasrTokenizer

from dictalake.acoustic.sparse import sparsify
from dictalake.cli.build_lm import format_size
from dictalake.cli.main import main, run_command
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError, RunError
from dictalake.training import kenlm_tools
from dictalake.training.kenlm_tools import SOURCE_VERSION, KenlmTools, default_cache, find_or_build_tools
from dictalake.training.lm import (
    CorpusCounts,
    HeldOut,
    LmPlan,
    estimate_arpa,
    read_dictations,
    unlike,
    write_binary,
    write_pieces,
)
from dictalake.training.tokenizer import build_tokenizer

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
    words = sum(len(text.split()) for text in TEXTS)
    assert counts == CorpusCounts(dictations=3, pieces=sum(len(line.split()) for line in lines), words=words)


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


def test_text_for_reporting_shares_no_sentence_with_the_text_for_tuning() -> None:
    tuned_on = HeldOut(["the heart size is normal {period} lungs are clear {period}", TEXTS[2]])
    assert list(unlike(TEXTS, tuned_on)) == [TEXTS[1]]


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
        estimate_arpa(tmp_path / "pieces.txt", tmp_path / "lm.arpa", LmPlan(), tools)
    with pytest.raises(RunError, match="build_binary failed with status 3: out of luck"):
        write_binary(tmp_path / "lm.arpa", tmp_path / "out" / "lm.kenlm", LmPlan(), tools)
    assert list((tmp_path / "out").iterdir()) == []


def test_folder_without_the_tools_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold the programs lmplz and build_binary"):
        find_or_build_tools(tmp_path, tmp_path / "cache", print)


def test_without_cmake_the_packages_to_install_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="apt-get install build-essential cmake libboost-program-options-dev"):
        find_or_build_tools(None, tmp_path / "cache", print)


def test_a_build_says_beforehand_how_long_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end_here(command: list[str], doing: str) -> None:
        raise RunError(doing)

    (tmp_path / "cmake").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(kenlm_tools, "_run", end_here)
    said: list[str] = []
    with pytest.raises(RunError, match="downloading the source package kenlm from PyPI"):
        find_or_build_tools(None, tmp_path / "cache", said.append)
    assert said[0].endswith("once; this takes perhaps 2 min on 2 cores")


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
    assert run_command("build-lm", [*command, "--model", str(tmp_path / "model"), "--out", str(lm), *options]) == 0
    printed = capsys.readouterr().out
    assert "corpus: 10 dictations" in printed
    assert "held out: 5 dictations and 0 sentences left out" in printed
    model = kenlm.Model(str(lm))
    assert model.order == (4 if "--order" in options else 6)
    pieces = [piece.replace("▁", "#") for piece in tokenizer.tokenize("no acute fracture {period}")]
    assert model.score(" ".join(pieces)) > model.score(" ".join(reversed(pieces)))
    vocabulary = Vocabulary.from_tokenizer(tokenizer, len(tokenizer))
    (best,) = open_decoder(Decoding(lm=str(lm)), vocabulary).decode(sparsify(_silence(len(tokenizer)), -6.0, 0.999, 0))
    assert best.pieces == ()


def _silence(vocabulary_size: int) -> np.ndarray:
    log_probs = np.full((10, vocabulary_size), -30.0, np.float32)
    log_probs[:, 0] = 0.0
    return log_probs


USER_TEXTS = ["no acute fracture is seen {period}", "lungs are clear on the left {period}", "no effusion {period}"]
DEV_TEXTS = ["no acute effusion on the left {period}", "the heart is clear and normal {period}"]


@pytest.fixture
def mix(tokenizer: LasrTokenizer, tmp_path: Path) -> list[str]:
    """A job with texts of the user, texts of the base, text to find the weight on, and held-out text of which half is known."""
    tokenizer.save_pretrained(tmp_path / "model")
    texts = {"user": USER_TEXTS * 3, "base": TEXTS * 3, "dev": DEV_TEXTS, "held_out": ["no fracture {period}", *DEV_TEXTS]}
    for name, lines in texts.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    files = {"--text": "user.txt", "--model": "model", "--out": "lm.kenlm", "--held-out": "held_out.txt"}
    return ["--order", "3", *(part for option, name in files.items() for part in (option, str(tmp_path / name)))]


@pytest.mark.skipif(not tools_at_hand(), reason="lmplz is not on PATH and was not built yet")
def test_job_mixes_prunes_and_reports_on_text_that_it_has_not_tuned_on(
    mix: list[str], tokenizer: LasrTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixing = ["--base-text", str(tmp_path / "base.txt"), "--dev", str(tmp_path / "dev.txt")]
    keep = ["--report", str(tmp_path / "lm.json"), "--arpa", str(tmp_path / "lm.arpa.gz")]
    assert run_command("build-lm", [*mix, *mixing, *keep, "--prune-threshold", "1e-3"]) == 0
    printed = capsys.readouterr().out
    assert "held-out text: 1 dictations, 3 words" in printed
    assert "found on --dev" in printed
    report = json.loads((tmp_path / "lm.json").read_text(encoding="utf-8"))
    models = {model["name"]: model for model in report["models"]}
    assert list(models) == ["text", "base", "interpolated", "pruned"]
    assert sum(models["pruned"]["ngrams"]) < sum(models["interpolated"]["ngrams"])
    assert models["pruned"]["size_bytes"] == (tmp_path / "lm.kenlm").stat().st_size
    assert report["base_weight_found_on_dev"]
    line = " ".join(piece.replace("▁", "#") for piece in tokenizer.tokenize("no fracture {period}"))
    assert models["pruned"]["held_out"]["perplexity_per_piece"] == pytest.approx(
        kenlm.Model(str(tmp_path / "lm.kenlm")).perplexity(line), rel=1e-6
    )
    per_word = 10 ** (-kenlm.Model(str(tmp_path / "lm.kenlm")).score(line) / 4)
    assert models["pruned"]["held_out"]["perplexity_per_word"] == pytest.approx(per_word, rel=1e-6)
    # What was written can be the base of the next.
    (tmp_path / "one.txt").write_text("no fracture {period}", encoding="utf-8")
    base = ["--base", str(tmp_path / "lm.arpa.gz"), "--base-weight", "0.5", "--held-out", str(tmp_path / "one.txt")]
    assert run_command("build-lm", [*mix, *base, *keep]) == 0
    again = json.loads((tmp_path / "lm.json").read_text(encoding="utf-8"))["models"]
    assert [model["name"] for model in again] == ["text", "base", "interpolated"]
    assert again[1]["held_out"] == pytest.approx(models["pruned"]["held_out"], rel=1e-5)


@pytest.mark.skipif(not tools_at_hand(), reason="lmplz is not on PATH and was not built yet")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base-text", "base.txt"], "--base-weight auto: finds the weight on text given with --dev"),
        (["--base-text", "base.txt", "--base-weight", "1.5"], "--base-weight 1.5: must be above 0 and below 1, or auto"),
        (["--base-text", "base.txt", "--dev", "held_out.txt"], "--held-out: no dictation is left"),
        (["--dev", "dev.txt"], "--dev: is only for --base-weight auto"),
        (["--base", "lm.arpa", "--base-text", "base.txt"], "--base and --base-text: give one of the two"),
        (["--base", "binary", "--base-weight", "0.5"], "is a KenLM binary, whose n-grams cannot be read back"),
        (["--base", "foreign.arpa", "--base-weight", "0.5"], "2 of its 3 words are no pieces of --model"),
        (["--prune-threshold", "2"], "--prune-threshold 2: must be above 0 and below 1"),
    ],
)
def test_mixture_that_cannot_be_is_refused(
    mix: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n")
    (tmp_path / "foreign.arpa").write_text(
        "\\data\\\nngram 1=3\n\n\\1-grams:\n-0.4\tfoo\n-0.4\tbar\n-0.4\t</s>\n\n\\end\\\n", encoding="utf-8"
    )
    assert main(["build-lm", *mix, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "lm.kenlm").exists()


def test_bad_arguments_end_with_status_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build-lm", "--text", "x", "--model", "y", "--out", str(tmp_path / "lm"), "--order", "9"]) == 2
    line = "dictalake build-lm: --order 9: must be from 2 to 6, the most that the decoders can read\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(("size_bytes", "shown"), [(812, "0.8 kB"), (4_096, "4.1 kB"), (2_500_000, "2.5 MB"), (3e9, "3.00 GB")])
def test_a_size_is_in_the_unit_that_says_something(size_bytes: int, shown: str) -> None:
    assert format_size(size_bytes) == shown
