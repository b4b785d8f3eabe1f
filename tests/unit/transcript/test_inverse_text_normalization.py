"""Spoken numbers to written ones: what a clinician would write, and what has to stay in words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.transcript.formatting import format_text
from dictalake.transcript.inverse_text_normalization import write_numbers
from dictalake.transcript.number_words import read_number, read_year

TABLE = [
    # doses and units
    ("aspirin eighty one milligrams daily", "Aspirin 81 mg daily"),
    ("five hundred milligrams twice a day", "500 mg twice a day"),
    ("one thousand two hundred milligrams", "1,200 mg"),
    ("heparin ten thousand units", "Heparin 10,000 units"),
    ("ten milliliters of contrast", "10 mL of contrast"),
    ("levothyroxine twenty five micrograms", "Levothyroxine 25 mcg"),
    ("one gram of cefazolin", "1 g of cefazolin"),
    ("point five milligrams", "0.5 mg"),
    ("zero point two five milligrams", "0.25 mg"),
    ("two point oh five grams", "2.05 g"),
    ("creatinine one point two milligrams per deciliter", "Creatinine 1.2 mg/dL"),
    ("potassium four point one millimoles per liter", "Potassium 4.1 mmol/L"),
    ("fifteen milligrams per kilogram per day", "15 mg/kg per day"),
    ("one hundred twenty five milliliters per hour", "125 mL per hour"),
    ("take two tablets every six hours", "Take 2 tablets every 6 hours"),
    ("one or two tablets", "1 or 2 tablets"),
    ("one tablet for ten days", "1 tablet for 10 days"),
    ("5 milligrams", "5 mg"),
    # sizes, ranges, decimals, percent
    ("a two point five centimeter mass", "A 2.5 cm mass"),
    ("a five millimeter nodule", "A 5 mm nodule"),
    ("measuring three by four by five millimeters", "Measuring 3 x 4 x 5 mm"),
    ("two point one by three point four centimeters", "2.1 x 3.4 cm"),
    ("measuring point nine by four point two centimeters", "Measuring 0.9 x 4.2 cm"),
    ("one point two by point eight centimeters", "1.2 x 0.8 cm"),
    ("a temperature of one oh two point five", "A temperature of 102.5"),
    ("two to three centimeters", "2-3 cm"),
    ("fifty to sixty nine percent stenosis", "50-69% stenosis"),
    ("follow up in six to twelve months", "Follow up in 6-12 months"),
    ("between five and ten milligrams", "Between 5 and 10 mg"),
    ("increased from five to ten milligrams", "Increased from 5 to 10 mg"),
    ("tapered prednisone forty to twenty milligrams", "Tapered prednisone 40 to 20 mg"),
    ("ejection fraction fifty five percent", "Ejection fraction 55%"),
    ("fewer than five per cent", "Fewer than 5%"),
    ("a p h of seven point three five", "A p h of 7.35"),
    ("five {percent sign} of the cells", "5% of the cells"),
    ("flexion to nine {degree sign}", "Flexion to 9°"),
    # pressures and scores
    ("blood pressure one twenty over eighty", "Blood pressure 120/80"),
    ("blood pressure is one hundred and five over sixty five {period}", "Blood pressure is 105/65."),
    ("one oh five over sixty", "105/60"),
    ("one forty five over ninety two millimeters of mercury", "145/92 mmHg"),
    ("ninety over sixty", "90/60"),
    ("two hundred ten over one ten", "210/110"),
    ("grade two out of six systolic murmur", "Grade 2/6 systolic murmur"),
    ("five over five strength", "5/5 strength"),
    ("pain is seven out of ten", "Pain is 7/10"),
    # levels
    ("l four l five disc bulge", "L4-L5 disc bulge"),
    ("l five s one", "L5-S1"),
    ("c five six disc", "C5-6 disc"),
    ("c seven t one", "C7-T1"),
    ("fracture of t twelve", "Fracture of T12"),
    ("l two through l four", "L2 through L4"),
    ("l three l four l five", "L3 L4 L5"),
    ("normal s one s two", "Normal S1 S2"),
    ("t two weighted images", "T2 weighted images"),
    ("vitamin b twelve level", "Vitamin B12 level"),
    ("hemoglobin a one c of seven point two percent", "Hemoglobin A1c of 7.2%"),
    # dates and ages
    ("january fifth twenty twenty four", "January 5, 2024"),
    ("seen on may second", "Seen on May 2"),
    ("march twenty first two thousand and nineteen", "March 21, 2019"),
    ("december thirty first nineteen ninety nine", "December 31, 1999"),
    ("october twelve twenty twenty three", "October 12, 2023"),
    ("ct of june twenty twenty two", "Ct of June 2022"),
    ("the fifth of january twenty twenty four", "The 5th of January 2024"),
    ("appendectomy in nineteen ninety eight", "Appendectomy in 1998"),
    ("since twenty oh five", "Since 2005"),
    ("a fifty four year old woman", "A 54-year-old woman"),
    ("six month old infant", "6-month-old infant"),
    ("he is seventy-two years old", "He is 72 years old"),
    ("fifty four {hyphen} year {hyphen} old", "54-year-old"),
    # plain
    ("twelve lead electrocardiogram", "12 lead electrocardiogram"),
    ("the eleventh rib", "The 11th rib"),
    ("one hundred and twenty two patients", "122 patients"),
    ("white count twelve thousand five hundred", "White count 12,500"),
    ("heart rate seventy two {period} {new line} respirations sixteen", "Heart rate 72.\nRespirations 16"),
    # what is not sure stays
    ("no one was seen", "No one was seen"),
    ("one of the lesions", "One of the lesions"),
    ("one could see two lesions", "One could see two lesions"),
    ("the patient may return", "The patient may return"),
    ("the patient may second guess this", "The patient may second guess this"),
    ("in march she fell", "In march she fell"),
    ("wait a second {period} second opinion", "Wait a second. Second opinion"),
    ("one day she fell", "One day she fell"),
    ("one foot in front of the other", "One foot in front of the other"),
    ("five to ten lesions", "Five to ten lesions"),
    ("three by four", "Three by four"),
    ("one fifty milligram tablet", "One fifty milligram tablet"),
    ("two five hundred milligram tablets", "Two five hundred milligram tablets"),
    ("room nine one one", "Room nine one one"),
    ("vision twenty twenty", "Vision twenty twenty"),
    ("hepatitis c two weeks ago", "Hepatitis c 2 weeks ago"),
    ("hepatitis c one patient", "Hepatitis c one patient"),
    ("c two to three centimeters", "C 2-3 cm"),
    ("l four five millimeters of slip", "L four five millimeters of slip"),
    ("the patient {apostrophe} s one complaint", "The patient's one complaint"),
    ("infuse one hundred over sixty minutes", "Infuse 100 over 60 minutes"),
    ("at one point five patients left", "At one point five patients left"),
    ("thirty second interval", "Thirty second interval"),
    ("one third of the lumen", "One third of the lumen"),
    ("one tenth of a percent", "One tenth of a percent"),
    ("two and a half centimeters", "Two and a half centimeters"),
    ("in two thousand patients", "In 2000 patients"),
    ("a study of two thousand seven", "A study of 2007"),
    ("at ten oh five PM", "At ten oh five PM"),
    ("pulse one oh two", "Pulse one oh two"),
    ("at that point five patients left", "At that point five patients left"),
    ("a length of point three", "A length of point three"),
    ("fourth through tenth ribs", "Fourth through tenth ribs"),
    ("the third rib", "The third rib"),
    ("hundreds of thousands", "Hundreds of thousands"),
    ("{foo five milligrams}", "{foo five milligrams}"),
    ("[TWENTY MINUTES] ten minutes", "TWENTY MINUTES:\n10 minutes"),
]


@pytest.mark.parametrize(("said", "written"), TABLE)
def test_said_and_written(said: str, written: str) -> None:
    assert format_text(said, numbers=True).text == written


def test_the_table_is_long_enough() -> None:
    assert len(dict(TABLE)) == len(TABLE) >= 90


def test_numbers_are_written_only_when_asked_for() -> None:
    assert format_text("five hundred milligrams").text == "Five hundred milligrams"


@pytest.mark.parametrize("value", [*range(121), 999, 1000, 1001, 2024, 9999, 10_000, 999_999])
def test_every_cardinal_is_read_as_it_is_said(value: int) -> None:
    number = read_number(say(value).split(), 0)
    assert number is not None
    assert (number.value, number.written, number.small) == (value, f"{value:,}", value < 10)


@given(st.integers(1900, 2099))
def test_years_are_read_in_halves(year: int) -> None:
    first, second = divmod(year, 100)
    if second == 0:
        return
    said = f"{say(first)} {'oh ' if second < 10 else ''}{say(second)}"
    number = read_year(said.split(), 0)
    assert number is not None
    assert number.written == str(year)


SAID = "one two five twenty fifty oh hundred thousand point and of by to through over per cent percent milligrams centimeters "
SAID += "days l t c s may january fifth second year old in between lesion murmur out a or feet twenty-one 5 2.5 vitamin"


@given(st.lists(st.sampled_from(SAID.split()), max_size=12), st.booleans())
def test_words_that_say_no_number_stay_in_their_order(said: list[str], measured: bool) -> None:
    written = iter(write_numbers(said, measured=measured))
    plain = [word for word in said if word in ("lesion", "murmur", "in", "between", "vitamin")]
    assert all(word in written for word in plain)


@pytest.mark.parametrize("said", [said for said, _ in TABLE if not re.search(r"[{\[]", said)])
def test_what_is_written_is_not_changed_by_writing_it_again(said: str) -> None:
    once = write_numbers(said.split())
    assert write_numbers(once) == once


def test_a_date_that_may_go_on_is_left_alone() -> None:
    assert write_numbers(["may", "fifth", "20"]) == ["may", "fifth", "20"]
    assert write_numbers(["may", "fifth"]) == ["May", "5"]


@given(st.lists(st.sampled_from(["the", "lesion", "is", "in", "of", "a", "and", "patient", "may", "one", "no"]), max_size=12))
def test_text_without_numbers_stays_as_it_is(said: list[str]) -> None:
    assert write_numbers(said) == said


def say(value: int) -> str:
    """``value`` in words, as Americans say it."""
    small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    names = [*small.split(), "eighteen", "nineteen"]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if value >= 1000:
        return f"{say(value // 1000)} thousand {say(value % 1000) if value % 1000 else ''}".strip()
    if value >= 100:
        return f"{say(value // 100)} hundred {say(value % 100) if value % 100 else ''}".strip()
    if value >= 20:
        return f"{tens[value // 10 - 2]} {names[value % 10] if value % 10 else ''}".strip()
    return names[value]
