"""Word errors of terms and drugs, and formatted entities, against sixty pairs that were counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dictalake.evaluation.assessment import Assessed, assess, describe
from dictalake.evaluation.clinical import Terms
from dictalake.evaluation.entities import Entity, find_entities
from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.utterances import Utterance

PAIRS = Path(__file__).parents[2] / "fixtures/clinical_pairs.txt"
DRUGS = ("metoprolol", "apixaban", "warfarin", "insulin glargine", "lisinopril", "amoxicillin", "heparin", "digoxin")
FINDINGS = ("pleural effusion", "pneumothorax", "fracture", "stenosis")
TERMS = Terms({**dict.fromkeys(DRUGS, "drugs"), **dict.fromkeys(FINDINGS, "findings")})
LINES = [line for line in PAIRS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def assess_line(line: str) -> tuple[list[list[int]], Assessed]:
    """What was counted by hand, and the pair as it is assessed."""
    counts, said, heard = (part.strip() for part in line.split("|"))
    by_hand = [[int(number) for number in group.split("/")] for group in counts.split()]
    return by_hand, assess(Utterance(line, said, heard, {}), normalise_medasr, TERMS)


def count(assessed: Assessed) -> list[list[int]]:
    entities = assessed.entities.values()
    return [
        *([assessed.term_errors[name].words, assessed.term_errors[name].errors] for name in ("drug", "term")),
        [sum(getattr(one, name) for one in entities) for name in ("said", "heard", "found")],
    ]


@pytest.mark.parametrize("line", LINES)
def test_a_pair_is_counted_as_by_hand(line: str) -> None:
    by_hand, assessed = assess_line(line)
    assert count(assessed) == by_hand


def test_the_figures_of_all_sixty_are_those_of_the_counts_by_hand() -> None:
    assert len(LINES) == 60
    figures: dict[str, Any] = describe([assess_line(line)[1] for line in LINES])
    wanted = {
        "drug_wer": 16 / 30,
        "term_wer": 26 / 47,
        "entity_recall": 32 / 51,
        "entity_precision": 32 / 48,
    }
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted)
    assert (figures["drug_words"], figures["term_words"]) == (30, 47)
    for name in wanted:
        assert figures[f"{name}_low"] < figures[name] < figures[f"{name}_high"]


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("blood pressure 120/80 mmHg", [Entity("measurement", "120/80", "mmhg")]),
        ("blood pressure 120/80 and stable", [Entity("measurement", "120/80", "mmhg")]),
        ("losartan 100/25 mg", [Entity("dose", "100/25", "mg")]),
        ("creatinine 4.1 mg/dL", [Entity("measurement", "4.1", "mg/dl")]),
        ("4.3 cm x 2.0 cm", [Entity("measurement", "4.3x2", "cm")]),
        ("1,000 mL", [Entity("measurement", "1000", "ml")]),
        ("on 9 March 2024", [Entity("date", "2024-03-09")]),
        ("on 2024-03-09 and in march 2024", [Entity("date", "2024-03-09"), Entity("date", "2024-03")]),
        ("13/40/2024, C9, L4/5", [Entity("level", "L4-L5")]),
        ("room 25 mgb, 2 weeks", []),
        ("1/2 tablet", [Entity("dose", "1/2", "tablet")]),  # not two of them
        ("5/325 mg", [Entity("dose", "5/325", "mg")]),
        ("she may 10 mg at night, seen May 10", [Entity("dose", "10", "mg"), Entity("date", "-05-10")]),
    ],
)
def test_an_entity_has_one_spelling(text: str, entities: list[Entity]) -> None:
    assert find_entities(text) == entities
