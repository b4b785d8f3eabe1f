"""``archive.headerless``: what is usual for an ending need not be written, and what is not usual has to."""

from __future__ import annotations

from pathlib import Path

import pytest

from dictalake.config.headerless import USUAL, Headerless
from dictalake.config.load import load_config, with_overrides
from dictalake.config.sections import Archive
from dictalake.errors import ConfigError


def parse(text: str) -> Archive:
    return load_config(overrides=[("archive.headerless", text)], environment={}).archive


def test_a_list_of_endings_takes_what_is_usual() -> None:
    archive = parse("[ul, .GSM, sln16]")
    assert archive.headerless == {
        "ul": Headerless(codec="mu_law", rate_hz=8_000, channels=1),
        "gsm": Headerless(codec="gsm", rate_hz=8_000, channels=1),
        "sln16": Headerless(codec="pcm_s16le", rate_hz=16_000, channels=1),
    }


def test_an_entry_says_what_is_not_usual() -> None:
    archive = parse("{ul: {rate_hz: 16000}, dat: {codec: a_law, rate_hz: 8000, channels: 2}, gsm: }")
    assert archive.find_headerless("ul") == Headerless(codec="mu_law", rate_hz=16_000, channels=1)
    assert archive.find_headerless("dat") == Headerless(codec="a_law", rate_hz=8_000, channels=2)
    assert archive.find_headerless("gsm") is not None
    assert archive.find_headerless("wav") is None


def test_nothing_is_headerless_by_default() -> None:
    archive = load_config(environment={}).archive
    assert [ending for ending in USUAL if archive.find_headerless(ending)] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[vox]", "vox needs rate_hz"),
        ("[dat]", "dat needs codec and rate_hz"),
        ("{dat: {codec: mu_law}}", "dat needs rate_hz"),
        ("{ul: 8000}", "ul needs keys and values"),
        ("{ul: {codec: mp3}}", "mu_law"),
        ("{ul: {rate_hz: 10}}", "greater than or equal to 4000"),
        ("{ul: {rate: 8000}}", "not permitted"),
        ("{g722: {rate_hz: 8000}}", "16000 Hz and no other"),
        ("{gsm: {channels: 2}}", "one channel"),
        ("ul", "dictionary"),
    ],
)
def test_a_bad_entry_is_refused_with_the_key(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"archive\.headerless.*{problem}"):
        parse(text)


def test_entries_survive_a_second_file(tmp_path: Path) -> None:
    config = load_config(overrides=[("archive.headerless", "[ul]")], environment={})
    (tmp_path / "more.yaml").write_text("archive:\n  uri: here\n", encoding="utf-8")
    assert with_overrides(config, tmp_path / "more.yaml").archive.headerless == config.archive.headerless
