"""Two recordings in one file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np

from tests.coded_sound import RATE_HZ, make_coded_sound
from tests.damaged_audio.encodings import A_S, B_S, ENCODINGS, make_file, make_sounds
from tests.damaged_audio.muxing import Track, mux
from tests.damaged_audio.tags import make_ape, make_id3
from tests.damaged_audio.truth import TOLERANCE_S, DamagedFile
from tests.unit.audio.formats.archive_samples import encode


def make_joined() -> Iterator[DamagedFile]:
    """Two whole files one after the other, plainly, and with tags, another rate or another number of channels at the seam."""
    tags = {"id3": make_id3(300), "ape": make_ape(300), "id3v1": b"TAG" + bytes(125)}
    plain = ["wav", "rf64", "w64", "aiff", "au", "caf", "flac", "oga", "vorbis", "opus", "speex", "mp3", "adts", "webm", "amr"]
    for name in plain:
        words = () if name in ("mp3", "adts") else ("joined",)  # nothing marks the seam of bare frames
        yield _joined(name, name, make_file(name) + make_file(name, True), words)
    for tag, value in tags.items():
        yield _joined(f"mp3-{tag}", "mp3", make_file("mp3") + value + make_file("mp3", True), ())
    yield _joined("adts-id3", "adts", make_file("adts") + tags["id3"] + make_file("adts", True), ())
    yield _joined("flac-id3", "flac", make_file("flac") + tags["id3"] + make_file("flac", True), ("joined",))
    for name, container, subtype in _SEAMS:
        for kind, rate_hz, channels in (("other-rate", 22_050, 1), ("stereo", RATE_HZ, 2)):
            second = make_coded_sound(B_S, 2, rate_hz)[:, None].repeat(channels, axis=1)
            if (container, rate_hz) == ("OPUS", 22_050):
                continue
            made = encode(second, rate_hz, "OGG" if container == "OPUS" else container, subtype)
            yield _joined(f"{name}-{kind}", name, make_file(name) + made, ("joined",))
    for kind, rate_hz, layout in (("other-rate", 24_000, "mono"), ("stereo", RATE_HZ, "stereo")):
        made = mux("adts", [Track(make_sounds()[1], "aac", rate_hz, 48_000, layout)])
        yield _joined(f"adts-{kind}", "adts", make_file("adts") + made, ("joined",))
    yield _joined("wav-two-data-chunks", "wav", _join_data_chunks(), ("joined",))


_SEAMS = [
    ("wav", "WAV", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("vorbis", "OGG", "VORBIS"),
    ("opus", "OPUS", "OPUS"),
]


def _joined(name: str, encoding: str, data: bytes, words: Iterable[str]) -> DamagedFile:
    sound = np.concatenate(make_sounds())
    delay_s = ENCODINGS[encoding].delay_s
    seam = (A_S - 0.2, A_S + 0.2 + 2 * delay_s)
    return DamagedFile(
        f"joined-{name}", data, A_S + B_S, (sound,), (seam,), frozenset(words), slack_s=TOLERANCE_S + 2 * delay_s + 0.05
    )


def _join_data_chunks() -> bytes:
    """One RIFF with two ``data`` chunks and an unknown one between them."""
    first, second = make_file("wav"), make_file("wav", True)
    body = first[12:] + b"junk" + struct.pack("<I", 10) + bytes(10) + second[36:]
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body
