"""Objects made to be slow to look at are given up after a while, and say so; short ones raise nothing but what is typed."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dictalake.audio.formats import amr_frames, magic, ogg_pages, pcm_headers, signatures, tags, wav_chunks
from dictalake.audio.formats.parts import Part
from dictalake.audio.formats.sniff import find_start, sniff
from dictalake.records import CLOSED
from tests.unit.audio.formats.archive_samples import encode, make_tone
from tests.unit.audio.formats.made_files import TONE, make_boxes, with_ffmpeg

CAF_HEAD = b"caff\0\1\0\0desc" + struct.pack(">qd4sIIIII", 32, 16_000.0, b"lpcm", 0, 2, 1, 1, 16)
W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
PREFIXES = [prefix for prefix, _ in magic._PREFIXES] + [prefix for prefix, *_ in magic._FIELDS] + list(magic.NEEDLES)
PREFIXES += [b"RIFF\0\0\0\0" + kind for kind in magic._RIFF] + [b"\0\0\0\x08" + kind for kind in magic._BOXES]
PREFIXES += [b"\2\0\0\0", b"\x08\0\5\0", b"NIST_1A\n", CAF_HEAD, b"FORM\0\0\0\0AIFF", b"ID3\4\0\0\0\0\0\1", b"APETAGEX", b"TAG"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("fill", [0, 1, 0x20, 0xFF])
def test_no_length_of_a_head_is_too_short_for_a_magic_number(strict: bool, fill: int) -> None:
    for prefix in PREFIXES:
        for length in range(41):
            for head in (prefix[:length], prefix.ljust(length, bytes([fill]))[: max(length, len(prefix))]):
                magic.sniff_magic(head, strict)
                sniff(head)
                find_start(head)


def test_a_font_of_five_bytes_is_no_font() -> None:
    assert magic.sniff_magic(b"\0\1\0\0\0") is None
    assert magic.sniff_magic(b"\0\1\0\0\0\x10\1\0\0\4\0\0OS/2") == "font"


def test_a_caf_of_countless_chunks_is_not_walked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcm_headers, "_MOST_CHUNKS", 10)
    (part,) = pcm_headers.split_pcm(CAF_HEAD + bytes(12_000), "caf")
    assert len(part.data) == len(CAF_HEAD) + 9 * 12


def test_an_aiff_of_countless_chunks_is_not_walked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcm_headers, "_MOST_CHUNKS", 10)
    (part,) = pcm_headers.split_pcm(b"FORM\0\0\0\0AIFF" + b"ANNO\0\0\0\0" * 1_000, "aiff")
    assert len(part.data) == 12 + 10 * 8


def test_boxes_behind_the_most_that_are_looked_at_are_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "_MOST_BOXES", 10)
    data = make_boxes((b"ftyp", b"M4A \0\0\0\0"), *[(b"free", b"")] * 1_000)
    assert signatures.split_at_signatures(data, "mp4") == [Part(data[: 16 + 9 * 8], unread=991 * 8)]


def test_files_behind_the_most_that_are_looked_at_are_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "_MOST_FILES", 3)
    data = with_ffmpeg("matroska", "libopus", 48_000)
    assert signatures.split_at_signatures(5 * data, "matroska") == [Part(data), Part(data), Part(data, unread=2 * len(data))]


def test_chunks_of_wav_behind_the_most_that_are_looked_at_are_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav_chunks, "_MOST_CHUNKS", 12)  # the file, its format, and ten of its sound
    data = encode(TONE, 16_000, "WAV")
    chunks = [b"data" + struct.pack("<I", 200) + data[at : at + 200] for at in range(44, 4_044, 200)]
    (part,) = wav_chunks.split_wav(data[:36] + b"".join(chunks))
    assert (part.data[44:], part.unread, part.is_whole) == (data[44:2_044], 10 * 208, False)


def test_files_of_wav_behind_the_most_that_are_looked_at_are_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav_chunks, "_MOST_FILES", 3)
    for container in ("WAV", "W64"):
        data = encode(make_tone(0.1), 16_000, container)
        parts = wav_chunks.split_wav(5 * data)
        assert [part.unread for part in parts] == [0, 0, 2 * len(data)]
        assert [part.is_whole for part in parts] == [True, True, False]


def test_wave64_files_in_a_row_keep_their_samples() -> None:
    first, second = (encode(make_tone(length_s), 16_000, "W64") for length_s in (0.1, 0.2))
    sounds = [part.data[44:] for part in wav_chunks.split_wav(first + second)]
    assert sounds == [encode(make_tone(length_s), 16_000, "WAV")[44:] for length_s in (0.1, 0.2)]


def test_headers_of_wave64_alone_are_no_file() -> None:
    header = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" + bytes(8) + b"wave" + W64_TAIL
    assert wav_chunks.split_wav(header * 20_000) == []


def test_checksums_of_ogg_are_taken_of_no_more_than_a_few_times_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def count(page: bytes) -> bytes:
        nonlocal taken
        taken += len(page)
        return bytes(4)

    monkeypatch.setattr(ogg_pages, "_compute_crc", count)
    data = (b"OggS" + bytes(18) + b"\1\1\1\1\xff" + b"\xff" * 5) * 50_000
    assert ogg_pages.split_ogg(data) == []
    assert taken <= 3 * len(data)


def test_an_ogg_of_more_pages_than_a_day_has_is_left_to_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(TONE, 16_000, "OGG", "VORBIS")
    assert len(ogg_pages.split_ogg(data)) == 1
    monkeypatch.setattr(ogg_pages, "_MOST_PAGES", 2)
    assert ogg_pages.split_ogg(data) == []


def test_lyrics_that_never_end_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = 0

    class Counting:
        def search(self, data: bytes, start: int, end: int) -> None:
            nonlocal searched
            searched += max(min(end, len(data)) - start, 0)

    monkeypatch.setattr(tags, "_LYRICS_END", Counting())
    data = b"LYRICSBEGIN" * 20_000
    assert tags.count_tag_bytes(data, 0, len(data)) == len(data)
    assert searched <= 3 * len(data)


def test_a_plain_object_is_left_whole() -> None:
    data = np.random.default_rng(3).bytes(1_000)
    assert signatures.split_at_signatures(data, "mp4") == [Part(data, CLOSED)]


def test_amr_behind_the_most_damages_that_are_looked_at_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amr_frames, "_MOST_DAMAGES", 2)
    frames = (b"\x3c" + bytes(31)) * 5
    (part,) = amr_frames.split_amr(b"#!AMR\n" + frames + (b"\xff" * 32 + frames) * 4)
    assert part.account.repairs == ("damaged",)
    assert part.account.lost_s == pytest.approx(0.02 * (2 + 1 + 5 + 6))


def test_amr_behind_the_most_files_that_are_looked_at_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amr_frames, "_MOST_FILES", 2)
    file = b"#!AMR\n" + (b"\x3c" + bytes(31)) * 5
    assert [part.account.repairs for part in amr_frames.split_amr(3 * file)] == [(), ("damaged",)]


def test_tags_behind_the_most_that_are_looked_at_are_missing_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "_MOST_TAGS", 3)
    id3, ape = b"TAG" + bytes(125), b"APETAGEX" + struct.pack("<4I", 1000, 32, 0, 0) + bytes(8)
    assert tags.count_tag_bytes(5 * id3, 0, 5 * 128) == 3 * 128
    assert tags.count_tag_bytes(5 * ape, 0, 5 * 32) == 3 * 32
