"""Containers are known by their bytes, never by a name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.audio.formats.read_audio import read_audio, sniff
from dictalake.errors import EmptyObject, NotAudio, UnsupportedContainer
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group, make_tone

TONE = make_tone(0.2)
ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)


@pytest.mark.parametrize(
    ("container", "subtype", "name"),
    [
        ("WAV", "PCM_16", "wav"),
        ("RF64", "PCM_16", "wav"),
        ("W64", "PCM_16", "w64"),
        ("FLAC", "PCM_16", "flac"),
        ("MP3", "MPEG_LAYER_III", "mp3"),
        ("OGG", "VORBIS", "ogg"),
        ("OGG", "OPUS", "ogg"),
        ("AIFF", "PCM_16", "aiff"),
        ("AU", "ULAW", "au"),
        ("CAF", "ALAC_16", "caf"),
    ],
)
def test_audio_files_are_recognised(container: str, subtype: str, name: str) -> None:
    assert sniff(encode(TONE, 16_000, container, subtype)) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x00\x00\x00\x20ftypM4A \x00\x00\x02\x00", "mp4"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01", "matroska"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(20), "asf"),
        (b"#!AMR\n<\x91\x17", "amr"),
        (b"\x02dss" + bytes(60), "dss"),
        (b"\x03dss" + bytes(60), "dss"),
        (b"\x03ds2" + bytes(60), "ds2"),
        (b"\x03enc" + bytes(60), "ds2_encrypted"),
        (b"PK\x03\x04" + bytes(60), "zip"),
        (b"\x1f\x8b\x08" + bytes(60), "gzip"),
        (b"x" * 257 + b"ustar\x0000", "tar"),
        (b"%PDF-1.7\n", "pdf"),
        (b"Findings: no acute fracture.\n", "text"),
        ("Größe der Läsion".encode(), "text"),
        (b"", "text"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "avi"),
        (b"RIFF\x00\x00\x00\x00ACONLIST", "unknown"),
        (bytes(1000), "unknown"),
    ],
)
def test_heads_of_files_are_recognised(head: bytes, name: str) -> None:
    assert sniff(head) == name


def test_id3_tag_does_not_hide_what_follows() -> None:
    assert sniff(ID3 + encode(TONE, 16_000, "FLAC")) == "flac"
    assert sniff(ID3 + encode(TONE, 16_000, "MP3")) == "mp3"


def test_one_sync_word_is_not_an_mp3() -> None:
    mp3 = encode(make_tone(1.0), 16_000, "MP3")
    assert sniff(mp3) == "mp3"
    assert sniff(mp3[:4] + bytes(5000)) == "unknown"


def test_dicom_is_recognised_with_and_without_preamble() -> None:
    group = make_group(bytes(80), "UB", 80)
    assert sniff(make_dicom(group)) == "dicom"
    assert sniff(make_dicom(group, preamble=False)) == "dicom"
    assert sniff(make_dicom(group, preamble=False, syntax="1.2.840.10008.1.2")) == "dicom"
    assert sniff(make_dicom(group, preamble=False, syntax="1.2.840.10008.1.2.2")) == "dicom"


def test_dicom_wins_over_a_preamble_that_looks_like_something_else() -> None:
    dicom = make_dicom(make_group(bytes(80), "UB", 80))
    assert sniff(b"RIFF\x00\x00\x00\x00WAVE" + dicom[12:]) == "dicom"


@given(st.binary(max_size=2000))
def test_sniffing_never_fails(data: bytes) -> None:
    assert sniff(data)


def test_text_named_wav_is_not_audio() -> None:
    with pytest.raises(NotAudio) as caught:
        read_audio(b"FINDINGS: none.", "r1")
    assert caught.value.detail == "this is text, whatever its name says"
    assert (caught.value.stage, caught.value.reason, caught.value.retryable) == ("load", "not_audio", False)


def test_empty_object_says_so() -> None:
    with pytest.raises(EmptyObject):
        read_audio(b"", "r1")


@pytest.mark.parametrize(
    ("head", "advice"),
    [
        (b"\x03ds2", "export it as WAV"),
        (b"\x03enc", "password"),
        (b"PK\x03\x04", "unpack it"),
    ],
)
def test_unsupported_containers_say_what_to_do(head: bytes, advice: str) -> None:
    with pytest.raises(UnsupportedContainer, match=advice) as caught:
        read_audio(head + bytes(100), "r1")
    assert caught.value.reason == "unsupported_container"
