"""What is not read is called by its name: other audio, archives and encrypted files, and what is no audio at all."""

from __future__ import annotations

import struct

import pytest

from dictalake.audio.formats.containers import CONTAINERS, NOT_AUDIO, REFUSED
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.formats.sniff import sniff
from dictalake.errors import NotAudio, UnsupportedContainer
from tests.unit.audio.formats.archive_samples import encode
from tests.unit.audio.formats.made_files import TONE, make_boxes, make_nist, with_ffmpeg


def iff(kind: bytes) -> bytes:
    return b"FORM\0\0\0\x40" + kind + b"VHDR" + bytes(40)


def riff(kind: bytes) -> bytes:
    return b"RIFF\x40\0\0\0" + kind + b"LIST" + bytes(40)


def encrypted_mp4(entry: bytes) -> bytes:
    """A whole MP4 whose sample entry says that its sound is encrypted."""
    return with_ffmpeg("mp4", "aac").replace(b"mp4a", entry, 1)


def encrypted_asf() -> bytes:
    """The GUID of the Content Encryption Object in the header."""
    data = with_ffmpeg("asf", "wmav2", 16_000, 48_000)
    return data[:30] + bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e") + data[30:]


HEADS: dict[str, list[bytes]] = {
    "ds2": [b"\x03ds2"],
    "ds2_encrypted": [b"\x03enc"],
    "sony_voice": [b"MS_VOICE\0\0"],
    "openmg": [b"ea3\x03\0\0\0\0", b"EA3\x01\0\x60\xff\xff"],
    "audible": [b"\0\0\x10\0\x57\x90\x75\x36", b"\0\0\0\x20ftypaax \0\0\0\0", b"\0\0\0\x20ftypaaxc\0\0\0\0"],
    "mp4_encrypted": [encrypted_mp4(entry) for entry in (b"enca", b"drms", b"drmi")],
    "asf_encrypted": [encrypted_asf()],
    "encrypted": [b"-----BEGIN PGP MESSAGE-----\n\nhQEMA", b"Salted__\x17\x81", b"age-encryption.org/v1\n-> X25519 "],
    "nist_compressed": [make_nist("pcm,embedded-shorten-v2.00", b"ajkg\2" + bytes(900))],
    "shorten": [b"ajkg\x02\xfb\xb1"],
    "adif": [b"ADIF\0\0\x08\x02"],
    "musepack": [b"MP+\x07\0\0", b"MPCKSH\x10\0"],
    "optimfrog": [b"OFR \x0c\0\0\0\0"],
    "tak": [b"tBaK\x01\x0a\0\0"],
    "la": [b"LA04\0\0\0\0"],
    "tta2": [b"TTA2\0\0\0\0"],
    "dsd": [b"DSD \x1c\0\0\0\0\0\0\0", b"FRM8\0\0\0\0\0\0\x3d\x94DSD FVER"],
    "dts": [b"\x7f\xfe\x80\x01\xfc", b"\xfe\x7f\x01\x80\xfc", b"\x1f\xff\xe8\0\x07\xf0", b"\xff\x1f\0\xe8\xf1"],
    "twinvq": [b"TWIN97012000\0\0"],
    "8svx": [iff(b"8SVX"), iff(b"16SV")],
    "paris": [b" paf\0\0\0\0\0", b"fap \0\0\0\0"],
    "pvf": [b"PVF1\n1 8000 32\n\0\0"],
    "qcp": [riff(b"QLCM")],
    "silk": [b"#!SILK_V3\x19\0", b"\x02#!SILK_V3\x19\0"],
    "codec2": [b"\xc0\xde\xc2\x01\0\x08\0"],
    "midi": [b"MThd\0\0\0\x06", riff(b"RMID")],
    "tracker": [b"Extended Module: song\0\0\0\x1a", b"IMPMsong\0\0"],
    "soundfont": [riff(b"sfbk")],
    "cda": [riff(b"CDDA")],
    "swf": [b"FWS\x06\x40\0\0\0\0", b"CWS\x0a\x40\0\0\0\0", b"ZWS\x0d\x40\0\0\0\0"],
    "mxf": [bytes.fromhex("060e2b34020501010d0102010102040083")],
    "wtv": [bytes.fromhex("b7d800203749da11a64e0007e95ead8d")],
    "zip": [b"PK\x03\x04", b"PK\x05\x06"],
    "gzip": [b"\x1f\x8b\x08"],
    "tar": [b"x" * 257 + b"ustar\x0000"],
    "rar": [b"Rar!\x1a\x07\x01\0"],
    "7z": [b"7z\xbc\xaf\x27\x1c\0\x04"],
    "cab": [b"MSCF\0\0\0\0\x10"],
    "iso": [bytes(32_769) + b"CD001\x01\0"],
    "bzip2": [b"BZh91AY&SY\0"],
    "xz": [b"\xfd7zXZ\0\0\x04"],
    "zstd": [b"\x28\xb5\x2f\xfd\x04"],
}
OTHERS: dict[str, list[bytes]] = {
    "text": [
        b"Findings: no acute fracture.\n",
        "Befund: Größe".encode("utf-16"),
        "Die Größe der Läsion ".encode("latin-1") * 9,
    ],
    "html": [b"<!DOCTYPE html>\n<html><head>", b"\n<html lang=en>", b"<!-- saved -->\n<HTML><body>", b"\xef\xbb\xbf<html>"],
    "xml": [b'<?xml version="1.0"?>\n<a/>', b"<ClinicalDocument xmlns='urn:hl7-org:v3'>"],
    "json": [b'{"resourceType": "Media", "id": 1}', b'[{"a": 1}]', b"{}", b"[1, 2]"],
    "rtf": [b"{\\rtf1\\ansi"],
    "pdf": [b"%PDF-1.7\n"],
    "postscript": [b"%!PS-Adobe-3.0"],
    "office": [bytes.fromhex("d0cf11e0a1b11ae1") + bytes(20)],
    "image": [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"GIF89a",
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"BM" + struct.pack("<IIII", 1000, 0, 54, 40) + bytes(40),
        riff(b"WEBP"),
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"\0\0\0\x1cftypavif\0\0\0\0",
        b"\0\0\1\0\1\0\x10\x10\0\0\1\0",
        b"8BPS\0\1",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"DDS |\0\0\0\x07",
    ],
    "video": [
        b"\0\0\x01\xb3\x14\0\xf0\x23\xff\xff\xe0\x18",
        b"\0\0\0\x01\x67\x64\0\x1e",
        b"\0\0\0\x01\x40\x01\x0c\x01",
        b"YUV4MPEG2 W64 H48",
        b"DKIF\0\0\x20\0VP80",
    ],
    "sqlite": [b"SQLite format 3\0"],
    "parquet": [b"PAR1\x15\x04\x15", b"ARROW1\0\0\xff"],
    "hdf5": [b"\x89HDF\r\n\x1a\n"],
    "executable": [
        b"\x7fELF\x02\x01\x01\0",
        b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0",
        b"\xcf\xfa\xed\xfe\x07",
        b"\xca\xfe\xba\xbe\0\0\0\x34",
        b"\0asm\x01\0\0\0",
    ],
    "font": [b"\0\1\0\0\0\x13\1\0\0\4\0\x30GDEF" + bytes(20), b"OTTO\0\x0c\0\x80", b"wOFF\0\1\0\0"],
    "apple_double": [b"\0\x05\x16\x07\0\x02\0\0Mac OS X", b"\0\0\0\x01Bud1\0\0"],
    "plist": [b"bplist00\xd1"],
    "shortcut": [b"L\0\0\0\x01\x14\x02\0\0\0"],
}
REFUSALS = [(name, head) for name, heads in HEADS.items() for head in heads]
NO_SOUND = [(name, head) for name, heads in OTHERS.items() for head in heads]


def named(value: object) -> str | None:
    return value if isinstance(value, str) else ""


def test_every_name_of_the_tables_has_a_sample() -> None:
    assert HEADS.keys() == REFUSED.keys()
    assert OTHERS.keys() == NOT_AUDIO.keys()
    assert not CONTAINERS.keys() & (REFUSED.keys() | NOT_AUDIO.keys())
    assert not REFUSED.keys() & NOT_AUDIO.keys()


@pytest.mark.parametrize(("name", "head"), REFUSALS, ids=named)
def test_audio_that_is_not_read_is_an_unsupported_container_by_name(name: str, head: bytes) -> None:
    data = head + bytes(200) if name not in ("text", "encrypted") else head
    assert sniff(data) == name
    with pytest.raises(UnsupportedContainer) as caught:
        read_audio(data, "r1", ending="wav")
    assert REFUSED[name] in caught.value.detail


@pytest.mark.parametrize(("name", "head"), NO_SOUND, ids=named)
def test_what_is_no_audio_is_not_audio_by_name(name: str, head: bytes) -> None:
    assert sniff(head) == name
    with pytest.raises(NotAudio, match=NOT_AUDIO[name].replace("(", r"\(").replace("*", r"\*").replace(")", r"\)")):
        read_audio(head, "r1", ending="wav")


def test_each_refusal_says_what_to_do() -> None:
    for name, text in REFUSED.items():
        assert any(word in text for word in ("convert", "export", "unpack", "decrypt", "leave it out", "turn it on", "copy")), (
            name
        )


@pytest.mark.parametrize(
    "line",
    [
        b"MAC address list of the ward's recorders, 2024",
        b"LA04 is the room of the recorder that was moved",
        b"MP+ players were bought for the department in May",
        b"IMPMENTATION notes of the interface of the archive",
        b"BMI 27, otherwise no remarks were dictated here.",
        b"MZ 2024 is the number of the case that was dictated",
        b"OTTO dictated this letter in the outpatient clinic",
        b"PAR1 and PAR2 are the names of the two parameters",
        b"FWS: four wheeled stretcher, as was dictated here.",
        b"BZh is no word of any language that we know of.",
    ],
)
def test_a_text_that_begins_like_a_magic_number_is_text(line: bytes) -> None:
    assert sniff(line * 4) == "text"


@pytest.mark.parametrize(
    "head",
    [
        b"wvpk\x10\0\0\0\x10\x09",
        b"TTA1\x09\0\x01\0",
        b"MAC \x01\0",
        b"FLV\x01\xff\0\0\0\x09",
        b"\0\0\x01\xba\0",
        b"dns.\0\0\0\0\xff\xff\xff\xff",
        b"\x64\xa3\x01\0" + bytes(20),
        b"\0\x01\xa3\x64" + bytes(20),
        b"MZ" + b"\x90" * 70,
        b"BM" + b"\x90" * 70,
        b"BZh9zzzzzz\0",
        b"\0\0\x01\xb3" + bytes(20),
        b"\0\0\0\x01\x67\0\0\0",
        b"\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\0\0\1\0" + bytes(12),
        b"\x02\0\x03\0\x05\0\0\0" + b"\x01\0\xff\xff" * 40,
    ],
)
def test_a_short_magic_number_alone_names_nothing(head: bytes) -> None:
    """The first samples of headerless sound may be any bytes."""
    assert sniff(head + bytes([0x80, 0x7F, 0x01]) * 90) == "unknown"


def test_an_mp4_with_plain_sound_is_not_called_encrypted() -> None:
    assert sniff(with_ffmpeg("mp4", "aac")) == sniff(make_boxes((b"ftyp", b"M4A \0\0\0\0"), (b"mdat", b"enca" * 9))) == "mp4"
    assert sniff(with_ffmpeg("asf", "wmav2", 16_000, 48_000)) == "asf"


def test_nist_in_another_coding_than_shorten_is_not_refused() -> None:
    assert sniff(make_nist("ulaw", encode(TONE, 16_000, "RAW", "ULAW"))) == "nist"
