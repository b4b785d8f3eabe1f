"""What stands before the sound and between its frames, and files that end early."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace

import av
import numpy as np

from tests.coded_sound import RATE_HZ
from tests.damaged_audio.encodings import A_S, ENCODINGS, find_sound, make_file, make_of_first, make_sounds
from tests.damaged_audio.muxing import shift_offsets
from tests.damaged_audio.tags import make_ape, make_id3
from tests.damaged_audio.truth import DamagedFile

# What stands before the sound and between its frames


def make_leading() -> Iterator[DamagedFile]:
    """Tags, zeros, a byte order mark, the header of a protocol, or the rest of a frame before what the format begins with."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 300000\r\n\r\n"
    before = {"zeros": bytes(1_000), "http": http, "bom": b"\xef\xbb\xbf"}
    containers = ["wav", "rf64", "w64", "aiff", "au", "caf", "flac", "vorbis", "opus", "speex", "mp3", "adts", "webm", "amr"]
    for name in containers:
        for kind, leading in before.items():
            yield make_of_first(f"lead-{kind}-{name}", name, leading + make_file(name), words={"leading_bytes"})
        yield make_of_first(f"lead-id3-{name}", name, make_id3(500) + make_file(name))
    yield make_of_first("lead-ape-mp3", "mp3", make_ape(500) + make_file("mp3"))
    for name in ("mp3", "adts"):
        start = find_sound(name)[0] + 50
        yield make_of_first(f"midstart-{name}", name, make_file(name)[start:], unsure=((0, 0.2),), words={"leading_bytes"})
    m4a = make_file("m4a")
    free = struct.pack(">I", 1_000) + b"free" + bytes(992)
    # Boxes before the first, or none of it: offsets inside the file are kept, as the box of the brand becomes one to skip.
    brand = int.from_bytes(m4a[:4], "big")
    yield make_of_first("lead-free-m4a", "m4a", shift_offsets(free + m4a, len(free)))
    yield make_of_first("qt-no-brand-m4a", "m4a", m4a[:4] + b"free" + m4a[8:brand] + m4a[brand:])


def make_inner_tags() -> Iterator[DamagedFile]:
    """Lawful things between frames: ID3 between those of ADTS and MP3, frames without data in AMR."""
    for name in ("adts", "mp3"):
        data = make_file(name)
        at = _frame_near(name, len(data) // 2)
        yield make_of_first(f"inner-id3-{name}", name, data[:at] + make_id3(400) + data[at:], unsure=((3.7, 4.3),))
    yield _amr_with(15, b"", "no-data")
    yield _amr_with(8, bytes(5), "sid")


def _frame_near(encoding: str, near: int) -> int:
    with av.open(io.BytesIO(make_file(encoding))) as file:
        return next(packet.pos for packet in file.demux() if packet.pos is not None and packet.pos >= near)


def _amr_with(frame_type: int, body: bytes, kind: str) -> DamagedFile:
    """Half a second of frames of ``frame_type`` in the middle, as discontinuous transmission writes: pauses, not losses."""
    data, frames = make_file("amr"), 25
    at = 6 + (len(data) - 6) // 32 // 2 * 32
    pause = bytes([frame_type << 3 | 4]) + body
    split = (at - 6) // 32 * 320  # samples at 16 kHz
    sound = make_sounds()[0]
    known = np.concatenate([sound[:split], np.zeros(frames * 320), sound[split:]])
    middle_s = split / RATE_HZ
    file = make_of_first(f"inner-{kind}-amr", "amr", data[:at] + pause * frames + data[at:], tracks=(known,))
    return replace(file, seconds=A_S + 0.02 * frames, unsure=((middle_s - 0.1, middle_s + 0.02 * frames + 0.2),))


# Ends


def make_cut_ends() -> Iterator[DamagedFile]:
    """The file ends at 30 to 95 % of its bytes."""
    for name, encoding in ENCODINGS.items():
        whole = make_file(name)
        start, end = find_sound(name)
        for share in (0.3, 0.6, 0.95):
            cut = round(len(whole) * share)
            there_s = A_S * min(max(cut - start, 0) / (end - start), 1.0)
            if name == "m4a":
                there_s = 0.0  # its index was at the end
            file = make_of_first(f"cut-{share:g}-{name}", name, whole[:cut], or_error=("corrupt_audio",))
            file = replace(file, unsure=((there_s - encoding.reach_s, A_S),))
            if encoding.announced:
                yield replace(file, words=frozenset({"cut_end"}))
            else:
                # Nothing says how long it was: all that can be asked for is what is there.
                known = make_sounds()[0][: round(there_s * RATE_HZ)]
                slack_s = file.slack_s + encoding.reach_s
                yield replace(file, seconds=max(there_s, 0.0), tracks=(known,), slack_s=slack_s)
