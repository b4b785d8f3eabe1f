"""Scores of extracted items against the hand-written dictations in the repository."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from dictalake.cli.main import run_command
from dictalake.errors import ConfigError
from dictalake.extraction.checking import check_answers
from dictalake.extraction.evaluation import read_labels, score
from dictalake.extraction.parts import split_text
from dictalake.extraction.timing import WordTimes
from tests.model_server import ModelServer, serving

LABELS = Path(__file__).parents[2] / "fixtures/extraction/dictations.jsonl"
Items = dict[str, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def perfect() -> Items:
    """What the labels themselves give as answers: each passes our own check."""
    given = {}
    for line in LABELS.read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        text = document["text"]
        checked = check_answers(document["id"], text, split_text(text, 9999), [line], WordTimes(text, None))
        assert +checked.dropped == {}
        given[document["id"]] = checked.items
    return given


def test_there_are_at_least_forty_dictations_with_negations_sides_doses_values_and_follow_ups() -> None:
    dictations = read_labels(LABELS)
    assert len(dictations) >= 40
    assert len({one.text for one in dictations}) == len(dictations)
    items = [item for one in dictations for of_kind in one.items.values() for item in of_kind]
    assert sum(getattr(item, "negated", False) for item in items) > 30
    assert sum(getattr(item, "side", None) is not None for item in items) >= 30
    assert min(sum(len(one.items[kind]) for one in dictations) for kind in dictations[0].items) >= 20


def test_the_labels_score_one(perfect: Items) -> None:
    for one in score(read_labels(LABELS), perfect).values():
        numbers = one.numbers()
        assert (numbers["precision"], numbers["recall"], numbers["strict_f1"]) == (1.0, 1.0, 1.0)
        assert {numbers[name] for name in ("negation", "side", "number")} <= {1.0, None}


def test_a_missed_and_an_invented_item_lower_recall_and_precision(perfect: Items) -> None:
    given = deepcopy(perfect)
    moved = given["rad-01"]["findings"].pop(0)
    given["rad-02"]["findings"].append(moved)  # it is of another text
    findings = score(read_labels(LABELS), given)["findings"]
    assert (findings.labels - findings.matched, findings.given - findings.matched) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "name", "changes"),
    [
        ("findings", "negation", {"negated": True}),
        ("findings", "side", {"side": "right"}),
        ("medications", "number", {"dose": 4.0}),
        ("lab_values", "number", {"value": "1.3"}),
    ],
)
def test_a_wrong_negation_side_or_number_is_no_strict_match(
    perfect: Items, kind: str, name: str, changes: dict[str, Any]
) -> None:
    given = deepcopy(perfect)
    for of_one in given.values():
        of_one[kind] = [{**item, **changes} for item in of_one[kind]]
    one = score(read_labels(LABELS), given)[kind].numbers()
    assert one["precision"] == one["recall"] == 1.0
    assert one[name] < 1.0
    assert one["strict_f1"] < 0.8


def test_a_name_that_differs_a_little_is_found_and_another_is_not(perfect: Items) -> None:
    for term, found in (("effusion, pleural", 1), ("Left pleural effusion", 1), ("atelectasis", 0)):
        given = {"rad-01": deepcopy(perfect["rad-01"])}
        given["rad-01"]["findings"] = [{**given["rad-01"]["findings"][0], "term": term}]
        assert score(read_labels(LABELS), given)["findings"].matched == found


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1: not a JSON object"),
        ('{"id": "a", "text": "x", "findings": [{"term": "x"}]}', "line 1: an item is none of the schema, at quote"),
        (
            '{"id": "a", "text": "x", "findings": [{"term": "x", "quote": "y"}]}',
            "line 1: the quote of item 1 of findings does not stand in the text$",
        ),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "dictation 2 has the id of another one"),
        ("", "no dictation"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "labels.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        read_labels(tmp_path / "labels.jsonl")


def test_a_text_may_hold_what_unicode_counts_as_the_end_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"id": "a", "text": "x\u2028y"}', encoding="utf-8")
    assert [one.text for one in read_labels(tmp_path / "labels.jsonl")] == ["x\u2028y"]


def test_the_command_asks_the_model_and_prints_the_scores(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(ModelServer().app) as address:
        arguments = [str(LABELS), "--extract.server", address, "--format", "json"]
        assert run_command("evaluate-extraction", arguments) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["dictations"] == len(read_labels(LABELS))
    assert shown["kinds"]["findings"]["given"] > 100
    assert 0 < shown["kinds"]["medications"]["recall"] < 1
