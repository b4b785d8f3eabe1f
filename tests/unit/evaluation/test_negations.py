"""Negations by prefix and by "free of"."""

from __future__ import annotations

import pytest

from dictalake.evaluation.clinical import count_clinical


@pytest.mark.parametrize(
    ("reference", "hypothesis", "negations", "errors"),
    [
        ("nondisplaced fracture", "displaced fracture", 1, 1),
        ("displaced fracture", "nondisplaced fracture", 0, 1),
        ("irregular rhythm", "regular rhythm", 1, 1),
        ("an unremarkable gallbladder", "a remarkable gallbladder", 1, 1),
        ("an unremarkable gallbladder", "a gallbladder", 1, 1),
        ("afebrile overnight", "febrile overnight", 1, 1),
        ("dissimilar lesions", "similar lesions", 1, 1),  # not in the list of words: by its prefix alone
        ("nontender abdomen", "non tender abdomen", 1, 0),
        ("non tender abdomen", "nontender abdomen", 1, 0),
        ("nontender abdomen", "tender abdomen", 1, 1),
        ("non tender abdomen", "tender abdomen", 1, 1),
        ("free of disease", "three of disease", 1, 1),
        ("free from pain", "pain", 1, 1),
        ("free fluid", "fluid", 0, 0),
        ("free of disease", "free of disease", 1, 0),
        ("another lesion", "other lesion", 0, 0),
        ("increased uptake", "creased uptake", 0, 0),
        ("a part", "apart", 0, 0),
    ],
)
def test_prefixes_and_free_of_negate(reference: str, hypothesis: str, negations: int, errors: int) -> None:
    counted = count_clinical(reference, hypothesis)
    assert (counted.negations, counted.negation_errors) == (negations, errors)
