"""Headers that announce another length than there is: stale ones, open ones, and any value in any field."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from tests.coded_sound import RATE_HZ
from tests.damaged_audio.encodings import make_file, make_of_first, make_sounds
from tests.damaged_audio.muxing import Track, mux
from tests.damaged_audio.truth import DamagedFile
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group

_SHORT_S = 2.0  # what a stale header announces


@dataclass(frozen=True)
class SizeField:
    """A field of a header that announces a length: where it is, how wide, and how it counts ``samples`` of 16-bit sound."""

    at: int
    width: int
    order: str
    per_sample: int = 2
    more: int = 0

    def write(self, data: bytearray, samples: int) -> None:
        self.write_value(data, samples * self.per_sample + self.more)

    def write_value(self, data: bytearray, value: int) -> None:
        data[self.at : self.at + self.width] = (value & (256**self.width - 1)).to_bytes(self.width, self.order)


@functools.cache
def size_fields(encoding: str, second: bool = False) -> dict[str, SizeField]:
    """The fields that announce how long the sound is."""
    data = make_file(encoding, second)
    match encoding:
        case "wav":
            return {"riff": SizeField(4, 4, "little", 2, 36), "data": SizeField(40, 4, "little")}
        case "rf64" | "bw64":
            at = data.index(b"ds64") + 8
            return {
                "riff": SizeField(at, 8, "little", 2, 96),
                "data": SizeField(at + 8, 8, "little"),
                "samples": SizeField(at + 16, 8, "little", 1),
            }
        case "w64":
            return {
                "riff": SizeField(16, 8, "little", 2, 104),
                "data": SizeField(data.index(b"data\xf3\xac") + 16, 8, "little", 2, 24),
            }
        case "aiff":
            return {
                "form": SizeField(4, 4, "big", 2, 46),
                "frames": SizeField(data.index(b"COMM") + 10, 4, "big", 1),
                "ssnd": SizeField(data.index(b"SSND") + 4, 4, "big", 2, 8),
            }
        case "au":
            return {"data": SizeField(8, 4, "big")}
        case "caf":
            return {"data": SizeField(data.index(b"data") + 4, 8, "big", 2, 4)}
    raise KeyError(encoding)


def with_sizes(encoding: str, **values: int) -> bytes:
    """The file of the first sound with other values in its size fields."""
    data = bytearray(make_file(encoding))
    for name, value in values.items():
        size_fields(encoding)[name].write_value(data, value)
    return bytes(data)


def with_announced(encoding: str, seconds: float, *fields: str) -> bytes:
    """The file of the first sound whose header announces ``seconds``, in ``fields`` alone or in all of them."""
    data = bytearray(make_file(encoding))
    for name, field in size_fields(encoding).items():
        if not fields or name in fields:
            field.write(data, round(seconds * RATE_HZ))
    return bytes(data)


def with_flac_total(samples: int, second: bool = False) -> bytes:
    """STREAMINFO's 36 bits of total samples."""
    data = bytearray(make_file("flac", second))
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


def _dicom_announcing(samples: int, interpretation: str = "SS") -> bytes:
    pcm = (make_sounds()[0] * 32767).astype("<i2").tobytes()
    codes = encode(make_sounds()[0], RATE_HZ, "RAW", "ULAW")
    payload = pcm if interpretation == "SS" else codes
    return make_dicom(make_group(payload, interpretation, samples, SamplingFrequency=str(RATE_HZ)))


def make_stale_headers() -> Iterator[DamagedFile]:
    """A header that says 2 s over 8 s of samples: the recorder died after its first flush."""
    words = {"header_short", "header_repaired"}
    for name, fields in (
        ("wav", ()),
        ("wav", ("data",)),
        ("rf64", ()),
        ("rf64", ("data", "samples")),
        ("bw64", ()),
        ("w64", ()),
        ("w64", ("data",)),
        ("aiff", ()),
        ("aiff", ("ssnd",)),
        ("aiff", ("frames",)),
        ("au", ()),
        ("caf", ()),
    ):
        kind = f"stale-{name}" + "".join(f"-{field}" for field in fields)
        # Where COMM tells the truth, a chunk's size that does not may go without a word.
        said = set() if fields == ("ssnd",) else words
        yield make_of_first(kind, name, with_announced(name, _SHORT_S, *fields), words=said)
    short = round(_SHORT_S * RATE_HZ)
    yield make_of_first("stale-flac", "flac", with_flac_total(short), words=words)
    yield make_of_first("stale-dicom", "dicom", _dicom_announcing(short), words=words)
    yield make_of_first("stale-dicom-mulaw", "dicom", _dicom_announcing(short, "MB"), words=words)


def make_open_headers() -> Iterator[DamagedFile]:
    """A header that was never closed: sizes of 0, of an empty file, −1, or none at all."""
    words, most = {"header_open"}, 0xFFFFFFFF
    changed = {
        "wav-zero": ("wav", {"riff": 0, "data": 0}),
        "wav-ff": ("wav", {"riff": most, "data": most}),
        "wav-empty": ("wav", {"riff": 36, "data": 0}),
        "wav-data-zero": ("wav", {"data": 0}),
        "wav-7fffffff": ("wav", {"riff": 0x7FFFFFFF, "data": 0x7FFFFFFF - 36}),
        "rf64-zero": ("rf64", {"riff": 0, "data": 0, "samples": 0}),
        "rf64-data-zero": ("rf64", {"data": 0}),
        "rf64-ff": ("rf64", {"riff": 2**64 - 1, "data": 2**64 - 1, "samples": 0}),
        "bw64-zero": ("bw64", {"riff": 0, "data": 0, "samples": 0}),
        "w64-zero": ("w64", {"riff": 0, "data": 0}),
        "w64-empty": ("w64", {"riff": 104, "data": 24}),
        "aiff-zero": ("aiff", {"form": 0, "frames": 0, "ssnd": 0}),
        "aiff-empty": ("aiff", {"form": 46, "frames": 0, "ssnd": 8}),
        "au-zero": ("au", {"data": 0}),
        "caf-zero": ("caf", {"data": 0}),
        "caf-empty": ("caf", {"data": 4}),
    }
    for kind, (name, values) in changed.items():
        yield make_of_first(f"open-{kind}", name, with_sizes(name, **values), words=words)
    # Lawful: the format itself says "unknown" so, and nothing need be said.
    yield make_of_first("open-au-unknown", "au", with_sizes("au", data=most))
    yield make_of_first("open-caf-unknown", "caf", with_sizes("caf", data=2**64 - 1))
    yield make_of_first("open-flac-unknown", "flac", with_flac_total(0))
    yield make_of_first("open-dicom-zero", "dicom", _dicom_announcing(0), or_error=("corrupt_audio",))
    sound = make_sounds()[0]
    yield make_of_first("open-webm-live", "webm", mux("webm", [Track(sound, "libopus", 48_000, 64_000)], live="1"))
    yield make_of_first("open-m4a-fragments", "m4a", mux("mp4", [Track(sound, "aac", RATE_HZ, 32_000)], movflags=_FRAGMENTED))
    yield make_of_first("open-m4a-no-index", "m4a", _without_index(), or_error=("corrupt_audio",))


_FRAGMENTED = "frag_keyframe+empty_moov+default_base_moof"


def _without_index() -> bytes:
    """An M4A whose recorder died: no ``moov`` was written, and ``mdat`` has no length."""
    data = bytearray(make_file("m4a"))
    mdat = data.index(b"mdat")
    data[mdat - 4 : mdat] = bytes(4)
    return bytes(data[: data.index(b"moov") - 4])
