"""Mutants of which it is known what they must still hold, and a judge of what was read of them. ``tests/fuzz.py`` runs them.

The truth stays known for these damages alone, which are all that is done here:

- bytes of the coded sound are overwritten, in formats that are coded: in PCM other bytes are other sound, and rightly so;
- bytes of the coded sound are taken out (in PCM whole samples: the rest is then earlier than it was, and nothing shows where);
- the file ends early;
- bytes that are no frames are put in at a frame's edge, in coded formats with a clock or an index: in a stream of bare frames
  they might as well stand for frames that are lost;
- a field that announces the length has another value, so that it contradicts the file.

All sound but that of the packets which a damage touched, and of those that depend on them, must be where it was, or be said to
be lost. A damaged packet may decode to noise of its length where the format has no checksum: its bytes do not show it.
"""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import av
import numpy as np

from tests.coded_sound import RATE_HZ, Placement, make_coded_sound, place
from tests.damaged_audio.encodings import B_S, ENCODINGS, find_sound, make_file
from tests.damaged_audio.headers import size_fields, with_flac_total

SECONDS = B_S
SAID_S = 0.15  # what may be missing or off without a word, beside a codec's delay
_PCM_BYTES = {"wav-mulaw": 1}
_NO_LENGTH = ("adts", "amr")  # bare frames
_PAGED = ("oga", "vorbis", "opus", "speex")
_CHECKED = ("flac", *_PAGED)  # a checksum shows what was overwritten
_INDEXED = ("m4a", "m4a-front")  # one index says at which byte each packet is: a byte less, and all behind it are noise
_EXTREMES = (0, 4, 8, 24, 36, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)
FAULTS = ("silent loss", "too long", "moved silently", "repeated", "lost too much", "lost too little")


@dataclass(frozen=True)
class Packet:
    """Bytes ``[start, end)`` that hold the sound of ``[start_s, end_s)``; all packets of a page or a block of ASF are one."""

    start: int
    end: int
    start_s: float
    end_s: float


@dataclass
class Mutant:
    """``unsure`` are the intervals of the sound that need not be there any more. ``announced``: a field was changed, so that
    the file may now claim any length. ``shifted``: samples of PCM were taken out, and what is behind them is earlier.
    ``shortened``: bytes are gone. ``overwritten_s`` are the seconds of the packets that were overwritten."""

    encoding: str
    data: bytes
    damages: list[str] = field(default_factory=list)
    unsure: list[tuple[float, float]] = field(default_factory=list)
    announced: bool = False
    shifted: bool = False
    shortened: bool = False
    overwritten_s: float = 0.0


@functools.cache
def _known() -> np.ndarray:
    return make_coded_sound(SECONDS, 2)


@functools.cache
def read_packets(encoding: str) -> tuple[Packet, ...]:
    """Where in the file of the sound which second of it is."""
    data = make_file(encoding, second=True)
    start, end = find_sound(encoding, second=True)
    if not ENCODINGS[encoding].is_coded:
        size, seconds = _PCM_BYTES.get(encoding, 2), SECONDS
        step = 640 * size
        return tuple(
            Packet(at, min(at + step, end), (at - start) / size / RATE_HZ, min((at - start + step) / size / RATE_HZ, seconds))
            for at in range(start, end, step)
        )
    with av.open(io.BytesIO(data)) as file:
        times: dict[int, list[float]] = {}
        for packet in file.demux(file.streams.audio[0]):
            if packet.size and packet.pts is not None:
                length_s = float((packet.duration or 0) * packet.time_base)
                times.setdefault(packet.pos, []).extend(
                    (float(packet.pts * packet.time_base), float(packet.pts * packet.time_base) + length_s)
                )
    places = sorted(times)
    ends = [*places[1:], end]
    return tuple(Packet(at, to, min(times[at]), max(times[at])) for at, to in zip(places, ends, strict=True))


def make_mutant(rng: random.Random) -> Mutant:
    """A file with one to three damages."""
    encoding = rng.choice(tuple(ENCODINGS))
    mutant = Mutant(encoding, make_file(encoding, second=True))
    coded, is_bare, packets = ENCODINGS[encoding].is_coded, encoding in _NO_LENGTH, read_packets(encoding)
    start, end = packets[0].start, packets[-1].end
    kinds = ["take out", "cut", *(["overwrite"] * 3 if coded else []), *(["insert"] if coded and not is_bare else [])]
    if rng.random() < 0.4 and _change_size(mutant, rng) and rng.random() < 0.5:
        return mutant
    # From the back to the front, so that places before a damage are what they were.
    for at in sorted((rng.randrange(start, end) for _ in range(rng.choice((1, 1, 2, 3)))), reverse=True):
        _damage(mutant, rng.choice(kinds), at, (start, end), rng)
    return mutant


def _damage(mutant: Mutant, kind: str, at: int, sound: tuple[int, int], rng: random.Random) -> None:
    data, end = mutant.data, min(sound[1], len(mutant.data))
    length = min(rng.choice((1, rng.randrange(1, 64), 300, 1_500, rng.randrange(1, 6_000))), max(end - at, 1))
    match kind:
        case "cut":
            mutant.data, length = data[:at], sound[1] - at
        case "take out":
            if not ENCODINGS[mutant.encoding].is_coded:
                size = _PCM_BYTES.get(mutant.encoding, 2)
                at = sound[0] + (at - sound[0]) // size * size
                length = max(length // size, 1) * size
                mutant.shifted = True
            mutant.data = data[:at] + data[at + length :]
        case "overwrite":
            filling = rng.choice((b"\xff" * length, bytes(length), rng.randbytes(length), _flip(data[at : at + length], rng)))
            mutant.data = data[:at] + filling + data[at + length :]
        case "insert":
            at = next(packet.start for packet in reversed(read_packets(mutant.encoding)) if packet.start <= at)
            mutant.data = data[:at] + rng.choice((bytes(length), rng.randbytes(length))) + data[at:]
    _note(mutant, f"{kind} {length} at {at}", at, at if kind == "insert" else at + length)
    mutant.shortened |= kind in ("cut", "take out")
    if kind in ("take out", "insert") and mutant.encoding in _INDEXED:
        mutant.unsure.append((mutant.unsure[-1][0], SECONDS))
    if kind == "overwrite":
        mutant.overwritten_s += sum(p.end_s - p.start_s for p in _touched(mutant.encoding, at, at + length))


def _flip(data: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(data)
    for _ in range(rng.randrange(1, 40)):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _touched(encoding: str, start: int, end: int) -> list[Packet]:
    return [packet for packet in read_packets(encoding) if packet.start < max(end, start + 1) and packet.end > start]


# How long the damage of a packet is heard behind it: overlapping blocks, borrowed bits, predictors that find back.
_REACH_S = {"mp3": 0.25, "opus": 0.25, "webm": 0.25, "amr": 0.25, "speex": 0.25, "wma": 0.4}


def _note(mutant: Mutant, damage: str, start: int, end: int) -> None:
    reach_s = 0.0 if not ENCODINGS[mutant.encoding].is_coded else _REACH_S.get(mutant.encoding, 0.15)
    for packet in _touched(mutant.encoding, start, end):
        mutant.unsure.append((packet.start_s - reach_s / 2, packet.end_s + reach_s))
    mutant.damages.append(damage)


def _change_size(mutant: Mutant, rng: random.Random) -> bool:
    """Another value in a field that announces the length; False where the format has none that is known here."""
    if mutant.encoding == "flac":
        total = rng.choice((0, 1, rng.randrange(1, 200_000), 2**36 - 1))
        mutant.data = with_flac_total(total, second=True)
        mutant.damages.append(f"total of {total}")
    else:
        try:
            fields = size_fields(mutant.encoding, second=True)
        except KeyError:
            return False
        data = bytearray(mutant.data)
        name = rng.choice(sorted(fields))
        value = rng.choice((*_EXTREMES, rng.getrandbits(32), rng.randrange(200_000)))
        fields[name].write_value(data, value)
        mutant.data = bytes(data)
        mutant.damages.append(f"{name} of {value}")
    mutant.announced = True
    return True


@dataclass(frozen=True)
class Verdict:
    """``faults`` of FAULTS; empty where the account is true."""

    faults: tuple[str, ...]
    placement: Placement


def judge(mutant: Mutant, waveform: np.ndarray, lost_s: float | None, repairs: Sequence[str]) -> Verdict:
    """What is wrong with the account of an ``ok`` row; ``waveform`` is int16 at 16 kHz, of one channel."""
    encoding = ENCODINGS[mutant.encoding]
    slack_s, duration_s = SAID_S + encoding.delay_s, len(waveform) / RATE_HZ
    decoded = waveform.astype(np.float32) / 32768
    unsure = [(0.0, SECONDS)] if mutant.shifted else mutant.unsure
    placed = place(decoded, _known(), unsure, within_s=0.05 + slack_s / 2)
    lost, is_said = lost_s or 0.0, bool(repairs) or lost_s is None or lost_s >= 0.05
    short_s, missing_s = SECONDS - duration_s - lost, placed.missing_s - lost
    if (mutant.encoding in _NO_LENGTH or mutant.announced) and mutant.shortened:
        short_s = 0.0  # nothing says how long it was: only what is there can be asked for
    faults = []
    if not is_said and (short_s > slack_s or missing_s > slack_s or _is_noise_unsaid(mutant, placed)):
        faults.append("silent loss")
    # The last page of Ogg says that it is the last, and when it ends: without it, how much is gone can but be guessed.
    is_guess = mutant.encoding in _PAGED and any(end_s > SECONDS - 0.05 for _, end_s in mutant.unsure)
    if is_guess:
        short_s = 0.0
    if is_said and lost_s is not None and (short_s > slack_s or missing_s > slack_s):
        faults.append("lost too little")
    # How much time a damaged stretch of bare frames stands for, a reader can but guess from its bytes.
    guessed_s = mutant.overwritten_s / 2 if mutant.encoding in _NO_LENGTH else 0.0
    if duration_s > SECONDS + slack_s + guessed_s:
        faults.append("too long")
    if not mutant.announced and not is_guess and lost > SECONDS - placed.found_s + slack_s:
        faults.append("lost too much")
    # AMR counts nothing: whole frames that were taken out leave no trace.
    is_traceless = mutant.encoding == "amr" and mutant.shortened
    if placed.moved_s > slack_s and not is_said and not is_traceless:
        faults.append("moved silently")
    if placed.repeated_s > slack_s:
        faults.append("repeated")
    return Verdict(tuple(faults), placed)


def _is_noise_unsaid(mutant: Mutant, placed: Placement) -> bool:
    """A format with a checksum was read over what was overwritten as if nothing were."""
    return mutant.encoding in _CHECKED and mutant.overwritten_s > 0 and placed.spurious_s > SAID_S
