"""Headings of clinical documents and their common names: ``CONCLUSION`` is an ``IMPRESSION``.

Radiology has the ACR's parts of a report. A radiologist's *clinical history* is the reason for the examination, hence an
``INDICATION``. A bare *history* may be anything in the past and stays ``HISTORY``. An internist's *assessment* is not a
radiologist's *impression* and keeps its own name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

_MIN_MISSPELT = 7  # letters; shorter headings are too similar to each other


@dataclass(frozen=True)
class Section:
    """``heading`` as it was spoken, "" before the first; ``name`` by :func:`name_heading`; ``text`` as people read it."""

    heading: str
    name: str | None
    text: str


# Name → its other spoken forms. Lower case, "and" for "&", no punctuation.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    # radiology
    "EXAM": ("exam type", "examination", "exam name", "type of exam", "study", "study type", "exam performed"),
    "INDICATION": (
        "indications",
        "clinical indication",
        "clinical indications",
        "clinical history",
        "clinical information",
        "clinical data",
        "reason for exam",
        "reason for examination",
        "reason for study",
        "reason for the exam",
        "indication for exam",
        "indication for procedure",
        "indications for procedure",
        "history and indication",
    ),
    "TECHNIQUE": ("techniques", "protocol", "scan technique", "imaging technique"),
    "CONTRAST": ("contrast material", "contrast agent"),
    "COMPARISON": ("comparisons", "comparison study", "comparison studies", "comparison exam", "prior studies", "priors"),
    "FINDINGS": ("finding", "report", "imaging findings"),
    "IMPRESSION": (
        "impressions",
        "conclusion",
        "conclusions",
        "interpretation",
        "opinion",
        "final impression",
        "impression and recommendation",
        "impression and recommendations",
    ),
    "RECOMMENDATION": ("recommendations",),
    "ADDENDUM": ("addenda",),
    # notes
    "CHIEF COMPLAINT": ("presenting complaint", "reason for visit", "cc"),
    "REASON FOR CONSULTATION": ("reason for consult", "reason for referral"),
    "HISTORY": ("patient history",),
    "HISTORY OF PRESENT ILLNESS": ("hpi", "history of presenting illness", "present illness", "interval history"),
    "PAST MEDICAL HISTORY": ("pmh", "pmhx", "medical history", "past history"),
    "PAST SURGICAL HISTORY": ("psh", "surgical history"),
    "FAMILY HISTORY": ("fh", "fhx"),
    "SOCIAL HISTORY": ("sh", "shx"),
    "MEDICATIONS": ("medication", "current medications", "home medications", "meds", "medication list"),
    "DISCHARGE MEDICATIONS": ("medications at discharge", "medications on discharge"),
    "ALLERGIES": ("allergy", "drug allergies", "medication allergies"),
    "REVIEW OF SYSTEMS": ("ros", "systems review"),
    "VITAL SIGNS": ("vitals",),
    "PHYSICAL EXAM": ("physical examination", "pe", "exam findings", "clinical examination"),
    "LABORATORY DATA": ("labs", "laboratory", "laboratory results", "lab results", "laboratory values"),
    "IMAGING": ("imaging studies", "radiology", "imaging results"),
    "SUBJECTIVE": (),
    "OBJECTIVE": (),
    "ASSESSMENT": ("clinical assessment",),
    "ASSESSMENT AND PLAN": ("a and p", "assessment plan", "impression and plan", "plan and assessment"),
    "PLAN": ("treatment plan", "plan of care"),
    "FOLLOW UP": ("followup", "follow up plan"),
    "HOSPITAL COURSE": ("course", "brief hospital course", "clinical course"),
    "DISPOSITION": ("discharge disposition",),
    # diagnoses and procedures
    "DIAGNOSIS": ("diagnoses", "final diagnosis", "final diagnoses", "clinical diagnosis"),
    "ADMITTING DIAGNOSIS": ("admission diagnosis", "admission diagnoses"),
    "DISCHARGE DIAGNOSIS": ("discharge diagnoses",),
    "PREOPERATIVE DIAGNOSIS": ("pre operative diagnosis", "preoperative diagnoses", "preop diagnosis"),
    "POSTOPERATIVE DIAGNOSIS": ("post operative diagnosis", "postoperative diagnoses", "postop diagnosis"),
    "PROCEDURE": ("procedures", "procedure performed", "procedures performed", "operation", "operation performed"),
    "PROCEDURE DETAILS": ("description of procedure", "procedure in detail", "details of procedure", "operative note"),
    "ANESTHESIA": ("anaesthesia", "sedation"),
    "COMPLICATIONS": ("complication",),
    "ESTIMATED BLOOD LOSS": ("ebl", "blood loss"),
    "SPECIMENS": ("specimen", "specimens removed"),
    "GROSS DESCRIPTION": ("gross",),
    "MICROSCOPIC DESCRIPTION": ("microscopic", "microscopy"),
}


@cache
def _names() -> dict[str, str]:
    table = {name.lower(): name for name in _SYNONYMS}
    for name, synonyms in _SYNONYMS.items():
        table |= dict.fromkeys(synonyms, name)
    return table


def known_headings() -> tuple[str, ...]:
    """Every heading of the table, upper case."""
    return tuple(heading.upper() for heading in _names())


def name_heading(heading: str, *, exactly: bool = False) -> str | None:
    """The common name of ``heading``, whatever its case and punctuation; None if the table has none.

    >>> name_heading("Reason for exam"), name_heading("FINDNGS"), name_heading("KNEES")
    ('INDICATION', 'FINDINGS', None)

    A heading of seven letters or more may have one letter too many, too few or wrong, unless ``exactly``.
    """
    said = " ".join(re.sub(r"[^a-z0-9]+", " ", heading.lower().replace("&", " and ")).split())
    if exactly or said in _names() or len(said) < _MIN_MISSPELT:
        return _names().get(said)
    near = process.extract(said, _names().keys(), scorer=Levenshtein.distance, score_cutoff=1, limit=None)
    names = {_names()[match] for match, _, _ in near}
    return names.pop() if len(names) == 1 else None
