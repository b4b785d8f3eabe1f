"""Spoken markup to readable text: what goes in, what comes out."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.transcript.formatting import format_text, formatter_version
from dictalake.transcript.sections import Section, known_headings, name_heading

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
    ("lungs {colon} clear", "Lungs: clear"),
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
    ("plan {colon} {new line} {hyphen} rest {new line} {hyphen} ice", "PLAN:\n- Rest\n- Ice"),
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
    ("clear {new normal", "Clear {new normal"),
    ("clear [unclear] normal", "Clear [unclear] normal"),
    ("clear {} [] normal", "Clear {} [] normal"),
    ("{scratch that} normal", "{scratch that} normal"),
    ("clear {period of rest} normal", "Clear {period of rest} normal"),
    ("clear {new } normal", "Clear {new } normal"),
    ("the menstrual period comma", "The menstrual period comma"),
    ("clear {period}</s>", "Clear."),
    ("</s>", ""),
    ("  clear \t {period}  ", "Clear."),
    ("{period} clear", ". Clear"),
    # more signs
    ("mass {open quote} stable {end quote}", 'Mass "stable"'),
    ("mass {start paren} new {end parenthesis} seen", "Mass (new) seen"),
    ("lesion {number sign} 3", "Lesion #3"),
    ("lesion {pound sign} 3 {period} {hashtag} 4", "Lesion #3. #4"),
    ("2 {plus sign} pitting edema", "2+ pitting edema"),
    ("pulses 2 {plus} {comma} equal", "Pulses 2+, equal"),
    ("Gleason 3 {plus} 4 {equals} 7", "Gleason 3+4 = 7"),
    ("45 {degree sign} flexion", "45° flexion"),
    ("98.6 {degree sign} F", "98.6° F"),
    ("2 tablets {at sign} bedtime", "2 tablets @ bedtime"),
    ("{asterisk} see note", "* See note"),
    ("T score {minus sign} 2.5", "T score -2.5"),
    ("5 {plus minus} 1 cm", "5 ±1 cm"),
    ("stenosis {greater than} 70 {percent}", "Stenosis >70%"),
    ("ejection fraction {less than or equal to} 35 {percent sign}", "Ejection fraction ≤35%"),
    ("a {less than sign} b", "A <b"),
    ("7 {point} 2", "7.2"),
    ("file {underscore} name", "File_name"),
    ("cost {dollar sign} 20", "Cost $20"),
    ("head {and sign} neck", "Head & neck"),
    ("and then {dot dot dot} nothing", "And then… nothing"),
    ("stable {em dash} no change", "Stable - no change"),
    ("5 {times sign} 4 cm", "5 x 4 cm"),
    ("the {cap} cardinal sign", "The Cardinal sign"),
    ("L4 {hyphen} L5 disc", "L4-L5 disc"),
    ("x {hyphen} ray of the chest", "X-ray of the chest"),
    ("yes {comma} {comma} no", "Yes, no"),
    # pairs said the same way on both sides
    ("he said {quote} no pain {quote} today", 'He said "no pain" today'),
    ("a {quotation mark} b {quotation mark} c {quotation mark} d {quotation mark}", 'A "b" c "d"'),
    ("mass {parenthesis} new {parenthesis} seen", "Mass (new) seen"),
    ("mass {parentheses} new {close paren} {parentheses} old {parentheses}", "Mass (new) (old)"),
    ("level {bracket} L4 {bracket} {period}", "Level [L4]."),
    ("{open quote} fine {quote} she said", '"Fine" she said'),
    ("a {single quote} b {single quote} c", "A 'b' c"),
    ("a {quote} b {new paragraph} c {quote} d {quote}", 'A "b\n\nC "d"'),
    # lines and lists
    ("clear {line break} normal", "Clear\nNormal"),
    ("clear {paragraph} normal", "Clear\n\nNormal"),
    ("clear {blank line} normal", "Clear\n\nNormal"),
    ("meds {bullet} aspirin {bullet} insulin", "Meds\n- Aspirin\n- Insulin"),
    ("{bullet point} rest {period} {next bullet} ice {period}", "- Rest.\n- Ice."),
    ("clear {period} {new line} {cap} normal", "Clear.\nNormal"),
    # headings
    ("[findings] clear", "FINDINGS:\nClear"),
    ("[Impression] {colon} clear", "IMPRESSION:\nClear"),
    ("{FINDINGS} clear", "FINDINGS:\nClear"),
    ("[ FINDINGS ] clear", "FINDINGS:\nClear"),
    ("[FINDINGS] {period} clear", "FINDINGS:\nClear"),
    ("[LEFT KNEE] clear", "LEFT KNEE:\nClear"),
    ("[FINDNGS] clear", "FINDNGS:\nClear"),
    (
        "[HISTORY OF PREVIOUS ABDOMINAL AND PELVIC OPERATIONS] none",
        "HISTORY OF PREVIOUS ABDOMINAL AND PELVIC OPERATIONS:\nNone",
    ),
    ("findings {colon} lungs are clear {period}", "FINDINGS:\nLungs are clear."),
    ("clear {period} {new paragraph} impression {colon} normal", "Clear.\n\nIMPRESSION:\nNormal"),
    ("clear {period} {new line} Clinical History {colon} cough", "Clear.\n\nCLINICAL HISTORY:\nCough"),
    ("assessment and plan {colon} rest", "ASSESSMENT AND PLAN:\nRest"),
    ("my impression {colon} normal", "My impression: normal"),
    ("the findings are as follows {colon} clear", "The findings are as follows: clear"),
    ("clear {period} impression {colon} normal", "Clear. Impression: normal"),
    ("findings {comma} clear", "Findings, clear"),
    ("liver {colon} normal {new line} spleen {colon} normal", "Liver: normal\nSpleen: normal"),
    # malformed, with one reading only
    ("clear {next} para}graph} normal", "Clear\n\nNormal"),
    ("clear {perod} normal", "Clear. Normal"),
    ("clear {periods} normal", "Clear. Normal"),
    ("clear {coma} normal", "Clear, normal"),
    ("clear {new paragrah} normal", "Clear\n\nNormal"),
    ("clear {new paragraph normal {period}", "Clear\n\nNormal."),
    ("clear new paragraph} normal", "Clear\n\nNormal"),
    ("clear period} normal", "Clear. Normal"),
    ("clear {period normal", "Clear. Normal"),
    ("clear { period } normal", "Clear. Normal"),
    ("clear {period}} normal", "Clear. Normal"),
    ("clear {{period} normal", "Clear. Normal"),
    ("clear {per}iod} normal", "Clear. Normal"),
    ("clear [period] normal", "Clear. Normal"),
    ("clear {period] normal", "Clear. Normal"),
    ("clear {question} mark} normal", "Clear? Normal"),
    ("clear {open} {quote} normal {close quote}", 'Clear "normal"'),
    ("[FINDINGS clear", "FINDINGS:\nClear"),
    ("FINDINGS] clear", "FINDINGS:\nClear"),
    ("[FIND[INGS] clear", "FINDINGS:\nClear"),
    ("[[IMPRESSION]] clear", "IMPRESSION:\nClear"),
    ("CLINICAL HISTORY] cough", "CLINICAL HISTORY:\nCough"),
    # malformed, with no sure reading
    ("clear {prd} normal", "Clear {prd} normal"),
    ("clear {dsh} normal", "Clear {dsh} normal"),
    ("clear [KNEES normal", "Clear [KNEES normal"),
    ("clear findings] normal", "Clear findings] normal"),
    ("clear } normal", "Clear } normal"),
    ("liver {comma spleen comma} kidneys", "Liver {comma spleen comma} kidneys"),
]


@pytest.mark.parametrize(("said", "written"), TABLE)
def test_said_and_written(said: str, written: str) -> None:
    assert format_text(said).text == written


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 130
    assert len(dict(TABLE)) == len(TABLE)


def test_the_formatter_has_a_version_and_another_one_with_numbers() -> None:
    assert (formatter_version(False), formatter_version(True)) == ("2", "2+numbers")


@pytest.mark.parametrize(
    ("said", "repaired", "unknown"),
    [
        ("[FINDINGS] {colon} clear {period} {new-paragraph} {Period}</s>", 0, 0),
        ("clear {next} para}graph} normal {perod} [FIND[INGS] clear period}", 4, 0),
        ("clear {foo} normal {scratch that} [unclear] {} {new", 0, 5),
        ("{foo} {perod} clear", 1, 1),
        ("findings {colon} clear", 0, 0),
        ("no markup at all", 0, 0),
    ],
)
def test_malformed_and_unknown_markers_are_counted(said: str, repaired: int, unknown: int) -> None:
    formatted = format_text(said)
    assert (formatted.repaired, formatted.unknown) == (repaired, unknown)


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("FINDINGS", "FINDINGS"),
        ("Conclusion", "IMPRESSION"),
        ("IMPRESSION AND RECOMMENDATIONS", "IMPRESSION"),
        ("ASSESSMENT", "ASSESSMENT"),
        ("A&P", "ASSESSMENT AND PLAN"),
        ("ASSESSMENT/PLAN", "ASSESSMENT AND PLAN"),
        ("CLINICAL HISTORY", "INDICATION"),
        ("REASON FOR EXAM", "INDICATION"),
        ("HISTORY", "HISTORY"),
        ("HPI", "HISTORY OF PRESENT ILLNESS"),
        ("PMH", "PAST MEDICAL HISTORY"),
        ("ROS", "REVIEW OF SYSTEMS"),
        ("EXAM TYPE", "EXAM"),
        ("PHYSICAL EXAMINATION", "PHYSICAL EXAM"),
        ("FOLLOW-UP", "FOLLOW UP"),
        ("PRE-OPERATIVE DIAGNOSIS", "PREOPERATIVE DIAGNOSIS"),
        ("FINDNGS", "FINDINGS"),
        ("PLANS", None),
        ("LEFT KNEE", None),
        ("", None),
    ],
)
def test_headings_are_gathered_under_one_name(heading: str, name: str | None) -> None:
    assert name_heading(heading) == name


def test_no_synonym_belongs_to_two_names() -> None:
    headings = known_headings()
    assert len(headings) > 100
    assert {name_heading(heading, exactly=True) for heading in headings} <= set(headings)
    assert all(name_heading(name) == name for name in {name_heading(heading) or "" for heading in headings})


def test_sections_are_headings_with_their_text() -> None:
    said = (
        "dictated by phone {period} [EXAM TYPE] CT chest PE protocol {period} [INDICATION] {colon} 54 {hyphen} year "
        "{hyphen} old female {comma} shortness of breath {period} {new paragraph} "
        "[IMPRESSION] {colon} acute segmental PE {period}"
    )
    formatted = format_text(said)
    assert formatted.sections == (
        Section("", None, "Dictated by phone."),
        Section("EXAM TYPE", "EXAM", "CT chest PE protocol."),
        Section("INDICATION", "INDICATION", "54-year-old female, shortness of breath."),
        Section("IMPRESSION", "IMPRESSION", "Acute segmental PE."),
    )
    assert formatted.text == (
        "Dictated by phone.\n\nEXAM TYPE:\nCT chest PE protocol.\n\nINDICATION:\n54-year-old female, shortness of breath.\n\n"
        "IMPRESSION:\nAcute segmental PE."
    )


def test_text_without_headings_has_no_sections() -> None:
    assert format_text("no acute fracture {period}").sections == ()
    assert format_text("[FINDINGS] clear").sections == (Section("FINDINGS", "FINDINGS", "Clear"),)


def test_a_section_keeps_its_heading_as_it_was_said() -> None:
    said = "conclusion {colon} normal {new paragraph} [LEFT KNEE] {colon} normal"
    assert format_text(said).sections == (Section("conclusion", "IMPRESSION", "Normal"), Section("LEFT KNEE", None, "Normal"))


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
PLAIN = ["heart", "pH", "ı", "5", "12", "mg", "twenty", "period", "new", "paragraph", "findings", "L4", "{foo}", "[unclear]"]


def letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


@given(st.lists(st.sampled_from([*KNOWN, *PLAIN]), max_size=20))
def test_no_word_is_ever_lost_or_moved(said: list[str]) -> None:
    formatted = format_text(" ".join(said))
    kept = [token for token in said if token not in KNOWN or token == "[FINDINGS]"]
    assert letters(formatted.text) == letters("".join(kept))
    assert not re.search(r"\n\n\n|^\n|\n$", formatted.text)
    assert formatted.repaired == 0
    assert formatted.unknown == sum(token in ("{foo}", "[unclear]") for token in said)


ANYTHING = st.one_of(
    st.text(max_size=200),
    st.text("{}[]</s> -newparghiodFINDGS", max_size=80),
    st.lists(st.sampled_from([*KNOWN, *PLAIN, "{", "}", "[", "]", "{new", "para}graph}", "{perod}"]), max_size=30).map(
        " ".join
    ),
)


@given(ANYTHING, st.booleans())
def test_nothing_that_is_said_makes_it_raise(said: str, numbers: bool) -> None:
    formatted = format_text(said, numbers)
    assert formatted.repaired >= 0
    assert not re.search(r"\n\n\n|^\n|\n$", formatted.text)


@given(ANYTHING)
def test_every_letter_written_was_said_in_this_order(said: str) -> None:
    heard = iter(letters(said.replace("{times sign}", "x")))
    assert all(letter in heard for letter in letters(format_text(said).text))


@given(st.text("{}[]/<>abcdehknorstu ", max_size=60).filter(lambda said: not re.search(r"[{}\[\]]", said)))
def test_text_without_markup_keeps_all_its_letters(said: str) -> None:
    assert letters(format_text(said).text) == letters(re.sub(r"</?s>|<pad>|<unk>", " ", said))


@given(st.lists(st.sampled_from(["{period}", "{comma}", "{slash}", "{open paren}", "{close paren}", "heart", "is", "pH"])))
def test_what_is_written_is_not_changed_by_formatting_it_again(said: list[str]) -> None:
    written = format_text(" ".join(said)).text
    assert format_text(written).text == written


@given(st.lists(st.sampled_from([*KNOWN, "heart", "is", "normal"]), max_size=20).map(" ".join))
def test_written_text_has_no_stray_spaces(said: str) -> None:
    assert not re.search(r"  | \n|\n | [.,)]|\( |^ | $", format_text(said).text)
