"""Is a row that was made again the row of before? What differs is named: what made it, and what came out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.lake.schema import make_transcripts
from dictalake.workflow.compare_rows import Tolerance, compare_rows, find_causes
from tests.lake_rows import make_failed_row, make_row

WORDS = st.lists(st.sampled_from(["no", "acute", "fracture", "left", "wrist", "{period}"]), max_size=12)


def in_lake(row: dict[str, Any]) -> dict[str, Any]:
    """As it is read from a lake, with a null where nothing was given."""
    (read,) = make_transcripts([row]).to_pylist()
    return dict(read)


def say(words: list[str]) -> dict[str, Any]:
    spoken = [
        {"word": word, "start_s": i + 0.25, "end_s": i + 0.75, "confidence": 0.5, "channel": 0} for i, word in enumerate(words)
    ]
    return in_lake(make_row("a", words=spoken, text_raw=" ".join(words)))


@given(WORDS)
def test_a_row_is_the_same_as_itself(words: list[str]) -> None:
    row = say(words)
    effect = compare_rows(row, copy.deepcopy(row))
    assert (effect.fields, effect.words, effect.words_changed) == ((), len(words), 0)
    assert find_causes(row, copy.deepcopy(row), {}, {}) == []


@given(WORDS, WORDS)
def test_other_words_are_never_the_same_row(then: list[str], now: list[str]) -> None:
    effect = compare_rows(say(then), say(now))
    assert ("text_raw" in effect.fields) == (then != now)
    assert ("words" in effect.fields) == (then != now)
    assert abs(len(then) - len(now)) <= effect.words_changed <= max(len(then), len(now))
    assert (effect.words_changed == 0) == (then == now)


@pytest.mark.parametrize(
    ("field", "within", "beyond"), [("start_s", 0.0009, 0.0015), ("end_s", -0.0009, -0.0015), ("confidence", 0.0009, -0.0015)]
)
def test_what_is_nearer_than_the_tolerance_is_equal(field: str, within: float, beyond: float) -> None:
    then = say(["no", "fracture"])
    for shift, fields in ((within, ()), (beyond, ("words",))):
        now = copy.deepcopy(then)
        now["words"][1][field] += shift
        assert compare_rows(then, now).fields == fields


def test_a_row_of_bfloat16_may_be_less_exact() -> None:
    row = make_row("a")
    assert Tolerance.of(in_lake(row)).confidence == 0.0011  # the last of three digits may be rounded otherwise
    row["provenance"] |= {"versions": [("torch", "2.13.0"), ("dtype", "bfloat16")]}
    assert Tolerance.of(in_lake(row)).confidence == 0.01
    assert Tolerance.of(in_lake(make_failed_row("a"))) == Tolerance()


@pytest.mark.parametrize(
    ("part", "key", "value", "named"),
    [
        ("provenance", "model_sha256", "b" * 64, "model_sha256"),
        ("provenance", "lm_sha256", "b" * 64, "lm_sha256"),
        ("provenance", "device", "NVIDIA H100", "device"),
        ("provenance", "git_commit", "b" * 40, "git_commit"),
        ("provenance", "versions", [("torch", "2.14.0")], "version of torch"),
        ("provenance", "versions", [("torch", "2.13.0"), ("dtype", "float32")], "dtype"),
        ("source", "sha256", "b" * 64, "source bytes (sha256)"),
        ("source", "version", "2", "source object version"),
        ("source", "loader", 3, "loader"),
    ],
)
def test_each_thing_that_makes_a_row_is_named_where_it_changed(part: str, key: str, value: Any, named: str) -> None:
    then, now = make_row("a"), make_row("a")
    now[part] |= {key: value}
    assert [cause.what for cause in find_causes(in_lake(then), in_lake(now), {}, {})] == [named]


def test_a_row_that_keeps_no_account_of_its_time_is_the_same_as_one_that_does() -> None:
    then, now = make_row("a"), in_lake(make_row("a"))
    then["quality"] |= {"lost_s": None, "repairs": None}
    assert compare_rows(in_lake(then), now).fields == ()
    then["quality"] |= {"lost_s": 2.0, "repairs": ["hole"]}
    assert compare_rows(in_lake(then), now).fields == ("quality",)


def test_a_key_of_the_configuration_is_named_with_both_values() -> None:
    row = in_lake(make_row("a"))
    then = {"decoding": {"beam_width": 8, "lm": "x"}, "lake": {"uri": "here"}, "archive": {"storage_options": {"key": "***"}}}
    now = {"decoding": {"beam_width": 16, "lm": "x"}, "lake": {"uri": "there"}, "archive": {"storage_options": {}}}
    (cause,) = find_causes(row, row, then, now)
    assert (cause.what, cause.then, cause.now) == ("decoding.beam_width", "8", "16")


def test_failures_are_the_same_by_stage_and_reason() -> None:
    then, other = in_lake(make_failed_row("a")), make_failed_row("a")
    other["error"] = {"stage": "load", "reason": "corrupt_audio", "detail": "", "retryable": False}
    assert compare_rows(then, copy.deepcopy(then)).fields == ()
    assert compare_rows(then, in_lake(other)).fields == ("error",)
    effect = compare_rows(then, in_lake(make_row("a")))
    assert (effect.fields, effect.then, effect.now) == (("status",), "load: not_audio", "ok")
