"""An item says no more than the words of its quote, and of its sentence: names, values, units, sides, negation, certainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.extraction.answer_schema import KINDS, Finding, LabValue, Medication
from dictalake.extraction.evaluation import read_labels
from dictalake.extraction.quotes import Span, find_quote
from dictalake.extraction.support import hold_against, says_unit, says_words


def hold(kind: str, text: str, quote: str, **fields: Any) -> tuple[Any, list[str]]:
    """The item that is left, and why something of it is not."""
    item = KINDS[kind].model_validate({**fields, "quote": quote})
    held = hold_against(item, text, find_quote(quote, text)[0])
    return held.item, list(held.reasons)


@pytest.mark.parametrize(
    ("name", "quote"),
    [
        ("nodule", "Nodules in both lungs"),
        ("Pleural effusion", "small left pleural effusions"),
        ("X-ray", "chest x ray"),
        ("xray", "chest X-ray"),
        ("x ray", "chest xray"),
        ("non-tender abdomen", "the abdomen is nontender"),
        ("emboli", "a saddle embolus"),
        ("metastases", "a metastasis of the liver"),
        ("vitamin B12", "vitamin b twelve was low"),
        ("tear of the meniscus", "meniscus tear"),
        ("follow-up", "Follow up in a week"),
    ],
)
def test_a_name_may_differ_in_case_plural_and_hyphen(name: str, quote: str) -> None:
    assert says_words(name, quote)


@pytest.mark.parametrize(
    ("name", "quote"),
    [
        ("hydrocortisone", "hydrocodone 5 mg"),
        ("hyperthyroidism", "hypothyroidism"),
        ("pulmonary embolism", "pulmonary nodule"),
        ("cancer", "a mass of 3 cm"),
        ("of the", "a mass"),
        ("T3", "T4 is normal"),
        ("!", "!"),
    ],
)
def test_another_name_is_not_said(name: str, quote: str) -> None:
    assert not says_words(name, quote)


@pytest.mark.parametrize(
    ("unit", "number", "quote", "is_said"),
    [
        ("mg", 50.0, "metoprolol fifty milligrams", True),
        ("mg", 50.0, "metoprolol 50mg daily", True),
        ("mcg", 50.0, "metoprolol 50 mg", False),
        ("mg", 10.0, "5 mg once, then 10 mcg", False),
        ("mg", None, "metoprolol", False),
        ("cm", 4.3, "4.3 by 2 cm", True),
        ("mm", 12.0, "twelve millimeter nodule", True),
        ("cm", 12.0, "12 mm nodule", False),
        ("mmHg", None, "120/80 millimeters of mercury", True),
        ("mg/dL", 1.2, "1.2 milligrams per deciliter", True),
        ("mg/dL", 1.2, "1.2 mg/L", False),
        ("%", 55.0, "fifty five percent", True),
        ("mmol/L", 4.2, "Potassium 4.2", False),
        ("bpm", 72.0, "72 beats per minute", True),
        ("mg", 0.5, ".5 mg", True),
        ("mg", 15.0, "15 mg/kg", False),
        ("mg", 15.0, "fifteen milligrams per kilogram", False),
        ("mg/kg", 15.0, "fifteen milligrams per kilogram", True),
        ("mg", 15.0, "15 mg per day", True),
        ("mg", 2.0, "2 5 mg tablets", False),
        ("mg", 5.0, "two 5 mg tablets", True),
        ("mcg", 250.0, "250 slash 50 mcg", True),
        ("mg", 2.0, "2-4 mg", True),
        ("/min", 72.0, "72 beats per minute", True),
        ("/min", 16.0, "sixteen per minute", True),
        ("U", 10.0, "ten units", True),
        ("°F", 98.6, "98.6 degrees Fahrenheit", True),
        ("degrees Fahrenheit", 98.6, "98.6 F", True),
        ("degrees", 98.6, "98.6 degrees", True),
        ("degrees", 98.6, "98.6 °F", True),
        ("°C", 98.6, "98.6 degrees Fahrenheit", False),
    ],
)
def test_a_unit_follows_its_number(unit: str, number: float | None, quote: str, is_said: bool) -> None:
    assert says_unit(unit, number, quote) is is_said


@pytest.mark.parametrize(
    ("text", "quote", "side", "left"),
    [
        ("Small left effusion.", "Small left effusion", "left", "left"),
        ("On the left a small effusion.", "small effusion", "left", "left"),
        ("MRI of the left knee. Small effusion.", "Small effusion", "left", None),
        ("Small left effusion.", "Small left effusion", "right", None),
        ("The left lung is clear, the right has an effusion.", "left lung is clear", "right", None),
        ("Effusions bilaterally.", "Effusions", "bilateral", "bilateral"),
        ("Right and left effusions.", "Right and left effusions", "bilateral", "bilateral"),
        ("Left effusion.", "Left effusion", "bilateral", None),
        ("Effusion. The right lung is clear.", "Effusion", "right", None),
        ("Left lung normal, right has an effusion.", "an effusion", "left", None),
        ("Left lung normal, right has an effusion.", "Left lung normal, right has an effusion", "left", None),
        ("Left lung normal, right has an effusion.", "an effusion", "right", "right"),
        ("Left, a small effusion.", "a small effusion", "left", "left"),
        ("Left and right, effusions.", "effusions", "bilateral", "bilateral"),
    ],
)
def test_a_side_that_neither_quote_nor_sentence_says_is_taken_away(text: str, quote: str, side: str, left: str | None) -> None:
    term = "lung" if "lung is clear" in quote else "effusion"
    item, reasons = hold("findings", text, quote, term=term, side=side)
    assert (item.side, reasons) == (left, [] if left else ["side_not_said"])


@pytest.mark.parametrize(
    ("text", "quote", "term", "negated"),
    [
        ("No pleural effusion.", "No pleural effusion", "effusion", True),
        ("No pleural effusion.", "effusion", "effusion", True),
        ("There is no evidence of acute fracture.", "acute fracture", "fracture", True),
        ("Lungs are free of consolidation.", "consolidation", "consolidation", True),
        ("Pneumothorax is absent.", "Pneumothorax is absent", "pneumothorax", True),
        ("A nodule, no effusion.", "nodule", "nodule", False),
        ("A nodule, no effusion.", "A nodule, no effusion", "nodule", False),
        ("No change in the nodule.", "No change in the nodule", "nodule", False),
        ("Cannot exclude pneumonia.", "Cannot exclude pneumonia", "pneumonia", False),
        ("No effusion but a large nodule.", "No effusion but a large nodule", "nodule", False),
        ("Non-displaced fracture.", "Non-displaced fracture", "fracture", False),
        ("Uncomplicated appendicitis.", "Uncomplicated appendicitis", "appendicitis", False),
        ("The heart is unremarkable.", "unremarkable", "unremarkable", False),
        ("No consolidation, effusion, or fracture.", "fracture", "fracture", True),
        ("No nodule, no change.", "No nodule", "nodule", True),
        ("Pneumonia was ruled out.", "Pneumonia was ruled out", "pneumonia", True),
        ("Lungs are clear of infiltrate.", "infiltrate", "infiltrate", True),
        ("Fever has resolved.", "Fever has resolved", "fever", True),
        ("Non-tender abdomen.", "Non-tender abdomen", "tender abdomen", True),
        ("No effusion and a 4 mm nodule is seen.", "a 4 mm nodule", "nodule", False),
        ("No effusion, 4 mm nodule.", "4 mm nodule", "nodule", False),
        ("No fever, has cough.", "cough", "cough", False),
        ("No effusion is seen, edema in the legs.", "edema in the legs", "edema", False),
        ("The fracture is not displaced.", "The fracture is not displaced", "fracture", False),
        ("A nodule, not previously seen.", "A nodule, not previously seen", "nodule", False),
        ("Cannot walk because of knee pain.", "knee pain", "pain", False),
        ("Pneumonia cannot be ruled out.", "Pneumonia", "pneumonia", False),
        ("Hernia, and the mass is not present.", "Hernia", "hernia", False),
        ("No effusion. Nodule.", "No effusion. Nodule", "nodule", False),
        ("Nodule: no change.", "Nodule", "nodule", False),
    ],
)
def test_the_words_agree_with_what_is_negated_and_not_with_the_opposite(
    text: str, quote: str, term: str, negated: bool
) -> None:
    item, reasons = hold("findings", text, quote, term=term, negated=negated)
    assert (item is not None, reasons) == (True, [])


@pytest.mark.parametrize(
    ("text", "quote", "term", "negated", "reason"),
    [
        ("No pleural effusion.", "No pleural effusion", "effusion", False, "negation_overlooked"),
        ("No mild, moderate or severe stenosis.", "stenosis", "stenosis", False, "negation_overlooked"),
        ("The effusion is no longer seen.", "effusion", "effusion", False, "negation_overlooked"),
        ("CT without contrast shows a hepatic cyst.", "hepatic cyst", "cyst", True, "negation_not_said"),
        ("The left lung is clear, right effusion.", "right effusion", "effusion", True, "negation_not_said"),
        ("Lungs are clear with small right effusion.", "right effusion", "effusion", True, "negation_not_said"),
        ("The effusion has not resolved.", "effusion has not resolved", "effusion", True, "negation_not_said"),
        ("No pleural effusion.", "effusion", "effusion", False, "negation_overlooked"),
        ("Pneumothorax is absent.", "Pneumothorax is absent", "pneumothorax", False, "negation_overlooked"),
        ("She denies chest pain.", "chest pain", "pain", False, "negation_overlooked"),
        ("Large pleural effusion.", "pleural effusion", "effusion", True, "negation_not_said"),
        ("Large effusion. No fracture.", "Large effusion", "effusion", True, "negation_not_said"),
        ("Cannot exclude pneumonia.", "pneumonia", "pneumonia", True, "negation_not_said"),
        ("No change in the nodule.", "the nodule", "nodule", True, "negation_not_said"),
        ("No consolidation, effusion, or fracture.", "effusion", "effusion", False, "negation_overlooked"),
        ("No consolidation, effusion, or fracture.", "fracture", "fracture", False, "negation_overlooked"),
        ("no fever chills nausea or cough or acute abdominal pain", "pain", "pain", False, "negation_overlooked"),
        ("Negative for fever, chills and cough.", "cough", "cough", False, "negation_overlooked"),
        ("Pneumothorax is absent.", "Pneumothorax", "pneumothorax", False, "negation_overlooked"),
        ("Fever and chills are denied.", "Fever", "fever", False, "negation_overlooked"),
        ("Effusion: none.", "Effusion", "effusion", False, "negation_overlooked"),
        ("Pneumonia has been ruled out.", "Pneumonia", "pneumonia", False, "negation_overlooked"),
        ("Nodule not seen.", "Nodule", "nodule", False, "negation_overlooked"),
        ("Non-tender abdomen.", "Non-tender abdomen", "tender abdomen", False, "negation_overlooked"),
        ("Large effusion, no fracture.", "Large effusion", "effusion", True, "negation_not_said"),
        ("A mass without calcification.", "A mass", "mass", True, "negation_not_said"),
        ("Irregular mass.", "Irregular mass", "mass", True, "negation_not_said"),
        ("Pneumonia cannot be excluded.", "Pneumonia", "pneumonia", True, "negation_not_said"),
    ],
)
def test_a_negation_that_the_words_contradict_drops_the_item(
    text: str, quote: str, term: str, negated: bool, reason: str
) -> None:
    assert hold("findings", text, quote, term=term, negated=negated) == (None, [reason])


def test_a_drug_that_was_stopped_is_no_drug_that_is_taken() -> None:
    for text in ("Ibuprofen was stopped.", "She stopped ibuprofen.", "Allergic to ibuprofen."):
        assert hold("medications", text, text.strip("."), drug="ibuprofen")[1] == ["negation_overlooked"]
        assert hold("medications", text, text.strip("."), drug="ibuprofen", negated=True)[1] == []
    assert hold("medications", "Takes ibuprofen.", "ibuprofen", drug="ibuprofen", negated=True)[1] == ["negation_not_said"]


@pytest.mark.parametrize(
    ("text", "drug", "negated"),
    [
        ("Stop lisinopril and start losartan.", "losartan", False),
        ("Stop lisinopril and start losartan.", "lisinopril", True),
        ("Started losartan, stopped lisinopril.", "losartan", False),
        ("Stop aspirin, lisinopril and warfarin.", "warfarin", True),
        ("Switched off warfarin to apixaban.", "apixaban", False),
        ("Allergies: penicillin, sulfa.", "sulfa", True),
        ("Allergic to penicillin.", "penicillin", True),
        ("On aspirin 81 mg, which we hold.", "aspirin", True),
        ("Aspirin, stopped last week.", "aspirin", True),
        ("Aspirin was not stopped.", "aspirin", False),
        ("Did not start aspirin.", "aspirin", True),
        ("Never started warfarin.", "warfarin", True),
        ("Do not use ibuprofen.", "ibuprofen", True),
        ("She has not been prescribed insulin.", "insulin", True),
        ("Aspirin is no longer taken.", "aspirin", True),
        ("Do not stop aspirin and start lisinopril.", "lisinopril", False),
        ("Allopurinol is not started today.", "allopurinol", True),
        ("Tolerates aspirin, no side effects from lisinopril.", "lisinopril", False),
        ("He tolerated aspirin well.", "aspirin", False),
    ],
)
def test_of_several_drugs_of_a_sentence_each_is_stopped_or_taken(text: str, drug: str, negated: bool) -> None:
    place = text.lower().index(drug)
    quote = text[place : place + len(drug)]
    assert hold("medications", text, quote, drug=drug, negated=negated)[1] == []
    assert hold("medications", text, quote, drug=drug, negated=not negated)[0] is None


@pytest.mark.parametrize(
    ("text", "certainty", "is_known"),
    [
        ("Possible pneumonia.", "possible", True),
        ("Findings are suspicious for pneumonia.", "probable", True),
        ("Possible pneumonia.", "certain", False),
        ("Pneumonia in the lower lobe.", "possible", False),
        ("Pneumonia in the lower lobe.", "certain", True),
    ],
)
def test_a_certainty_that_the_words_do_not_say_is_unknown(text: str, certainty: str, is_known: bool) -> None:
    item = Finding.model_validate({"term": "pneumonia", "quote": "pneumonia", "certainty": certainty})
    held = hold_against(item, text, find_quote("pneumonia", text)[0])
    assert (held.is_certainty_known, list(held.reasons)) == (is_known, [] if is_known else ["certainty_not_said"])


def test_every_label_of_the_dictations_is_supported_and_its_opposite_is_not() -> None:
    kept, turned = [], []
    for dictation in read_labels(LABELS):
        for item in (one for items in dictation.items.values() for one in items):
            spans = find_quote(item.quote, dictation.text)
            kept += [item for span in spans[:1] if hold_against(item, dictation.text, span).item is None]
            if isinstance(item, Finding | Medication) and "resolved" not in item.quote:
                opposite = item.model_copy(update={"negated": not item.negated})
                turned += [item for span in spans[:1] if hold_against(opposite, dictation.text, span).item is not None]
    assert (kept, turned) == ([], [])


def test_a_value_in_words_stands_in_the_quote() -> None:
    text = "Strep test negative."
    assert hold("lab_values", text, text, test="strep", value="negative")[1] == []
    assert hold("lab_values", text, text, test="strep", value="positive") == (None, ["value_not_said"])


LABELS = Path(__file__).parents[2] / "fixtures/extraction/dictations.jsonl"
WORDS = st.text("abcdefghijklmnopqrstuvwxyz-' .,;?0123456789", max_size=40)


SIDES = st.sampled_from(["left", "right", "bilateral", "midline", None])


@given(st.text(max_size=60), WORDS, WORDS, WORDS, SIDES, st.booleans())
def test_no_hostile_answer_breaks_the_check_or_gains_a_side(
    text: str, name: str, unit: str, more: str, side: Any, negated: bool
) -> None:
    quote = f"{more} {name}".strip() or "x"
    text = f"{text} {quote} {more}"
    start = text.index(quote)
    span = Span(start, start + len(quote))
    for item in (
        Finding.model_construct(quote=quote, term=name, side=side, negated=negated, certainty="certain", unit=unit or None),
        Medication.model_construct(quote=quote, drug=name, dose=5.0, unit=unit or None, negated=negated),
        LabValue.model_construct(quote=quote, test=name, value=more or "5", unit=unit or None),
    ):
        held = hold_against(item, text, span)
        assert (held.item is None) <= bool(held.reasons)
        if isinstance(held.item, Finding) and held.item.side in ("left", "right"):
            assert held.item.side in text.casefold()
