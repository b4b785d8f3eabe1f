"""Hand-written questions to the texts of the demo archive. None shares a content word with the sentence that it looks for.

``FIRST`` were there while search by meaning was built. ``FRESH`` were written before the search was measured over many
transcripts, and nothing was chosen by them. ``TRIED`` are two more of the first, which were not found; the second has a
word of its sentence.

A question has one right answer only where no other transcript states the same fact. ``fact`` says what counts as stating it:
groups of beginnings of words, of each of which one must be there. It is written from the sentence and from what doctors call
the same thing, wider rather than narrower, and before any ranking was seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    words: str
    recording: str
    fact: tuple[str, ...]

    def is_stated_by(self, text: str) -> bool:
        """Whether each group has a word in the text of a transcript."""
        return all(re.search(rf"\b(?:{group})", text, re.IGNORECASE) for group in self.fact)


def find_stated(questions: Iterable[Question], text: str) -> list[Question]:
    return [question for question in questions if question.is_stated_by(text)]


FIRST = (
    Question(
        "ruptured knee cartilage",
        "radiology/mri-knee-0431.ogg",
        ("menisc|cartilage|chondral", "tear|torn|ruptur|root|defect|flap|cleft"),
    ),
    Question(
        "nasogastric catheter misplaced into the airway",
        "radiology/chest-0420.mp3",
        ("feeding tube|nasogastric|NG|orogastric|enteric|gastric tube|dobhoff", "bronch|trache|airway|lung|main ?stem"),
    ),
    Question(
        "implanted cardioverter discharged because of tachycardia",
        "cardiology/device-check.wav",
        ("defibrillat|ICD|cardiovert|device", "shock|discharg|fired|deliver|therap|pac"),
    ),
    Question(
        "insect bite with allergic reaction",
        "medicine/emergency-0710.dcm",
        (
            "bees?\\b|wasp|hornet|insect|sting|stung|bite|bitten|bug|tick|yellow jacket|fire ant|mosquito",
            "swell|swollen|allerg|anaphyla|hive|urticaria|rash|react|itch|epinephrine|trouble breathing",
        ),
    ),
    Question(
        "asthma attack treated with steroids and noninvasive ventilation",
        "medicine/discharge-0609.mp3",
        (
            "asthma|wheez|bronchospas|reactive airway|COPD|obstructive|respiratory failure",
            "bipap|cpap|noninvasive|prednisone|steroid|methylprednisolone|solu|dexamethasone|taper",
        ),
    ),
    Question(
        "recovering kidney injury",
        "medicine/consult-nephrology.wav",
        (
            "creatinine|kidney|renal|urine output|AKI|dialysis|tubular|nephro",
            "recover|improv|resolv|drift|down|better|return|baseline|normaliz|trend|peak|fell|fallen|came off",
        ),
    ),
    Question(
        "belly incision is healing well",
        "surgery/wound-clinic.flac",
        (
            "wound|incision|port site|laparotomy|scar|suture line|staple",
            "heal|granulat|clos|clean|dry|intact|approximat|well|good|nice",
        ),
    ),
    Question(
        "epilepsy provoked by tiredness",
        "neurology/seizure-clinic.ogg",
        ("seiz|epilep|convuls|spell|aura|ictal|lacosamide", "sleep|tired|fatigue|exhaust|insomnia"),
    ),
    Question(
        "hyperthyroidism",
        "medicine/clinic-thyroid.wav",
        (
            "graves|hyperthyroid|thyrotox|methimazole|propylthiouracil|PTU|toxic (?:adenoma|nodul|goiter|multi)|goiter|"
            "overactive thyroid|thyroid (?:eye|storm)|suppressed TSH|TSH (?:is |was )?suppressed|radioactive iodine|"
            "radioiodine",
        ),
    ),
    Question(
        "surgery for intestinal volvulus",
        "surgery/op-note-0502.wav",
        ("volvulus|twist|torsion|malrotat|detors", "volvulus|bowel|intestin|sigmoid|cecal|cecum|colon|midgut|loop|mesenter"),
    ),
)

TRIED = (
    Question(
        "biliary calculi", "radiology/gallbladder.opus", ("gall ?stone|stone|calcul|sludge|choleli|choledocho|gallbladder",)
    ),
    Question(
        "stable calcium deposit between the two halves of the brain",
        "radiology/ct-head-0415.flac",
        ("calci", "falx|falcine|interhemispher|midline|brain|intracranial"),
    ),
)

FRESH = (
    Question(
        "elderly lady getting thinner and hacking persistently",
        "radiology/ct-chest-staging.mp3",
        ("cough|hack", "weight|thin|cachex|wasting|pounds"),
    ),
    Question(
        "heart valve reconstruction is holding up",
        "cardiology/echo-0311.wav",
        (
            "repair|ring|annuloplast|clip|prosthe|bioprosthe|mechanical|replac|TAVR",
            "mitral|valv|aortic|tricuspid",
            "durable|hold|well|good|intact|stable|normal|seated|function|no|trace|trivial",
        ),
    ),
    Question(
        "beta blocker lowered and antiplatelet to be discontinued",
        "cardiology/clinic-0402.dcm",
        (
            "metoprolol|atenolol|carvedilol|bisoprolol|propranolol|beta block|labetalol|nadolol|nebivolol",
            "clopidogrel|ticagrelor|prasugrel|aspirin|antiplatelet",
        ),
    ),
    Question(
        "hypokalemia was corrected",
        "medicine/ward-round.wav",
        ("potassium|hypokal", "replac|replet|correct|supplement|normal|value|given|repeat|recheck|improv|came up|is now|back"),
    ),
    Question(
        "biologic drip was tolerated well",
        "medicine/infusion-note",
        (
            "infus|biologic|\\w+mab\\b|abatacept|etanercept",
            "tolerat|no|without|uneventful|well|fine|smooth",
        ),
    ),
    Question(
        "excised tissue marked with sutures for the laboratory",
        "surgery/op-note-0503.dcm",
        ("specimen|tissue|lump|excis|margin|ellipse", "stitch|sutur|orient|tag|mark|ink|clip"),
    ),
    Question(
        "neoadjuvant treatment for a malignancy of the lower bowel",
        "surgery/tumor-board.wav",
        ("rect|colon|sigmoid|anal|bowel|colorect", "chemo|neoadjuv|radiat|FOLFOX|capecitabine"),
    ),
    Question(
        "toddler reaches developmental milestones",
        "pediatrics/well-child.wav",
        (
            "toddler|infant|child|baby|boy|girl|month old|(?:one|two|three|four) year old|kid|milestone|babbl|word sentence|"
            "words together|crawl",
            "milestone|word|run|climb|walk|talk|sentence|develop|babbl|crawl|language|stack|sits|kick",
        ),
    ),
    Question(
        "broken upper arm needs no operation",
        "orthopedics/shoulder.flac",
        (
            "humer|upper arm|shoulder|arm\\b|surgical neck|proximal",
            "fractur|broke|break",
            "sling|nonoperativ|non operativ|conservativ|no surg|without surg|immobil|splint|cast|brace|closed|good|nondisplac|"
            "aligned|heal",
        ),
    ),
    Question(
        "chemotherapy paused because of hand-foot syndrome",
        "oncology/toxicity.mp3",
        (
            "hand foot|palm|sole|plantar|erythrodys|capecitabine|xeloda|hands",
            "hold|held|paus|delay|stop|reduc|interrupt|grade|toxic|skip",
        ),
    ),
)
