"""The account of a recording's time: what it announced, what was decoded, and what happened to the rest.

Every reader closes the account. ``lost_s`` are the seconds that the recording had and no sample was decoded for; ``repairs``
says in words of a closed vocabulary (``records.REPAIR_WORDS``) what was wrong with the bytes and how they were read all the
same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dictalake.records import CLOSED, Account

__all__ = ["CLOSED", "REPAIRS", "Account", "Repair", "add_accounts"]


class Repair(NamedTuple):
    """``meaning`` says what was found, ``advice`` what a person can do about it."""

    meaning: str
    advice: str


REPAIRS: dict[str, Repair] = {
    "header_open": Repair(
        "the header was never closed: it gives no length, and the sound was read to the end of the object",
        "nothing is lost; the recorder probably lost power, so check that it writes the last seconds",
    ),
    "header_short": Repair(
        "the header announces less sound than there is; all of it was read",
        "nothing is lost; other software may play the announced part alone",
    ),
    "header_repaired": Repair(
        "a field of the header is missing or contradicts the others, and was derived from them",
        "nothing is lost; compare one recording with the original device",
    ),
    "joined": Repair(
        "several recordings follow one another in one object; they were read in order as one",
        "nothing is lost; split the object where each part needs its own row",
    ),
    "hole": Repair(
        "the clock of the container jumps; silence of that length stands for what is missing",
        "listen to the recording there; fetch the original if the source still has it",
    ),
    "damaged": Repair(
        "a stretch of bytes cannot be decoded; silence of its length stands for it",
        "copy the object again from its source: the next run transcribes the new copy",
    ),
    "cut_end": Repair(
        "the object ends before the end that it announces",
        "copy the object again from its source: the next run transcribes the new copy",
    ),
    "leading_bytes": Repair(
        "bytes that are no sound stand before the first frame and were skipped",
        "nothing is lost where they are a tag or a header of a protocol; else compare with the source",
    ),
    "trailing_bytes": Repair(
        "bytes that are no sound stand behind the last frame and were skipped",
        "nothing is lost where they are a tag; else compare with the source",
    ),
    "clock_reset": Repair(
        "the clock of the container jumps back; the sound was kept in the order of the bytes",
        "nothing is lost; times behind the jump count on from before it",
    ),
}


def add_accounts(accounts: Iterable[Account]) -> Account:
    """The account of parts that follow one another."""
    total = CLOSED
    for one in accounts:
        total = total.also(*one.repairs, lost_s=one.lost_s or 0.0, broken_s=one.broken_s)
        if one.lost_s is None:
            total = Account(None, total.repairs, total.broken_s)
    return total
