"""Spoken markup to readable text: what goes in, what comes out."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.transcript.formatting import FORMATTER_VERSION, format_text

TABLE = [
    # sentences
    ("", ""),
    ("no acute fracture", "No acute fracture"),
    ("no acute fracture {period}", "No acute fracture."),
    ("lungs are clear {period} heart is normal {period}", "Lungs are clear. Heart is normal."),
    ("lungs are clear {full stop} heart is normal", "Lungs are clear. Heart is normal"),
    ("is there pain {question mark} none", "Is there pain? None"),
    ("stop {exclamation point} call me", "Stop! Call me"),
    ("liver {comma} spleen {comma} and kidneys", "Liver, spleen, and kidneys"),
    ("one lesion {semicolon} no others", "One lesion; no others"),
    ("impression {colon} normal", "Impression: normal"),
    ("clear {period} {period} normal", "Clear. Normal"),
    ("and so on {ellipsis} well", "And so on… well"),
    # capitals
    ("pH is low {period} mRNA was found", "pH is low. mRNA was found"),
    ("CT of the chest {period} MRI later", "CT of the chest. MRI later"),
    ("54 year old {period} 3 lesions", "54 year old. 3 lesions"),
    ("done {period} ßtrange", "Done. ßtrange"),
    ("élan {period} ärzte", "Élan. Ärzte"),
    # joins
    ("120 {slash} 80", "120/80"),
    ("and {forward slash} or", "And/or"),
    ("54 {hyphen} year {hyphen} old", "54-year-old"),
    ("stable {dash} no change", "Stable - no change"),
    ("the patient {apostrophe} s knee", "The patient's knee"),
    ("50 {percent sign} stenosis", "50% stenosis"),
    ("history {ampersand} physical", "History & physical"),
    ("a {backslash} b", "A\\b"),
    # pairs
    ("mass {open parenthesis} new {close parenthesis} seen", "Mass (new) seen"),
    ("mass {open paren} new {close paren} {period} stable", "Mass (new). Stable"),
    ("{left paren} new {right paren} mass", "(New) mass"),
    ("f {open paren} g {open paren} x {close paren} {close paren}", "F (g (x))"),
    ("level {open bracket} L4 {close bracket} {comma} mild", "Level [L4], mild"),
    ("he said {open quote} no pain {close quote} today", 'He said "no pain" today'),
    ("{open quote} no pain {period} {close quote} she left", '"No pain." She left'),
    ("she denied {open quotation mark} fits {unquote} {period}", 'She denied "fits".'),
    # lines
    ("clear {new line} normal", "Clear\nNormal"),
    ("clear {newline} normal", "Clear\nNormal"),
    ("clear {next line} normal", "Clear\nNormal"),
    ("clear {period} {new paragraph} heart is normal {period}", "Clear.\n\nHeart is normal."),
    ("clear {period} {next paragraph} normal", "Clear.\n\nNormal"),
    ("clear {new paragraph} {new paragraph} {new line} normal", "Clear\n\nNormal"),
    ("{new paragraph} clear {new paragraph}", "Clear"),
    ("plan {colon} {new line} {hyphen} rest {new line} {hyphen} ice", "Plan:\n- Rest\n- Ice"),
    # headings
    ("[FINDINGS] no acute fracture {period}", "FINDINGS:\nNo acute fracture."),
    ("[FINDINGS] {colon} no acute fracture {period}", "FINDINGS:\nNo acute fracture."),
    ("[FINDINGS] {colon} {new line} clear", "FINDINGS:\nClear"),
    ("[EXAM TYPE] CT chest {period} [INDICATION] cough {period}", "EXAM TYPE:\nCT chest.\n\nINDICATION:\nCough."),
    ("clear {period} {new paragraph} [IMPRESSION] {colon} normal", "Clear.\n\nIMPRESSION:\nNormal"),
    ("[PLAN]", "PLAN:"),
    ("[PLAN] [FINDINGS] clear", "PLAN:\n\nFINDINGS:\nClear"),
    ("[FINDINGS] lungs {colon} clear", "FINDINGS:\nLungs: clear"),
    ("[HISTORY & PHYSICAL] well", "HISTORY & PHYSICAL:\nWell"),
    # spelled otherwise, malformed, unknown
    ("clear {Period} {New-Paragraph} normal", "Clear.\n\nNormal"),
    ("clear{period}normal", "Clear. Normal"),
    ("clear {scratch that} normal", "Clear {scratch that} normal"),
    ("clear {next} para}graph} normal", "Clear {next} para}graph} normal"),
    ("clear {new normal", "Clear {new normal"),
    ("clear [unclear] normal", "Clear [unclear] normal"),
    ("clear {} [] normal", "Clear {} [] normal"),
    ("clear {period}</s>", "Clear."),
    ("</s>", ""),
    ("  clear \t {period}  ", "Clear."),
    ("{period} clear", ". Clear"),
]


@pytest.mark.parametrize(("said", "written"), TABLE)
def test_said_and_written(said: str, written: str) -> None:
    assert format_text(said).text == written


def test_table_is_long_enough_and_the_formatter_has_a_version() -> None:
    assert len(TABLE) >= 40
    assert FORMATTER_VERSION == "1"


def test_sections_are_headings_with_their_text() -> None:
    said = (
        "dictated by phone {period} [EXAM TYPE] CT chest PE protocol {period} [INDICATION] {colon} 54 {hyphen} year "
        "{hyphen} old female {comma} shortness of breath {period} {new paragraph} "
        "[IMPRESSION] {colon} acute segmental PE {period}"
    )
    formatted = format_text(said)
    assert formatted.sections == (
        ("", "Dictated by phone."),
        ("EXAM TYPE", "CT chest PE protocol."),
        ("INDICATION", "54-year-old female, shortness of breath."),
        ("IMPRESSION", "Acute segmental PE."),
    )
    assert formatted.text == (
        "Dictated by phone.\n\nEXAM TYPE:\nCT chest PE protocol.\n\nINDICATION:\n54-year-old female, shortness of breath.\n\n"
        "IMPRESSION:\nAcute segmental PE."
    )


def test_text_without_headings_has_no_sections() -> None:
    assert format_text("no acute fracture {period}").sections == ()
    assert format_text("[FINDINGS] clear").sections == (("FINDINGS", "Clear"),)


KNOWN = [
    "{period}",
    "{comma}",
    "{new paragraph}",
    "{open quote}",
    "{close paren}",
    "{hyphen}",
    "{slash}",
    "[FINDINGS]",
    "{dash}",
    "</s>",
]
WORDS = st.one_of(st.sampled_from([*KNOWN, "{foo}", "para}graph}", "{new", "]", "[", "pH", "ı"]), st.text(max_size=6))


def letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


@given(st.lists(WORDS, max_size=20).map(" ".join))
def test_no_word_is_ever_lost_and_nothing_raises(said: str) -> None:
    formatted = format_text(said)
    plain = re.sub("|".join(re.escape(mark) for mark in KNOWN if mark != "[FINDINGS]"), " ", said)
    assert letters(formatted.text) == letters(plain)
    assert not re.search(r"\n\n\n|^\n|\n$", formatted.text)


@given(st.lists(st.sampled_from([*KNOWN, "heart", "is", "normal"]), max_size=20).map(" ".join))
def test_written_text_has_no_stray_spaces(said: str) -> None:
    assert not re.search(r"  | \n|\n | [.,)]|\( |^ | $", format_text(said).text)
