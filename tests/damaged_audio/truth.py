"""A file with the truth about its sound, and the judge of what was read of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from dictalake.records import DecodedAudio
from tests.coded_sound import RATE_HZ, place

TOLERANCE_S = 0.1


@dataclass(frozen=True)
class DamagedFile:
    """``seconds`` is what the recording had, ``tracks`` what lies where in them: ``(samples,)`` at 16 kHz for each channel.

    ``unsure`` are intervals in seconds in which the sound need not be there: the damage and what depends on it. ``words`` are
    the repairs of which one must be named; empty where nothing need be said. ``or_error``: instead of reading it, a reader may
    fail with one of these reasons. ``slack_s`` is how far times may be off.
    """

    name: str
    data: bytes
    seconds: float
    tracks: tuple[np.ndarray, ...]
    unsure: tuple[tuple[float, float], ...] = ()
    words: frozenset[str] = frozenset()
    or_error: tuple[str, ...] = ()
    slack_s: float = TOLERANCE_S


def check_account(file: DamagedFile, audio: DecodedAudio) -> None:
    """Nothing is short, repeated or moved without a word, and the account's seconds are those of the truth."""
    rate_hz, account = audio.format.sample_rate_hz, audio.account
    duration_s = audio.samples.shape[1] / rate_hz
    lost_s = account.lost_s or 0.0
    said = f"{file.name}: {duration_s:.2f} s of {file.seconds:.2f} s, lost {account.lost_s}, {account.repairs}"
    assert duration_s <= file.seconds + file.slack_s, f"{said}: longer than the recording was"
    assert account.lost_s is None or duration_s + lost_s >= file.seconds - file.slack_s, (
        f"{said}: seconds are not accounted for"
    )
    assert not file.words or file.words & set(account.repairs), f"{said}: none of {sorted(file.words)} is named"
    assert len(audio.samples) >= len(file.tracks), f"{said}: {len(audio.samples)} of {len(file.tracks)} channels"
    at_16_khz = audio.samples if rate_hz == RATE_HZ else soxr.resample(audio.samples.T, rate_hz, RATE_HZ).T
    for channel, known in zip(at_16_khz, file.tracks, strict=False):
        placed = place(channel, known, file.unsure, within_s=file.slack_s + 0.05)
        unsure_s = sum(end - start for start, end in file.unsure)
        said_of_it = f"{said}: {placed}"
        assert placed.repeated_s <= 0.1, f"{said_of_it}: sound is there twice"
        assert placed.moved_s <= 0.1, f"{said_of_it}: sound is at another time than it was"
        assert placed.missing_s <= lost_s + 0.15, f"{said_of_it}: more is missing than is said"
        assert lost_s <= unsure_s + placed.missing_s + file.slack_s, f"{said_of_it}: more is said to be lost than is"
