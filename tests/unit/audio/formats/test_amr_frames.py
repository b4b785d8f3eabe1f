"""AMR frame by frame: pauses, frames that say that they are bad, and damage in both."""

from __future__ import annotations

import random

import pytest

from dictalake.audio.formats.amr_frames import split_amr
from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED

MAGIC = b"#!AMR\n"
BYTES = random.Random(20)
SPEECH = [b"\x3c" + BYTES.randbytes(31) for _ in range(250)]  # 12.2 kbit/s
SID, EMPTY = b"\x44" + bytes(5), b"\x7c"
PAUSE = ([SID] + [EMPTY] * 7) * 187  # as 3GPP TS 26.093 says: the noise is described in each eighth frame
IN_PAUSE = len(MAGIC) + 32 * len(SPEECH) + 13 * 20


def read(frames: list[bytes]) -> Part:
    return split_amr(MAGIC + b"".join(frames))[0]


def count_frames(part: Part) -> int:
    at, frames = len(MAGIC), 0
    while at < len(part.data):
        at += {0x3C: 32, 0x38: 32, 0x44: 6, 0x7C: 1}[part.data[at]]
        frames += 1
    return frames


def test_speech_and_pauses_are_left_as_they_are() -> None:
    data = MAGIC + b"".join(SPEECH + PAUSE + SPEECH)
    assert split_amr(data) == [Part(data)]


@pytest.mark.parametrize("offset", [0, *range(6, 14)], ids=lambda offset: f"byte {offset}")
def test_a_damaged_byte_of_a_pause_costs_one_frame(offset: int) -> None:
    data = bytearray(MAGIC + b"".join(SPEECH + PAUSE + SPEECH))
    data[IN_PAUSE + offset] = 0xFF
    (part,) = split_amr(bytes(data))
    assert part.account == CLOSED.also("damaged", lost_s=0.02, broken_s=0.02)
    assert count_frames(part) == 2 * len(SPEECH) + len(PAUSE)


def test_damage_in_a_pause_is_counted_in_frames_of_the_pause() -> None:
    data = bytearray(MAGIC + b"".join(SPEECH + PAUSE + SPEECH))
    data[IN_PAUSE : IN_PAUSE + 130] = b"\xff" * 130  # 80 frames
    (part,) = split_amr(bytes(data))
    assert part.account.lost_s == pytest.approx(1.6, abs=0.05)


def test_damage_in_speech_is_counted_in_frames_of_speech() -> None:
    damaged = [*SPEECH[:100], b"\xff" * 320, *SPEECH[110:]]
    assert read(damaged).account == CLOSED.also("damaged", lost_s=0.2, broken_s=0.2)


def test_a_damaged_header_between_speech_and_a_pause_costs_one_frame() -> None:
    part = read([*SPEECH[:-1], b"\xff" + SPEECH[-1][1:], *PAUSE])
    assert part.account == CLOSED.also("damaged", lost_s=0.02, broken_s=0.02)


def test_lone_frames_of_bad_quality_are_read() -> None:
    frames = [b"\x38" + frame[1:] if number % 10 == 0 else frame for number, frame in enumerate(SPEECH)]
    assert read(frames).account == CLOSED
    assert count_frames(read(frames)) == len(SPEECH)


def test_a_writer_that_never_sets_the_quality_is_read() -> None:
    assert read([b"\x38" + frame[1:] for frame in SPEECH]).account == CLOSED


@pytest.mark.parametrize("zeros", [13, 640, 1300], ids=str)
def test_zeros_among_frames_of_another_type_are_damage(zeros: int) -> None:
    part = read([*SPEECH[:100], bytes(zeros), *SPEECH[100:]])
    assert part.account.repairs == ("damaged",)
    assert part.account.lost_s == pytest.approx(0.02 * max(round(zeros / 32), 1))


def test_a_frame_of_bad_quality_and_of_a_type_of_its_own_is_damage() -> None:
    part = read([*SPEECH[:100], b"\x10" + bytes(range(1, 16)), *SPEECH[100:]])
    assert part.account.repairs == ("damaged",)


def test_a_last_frame_that_is_cut_is_told() -> None:
    assert read([*SPEECH, SPEECH[0][:20]]).account == CLOSED.also("cut_end", lost_s=0.02)


def test_wide_band_pauses_survive_damage() -> None:
    speech = [b"\x44" + BYTES.randbytes(60) for _ in range(50)]
    pause = ([b"\x4c" + bytes(5)] + [EMPTY] * 7) * 20
    data = bytearray(b"#!AMR-WB\n" + b"".join(speech + pause + speech))
    data[9 + 61 * 50 + 13] = 0xFF
    (part,) = split_amr(bytes(data))
    assert part.account == CLOSED.also("damaged", lost_s=0.02, broken_s=0.02)
