"""What stands before the first frame does not hide the sound, and what is no sound is not found to be any."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.formats.sniff import find_start
from dictalake.errors import TranscriptionError
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group
from tests.unit.audio.formats.made_files import TONE, make_boxes, make_nist, make_voc, with_ffmpeg

ID3 = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
ID3_WITH_FOOTER = b"ID3\x04\0\x10\0\0\0\x0a" + bytes(10) + b"3DI\x04\0\x10\0\0\0\x0a"
APE_SIZES = b"".join(number.to_bytes(4, "little") for number in (2000, 32, 0))  # version, bytes, items
APE_TAG = b"APETAGEX" + APE_SIZES + b"\0\0\0\xa0" + bytes(8) + bytes(32)
ID3V1 = b"TAG" + b"A title".ljust(125, b"\0")
HTTP = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: audio/wav\r\nContent-Length: 64044\r\n\r\n"
MULTIPART = (
    b"------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n"
    b'Content-Disposition: form-data; name="file"; filename="dictation.wav"\r\nContent-Type: audio/wav\r\n\r\n'
)
FILES = {
    "wav": lambda: encode(TONE, 16_000, "WAV"),
    "w64": lambda: encode(TONE, 16_000, "W64"),
    "aiff": lambda: encode(TONE, 16_000, "AIFF"),
    "flac": lambda: encode(TONE, 16_000, "FLAC"),
    "caf": lambda: encode(TONE, 16_000, "CAF"),
    "au": lambda: encode(TONE, 16_000, "AU"),
    "ogg": lambda: encode(TONE, 16_000, "OGG", "OPUS"),
    "mp3": lambda: encode(TONE, 16_000, "MP3"),
    "aac": lambda: with_ffmpeg("adts", "aac", 16_000, 48_000),
    "mp4": lambda: with_ffmpeg("mp4", "aac", 16_000, 48_000),
    "matroska": lambda: with_ffmpeg("matroska", "flac"),
    "asf": lambda: with_ffmpeg("asf", "wmav2", 16_000, 48_000),
    "amr": lambda: with_ffmpeg("amr", "libopencore_amrnb", 8_000, 12_200),
    "wavpack": lambda: with_ffmpeg("wv", "wavpack"),
    "tta": lambda: with_ffmpeg("tta", "tta"),
    "voc": make_voc,
    "nist": make_nist,
    "avi": lambda: with_ffmpeg("avi", "pcm_s16le"),
    "flv": lambda: with_ffmpeg("flv", "aac", 16_000, 48_000),
    "mpegts": lambda: with_ffmpeg("mpegts", "aac", 16_000, 48_000),
    "mpegps": lambda: with_ffmpeg("mpeg", "mp2", 16_000, 64_000),
    "realmedia": lambda: with_ffmpeg("rm", "ac3", 48_000, 96_000),
    "ac3": lambda: with_ffmpeg("ac3", "ac3", 48_000, 96_000),
    "eac3": lambda: with_ffmpeg("eac3", "eac3", 48_000, 96_000),
    "latm": lambda: with_ffmpeg("latm", "aac", 16_000, 48_000),
}
TAGS = {
    "id3": ID3,
    "id3-footer": ID3_WITH_FOOTER,
    "two-id3": ID3 + ID3,
    "ape": APE_TAG,
    "id3v1": ID3V1,
    "id3-ape": ID3 + APE_TAG,
}
OTHERS = {
    "zeros": bytes(512),
    "a-megabyte-of-zeros": bytes(2**20 + 7),
    "bom": b"\xef\xbb\xbf",
    "http": HTTP,
    "multipart": MULTIPART,
    "http-and-multipart": HTTP + MULTIPART,
    "random": random.Random(5).randbytes(900),
    "zeros-and-id3": bytes(100) + ID3,
}


@functools.cache
def made(name: str) -> bytes:
    return FILES[name]()


def length_s(data: bytes) -> float:
    audio = read_audio(data, "r1")
    return audio.samples.shape[1] / audio.format.sample_rate_hz


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_begins_at_its_first_byte(name: str) -> None:
    assert find_start(made(name)) == (0, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_before_it_does_not_hide_a_file_and_is_lawful(tag: str, name: str) -> None:
    data = TAGS[tag] + made(name)
    assert find_start(data) == (len(TAGS[tag]), name)
    assert "leading_bytes" not in read_audio(data, "r1").account.repairs
    assert length_s(data) == length_s(made(name))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("before", OTHERS)
def test_other_bytes_before_it_do_not_hide_a_file_and_are_told(before: str, name: str) -> None:
    data = OTHERS[before] + made(name)
    assert find_start(data) == (len(OTHERS[before]), name)
    audio = read_audio(data, "r1")
    assert "leading_bytes" in audio.account.repairs
    assert audio.samples.shape[1] / audio.format.sample_rate_hz == length_s(made(name))


def test_zeros_that_pad_a_tag_are_part_of_it() -> None:
    data = ID3 + bytes(777) + made("mp3")
    assert find_start(data) == (len(ID3) + 777, "mp3")
    assert "leading_bytes" not in read_audio(data, "r1").account.repairs


@pytest.mark.parametrize("name", ["mp3", "aac", "ac3", "latm", "mpegts"])
@pytest.mark.parametrize("cut", [100, 333, 1000])
def test_a_stream_that_starts_in_the_middle_is_read_from_its_next_frame(name: str, cut: int) -> None:
    data = made(name)[cut:]
    start, container = find_start(data)
    assert container == name
    assert 0 < start < 1200
    assert length_s(data) == pytest.approx(length_s(made(name)), abs=0.3)


@pytest.mark.parametrize("name", ["mp3", "aac", "ac3"])
def test_three_frames_that_fit_are_not_enough(name: str) -> None:
    frames = made(name)[2000:]
    start, _ = find_start(frames)
    at = start
    for _ in range(3):  # the fourth frame is overwritten
        at += 1 + find_start(frames[at + 1 :])[0]
    data = b"\1\2\3\4\5" + frames[start:at] + random.Random(1).randbytes(3000)
    assert find_start(data) == (0, "unknown")


def test_a_chain_of_frames_that_a_picture_happens_to_hold_is_no_sound() -> None:
    """Twelve pixels of a pattern that look like frame headers at the right distance, and then other pixels."""
    header = b"\xff\xfb\x90\x64"
    chain = (header + bytes(range(200)) + bytes(213)) * 8
    assert find_start(b"\x01\x02\x03\x04" + chain + b"\x55" * 5000) == (0, "unknown")


@pytest.mark.parametrize(
    "magic",
    [
        *(b"RIFF", b"fLaC", b"OggS", b"FORM", b".snd", b"dns.", b"caff", b"\0\0\0\x18ftyp", b"\x1a\x45\xdf\xa3", b"wvpk"),
        *(b"TTA1", b"MAC ", b"#!AMR", b"FLV\x01", b"\0\0\x01\xba", b"\0\0\0\x6cmoov", b"\x30\x26\xb2\x75"),
    ],
)
def test_a_magic_number_deep_in_other_bytes_is_not_enough(magic: bytes) -> None:
    data = bytearray(random.Random(7).randbytes(40_000))
    data[20_000 : 20_000 + len(magic)] = magic
    assert find_start(bytes(data)) == (0, "unknown")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 70_000))
def test_random_bytes_hold_no_sound(seed: int, length: int) -> None:
    start, name = find_start(random.Random(seed).randbytes(length))
    assert start == 0
    assert name not in FILES or length < 100  # a magic number of two bytes may stand at the very beginning


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000))
def test_looking_for_the_start_never_fails(data: bytes) -> None:
    start, _ = find_start(data)
    assert 0 <= start <= len(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%PDF-1.7\n" + bytes(100), "pdf"),
        (b"\x89PNG\r\n\x1a\n", "image"),
        (b"PK\x03\x04" + bytes(60), "zip"),
        (b"x" * 257 + b"ustar\x0000", "tar"),
        (b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0", "executable"),
        (b"Dictated but not read. " * 10, "text"),
    ],
)
def test_what_is_known_at_its_first_byte_stays_what_it_is(data: bytes, name: str) -> None:
    """A program, a document or an archive may hold a whole sound file, which is not what it is."""
    assert find_start(data) == (0, name)
    if name != "text":
        assert find_start(data + made("wav")) == (0, name)


def test_lines_of_a_log_before_a_sound_file_do_not_hide_it() -> None:
    log = b"[recorder] starting, writing to stdout\n" * 60
    assert find_start(log + made("wav")) == (len(log), "wav")


def test_text_behind_an_http_header_stays_text() -> None:
    assert find_start(HTTP + b"<html><body>404 Not Found</body></html>")[1] == "text"


def test_an_audio_file_inside_dicom_may_have_leading_bytes_too() -> None:
    inside = ID3 + made("wav")
    document = make_dicom(make_group(bytes(80), "UB", 80), WaveformSequence=None)
    assert b"ID3" not in document
    from pydicom.dataset import Dataset

    more = Dataset()
    more.EncapsulatedDocument = inside + b"\0" * (len(inside) % 2)
    audio = read_audio(make_dicom(more=more, WaveformSequence=None), "r1")
    assert audio.format.container == "wav"
    np.testing.assert_allclose(audio.samples[0], TONE[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    "boxes",
    [
        [(b"free", b"12345678"), (b"mdat", bytes(16))],
        [(b"wide", b""), (b"mdat", bytes(16))],
        [(b"skip", bytes(4)), (b"moov", bytes(16))],
        [(b"pnot", bytes(12)), (b"mdat", bytes(16))],
        [(b"mdat", bytes(64)), (b"moov", bytes(16))],
    ],
    ids=lambda boxes: boxes[0][0].decode(),
)
def test_quicktime_may_begin_with_another_box_than_its_type(boxes: list[tuple[bytes, bytes]]) -> None:
    assert find_start(make_boxes(*boxes)) == (0, "mp4")


@pytest.mark.parametrize("kind", [b"free", b"wide", b"skip", b"pnot"])
def test_a_word_alone_is_no_box(kind: bytes) -> None:
    assert find_start(make_boxes((kind, b"12345678"), (b"zzzz", bytes(16))))[1] == "unknown"


def test_damage_behind_leading_bytes_is_a_reason_not_a_crash() -> None:
    data = bytes(100) + made("wav")[:30]
    with pytest.raises(TranscriptionError):
        read_audio(data, "r1")
