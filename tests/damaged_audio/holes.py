"""Damage inside the coded sound, ends that were overwritten, and packets that are gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tests.coded_sound import RATE_HZ
from tests.damaged_audio.encodings import A_S, CODED, ENCODINGS, find_sound, make_file, make_of_first, make_sounds
from tests.damaged_audio.muxing import Track, mux, remux_with_gap
from tests.damaged_audio.truth import DamagedFile


def make_holes() -> Iterator[DamagedFile]:
    """300 bytes of FF, 1,500 zeros, 40 flipped bits, 3,000 bytes taken out, in the middle of the coded sound; and 40 bytes of
    FF so late that they meet the last page of Ogg but one."""
    for name in CODED:
        whole = make_file(name)
        middle, late = len(whole) // 2, round(0.8 * len(whole))
        damaged = {
            "hole_ff": (middle, 300, whole[:middle] + b"\xff" * 300 + whole[middle + 300 :]),
            "hole_zero": (middle, 1_500, whole[:middle] + bytes(1_500) + whole[middle + 1_500 :]),
            "bitrot": (middle, 2_000, _flip_bits(whole, middle, 40)),
            "lost": (middle, 3_000, whole[:middle] + whole[middle + 3_000 :]),
            "hole_late": (late, 40, whole[:late] + b"\xff" * 40 + whole[late + 40 :]),
        }
        per_byte, reach_s = A_S / len(whole), ENCODINGS[name].reach_s
        for kind, (at, length, data) in damaged.items():
            stretch = (at * per_byte - reach_s, (at + length) * per_byte + reach_s)
            # Some codecs have no checksum: changed bytes decode to a noise of the same length, which nobody can notice.
            said = {"damaged", "hole", "cut_end"} if name in _CHECKED or kind == "lost" else set()
            file = make_of_first(f"{kind}-{name}", name, data, unsure=(stretch,), words=said, or_error=("corrupt_audio",))
            if kind == "lost" and name in _BARE:
                file = _without_its_length(file, at * per_byte, length * per_byte)
            yield file


def _without_its_length(file: DamagedFile, at_s: float, taken_s: float) -> DamagedFile:
    """Bare frames have neither clock nor length: of what was taken out nothing can be known but that something is."""
    sound = file.tracks[0]
    left = np.concatenate([sound[: round(at_s * RATE_HZ)], sound[round((at_s + taken_s) * RATE_HZ) :]])
    unsure = (at_s - file.slack_s - 0.4, at_s + file.slack_s + 0.4)
    return replace(file, seconds=A_S - taken_s, tracks=(left,), unsure=(unsure,), slack_s=file.slack_s + 0.3)


_CHECKED = ("flac", "oga", "vorbis", "opus", "speex")
_BARE = ("adts", "amr")


def _flip_bits(data: bytes, at: int, count: int) -> bytes:
    """``count`` bits within 2,000 bytes."""
    flipped, rng = bytearray(data), random.Random(20)
    for _ in range(count):
        flipped[at + rng.randrange(2_000)] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def make_lost_ends() -> Iterator[DamagedFile]:
    """The second half of the coded sound, or all of it, overwritten; the announced length is kept."""
    for name in CODED:
        whole = make_file(name)
        start, end = find_sound(name)
        middle = (start + end) // 2
        noise = random.Random(20).randbytes(end - start)
        damaged = {
            "tail_random": whole[:middle] + noise[: end - middle] + whole[end:],
            "tail_zero": whole[:middle] + bytes(end - middle) + whole[end:],
            "all_random": whole[:start] + noise + whole[end:],
        }
        for kind, data in damaged.items():
            from_s = 0.0 if kind == "all_random" else A_S / 2 - ENCODINGS[name].reach_s
            # Of bare frames nothing is left that would say what it was.
            reasons = ("corrupt_audio", "not_audio") if kind == "all_random" and name in ("mp3", "adts") else ("corrupt_audio",)
            file = make_of_first(f"{kind}-{name}", name, data, unsure=((from_s, A_S),), or_error=reasons)
            # Where nothing in front says how long it was, that can but be guessed from the bytes.
            yield file if ENCODINGS[name].announced else replace(file, slack_s=file.slack_s + 0.5)


# The clock


def make_gaps() -> Iterator[DamagedFile]:
    """Three seconds of packets are gone and the times of the rest are kept."""
    gap = (3.0, 6.0)
    muxed = {
        "m4a": ("mp4", "aac", RATE_HZ, 32_000),
        "webm": ("webm", "libopus", 48_000, 64_000),
        "mka-aac": ("matroska", "aac", RATE_HZ, 32_000),
        "opus": ("ogg", "libopus", 48_000, 64_000),
        "oga": ("ogg", "flac", RATE_HZ, None),
        "wma": ("asf", "wmav2", RATE_HZ, 32_000),
    }
    for name, (muxer, codec, rate_hz, bit_rate) in muxed.items():
        data = mux(muxer, [Track(make_sounds()[0], codec, rate_hz, bit_rate)], gap)
        yield _gap(name, "m4a" if name == "mka-aac" else name, data, gap)
    for name in ("vorbis", "speex"):
        yield _gap(name, name, remux_with_gap(make_file(name), gap), gap)


def _gap(name: str, encoding: str, data: bytes, gap: tuple[float, float]) -> DamagedFile:
    # A codec whose blocks overlap needs one more on each side; the muxers of Ogg write whole pages.
    return make_of_first(f"gap-{name}", encoding, data, unsure=((gap[0] - 0.2, gap[1] + 0.3),), words={"hole"})
