"""An object as the recordings in it that follow one another, each with bytes that one decoder reads to their end."""

from __future__ import annotations

from dataclasses import dataclass

from dictalake.records import CLOSED, Account


@dataclass(frozen=True)
class Part:
    """``data`` is a whole file of its container with a true header; ``account`` is what it took to get there.

    ``seconds`` is the length that must come out, None where only decoding can tell. ``is_whole`` is False where the bytes are
    known to be damaged: then only a reader with a clock may read them. ``unread`` counts bytes at the end that are of no use,
    ``is_cut`` says that they are too few to be more than the start of something; ``starts_late`` that sound is missing before
    the first frame. ``container`` is what ``data`` is where it is another than the object's: MP3 inside WAV. Parts of one
    ``link`` are stretches of one file, between which sound is missing: each ends at ``ends_at_s`` by the file's clock.
    """

    data: bytes
    account: Account = CLOSED
    seconds: float | None = None
    is_whole: bool = True
    unread: int = 0
    is_cut: bool = False
    starts_late: bool = False
    container: str | None = None
    ends_at_s: float | None = None
    link: int | None = None
