"""Sound whose header tells how long it is: what a cut costs, in seconds, in VOC, AU and each coding of WAV."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dictalake.audio.formats.pcm_headers import split_pcm
from dictalake.audio.formats.tags import count_tag_bytes
from dictalake.audio.formats.voc_blocks import split_voc
from dictalake.audio.formats.wav_chunks import split_wav
from dictalake.records import CLOSED, Account
from tests.unit.audio.formats.archive_samples import encode
from tests.unit.audio.formats.made_files import TONE, make_little_endian_au, make_voc, with_ffmpeg


def cut_wav(subtype: str, average: int | None = None, block: int | None = None) -> Account:
    """The account of two seconds at 16 kHz of which the second half is missing."""
    data = bytearray(encode(TONE, 16_000, "WAV", subtype))
    if average is not None:
        data[28:32] = struct.pack("<I", average)
    if block is not None:
        data[32:34] = struct.pack("<H", block)
    at = data.index(b"data")
    (size,) = struct.unpack("<I", data[at + 4 : at + 8])
    (part,) = split_wav(bytes(data[: at + 8 + size // 2]))
    return part.account


@pytest.mark.parametrize("average", [None, 0, 1, 4_000_000_000], ids=str)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM", "GSM610"])
def test_a_cut_wav_counts_by_its_rate_whatever_average_it_announces(subtype: str, average: int | None) -> None:
    account = cut_wav(subtype, average)
    assert account.repairs == ("cut_end",)
    assert account.lost_s == pytest.approx(1.0, abs=0.03)


def test_pcm_without_a_block_size_counts_by_its_bits() -> None:
    assert cut_wav("PCM_16", 0, 0).lost_s == pytest.approx(1.0)


def make_wav(kind: int, average: int, sound: bytes, announced: int) -> bytes:
    fmt = struct.pack("<HHIIHH", kind, 1, 8_000, average, 1, 4)
    return b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", announced) + sound


def test_another_coding_counts_by_the_announced_average() -> None:
    assert split_wav(make_wav(0x45, 4_000, bytes(4_000), 8_000))[0].account == CLOSED.also("cut_end", lost_s=1.0)


@pytest.mark.parametrize("average", [0, 1, 100_000], ids=str)
def test_a_loss_that_nothing_tells_is_unknown(average: int) -> None:
    assert split_wav(make_wav(0x45, average, bytes(4_000), 8_000))[0].account == Account(None, ("cut_end",))


def test_mp3_inside_wav_is_taken_out_for_the_reader_of_frames() -> None:
    mp3 = encode(TONE, 16_000, "MP3")
    (part,) = split_wav(make_wav(0x55, 8_000, mp3, len(mp3)))
    assert (part.container, part.data, part.account) == ("mp3", mp3, CLOSED)


def test_mp3_frames_that_announce_their_length_are_not_counted_twice() -> None:
    mp3 = with_ffmpeg("mp3", "libmp3lame")
    assert b"Info" in mp3[:400] or b"Xing" in mp3[:400]
    start = mp3.index(b"\xff", 10)
    (part,) = split_wav(make_wav(0x55, 8_000, mp3[start : start + 4_000], 8_000))
    assert part.account == CLOSED.also("cut_end")


def test_a_whole_voc_closes() -> None:
    data = make_voc()
    assert split_voc(data)[0].account == CLOSED
    assert split_voc(data)[0].data == data


def test_a_cut_voc_tells_its_seconds() -> None:
    data = make_voc()
    assert split_voc(data[: len(data) // 2])[0].account.repairs == ("cut_end",)
    assert split_voc(data[: len(data) // 2])[0].account.lost_s == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("before", "rate_s"),
    [(b"", 1_000_000 / 156), (b"\x08\x04\0\0" + struct.pack("<HBB", 65536 - 32_000, 0, 0), 8_000)],
    ids=["block 1", "block 8 before block 1"],
)
def test_a_cut_voc_of_the_first_version_tells_its_seconds(before: bytes, rate_s: float) -> None:
    head = struct.pack("<19sBHHH", b"Creative Voice File", 0x1A, 26, 0x010A, 0x1129)
    block = b"\x01" + (2 + 20_000).to_bytes(3, "little") + bytes([100, 0])
    (part,) = split_voc(head + before + block + bytes(12_000))
    assert part.account.lost_s == pytest.approx(8_000 / rate_s)


def test_a_voc_without_its_end_mark_is_told() -> None:
    assert split_voc(make_voc()[:-1])[0].account == CLOSED.also("header_open")


def test_letters_of_a_header_in_samples_begin_no_second_au() -> None:
    data = bytearray(make_little_endian_au())
    data[5_000:5_004] = b"dns."
    data[9_000:9_004] = b".snd"
    assert [part.data for part in split_pcm(bytes(data), "au")] == [bytes(data)]


def test_little_endian_au_files_in_a_row_are_told_apart() -> None:
    data = make_little_endian_au()
    assert [part.data for part in split_pcm(data + data, "au")] == [data, data]


def make_ape(version: int, flags: int, items: bytes) -> bytes:
    return b"APETAGEX" + struct.pack("<4I", version, 32 + len(items), 1, flags) + bytes(8)


ITEMS = struct.pack("<II", 11, 0) + b"Title\0" + b"TAG of a day"
LYRICS = b"LYRICSBEGIN" + b"la la TAG la" * 20


@pytest.mark.parametrize(
    "tag",
    [
        ITEMS + make_ape(1000, 0, ITEMS),
        ITEMS + make_ape(2000, 0, ITEMS),
        make_ape(2000, 0xA000_0000, ITEMS) + ITEMS + make_ape(2000, 0x8000_0000, ITEMS),
        LYRICS + b"LYRICSEND",
        LYRICS + b"000251LYRICS200",
        ITEMS + make_ape(1000, 0, ITEMS) + b"TAG" + bytes(125),
        LYRICS + b"LYRICSEND" + b"TAG" + bytes(125),
    ],
    ids=["ape 1", "ape 2 footer", "ape 2", "lyrics 1", "lyrics 2", "ape 1 and id3 1", "lyrics 1 and id3 1"],
)
def test_every_byte_of_a_tag_counts(tag: bytes) -> None:
    sound = np.random.default_rng(1).integers(128, 255, 500, dtype=np.uint8).tobytes()
    data = sound + tag
    assert count_tag_bytes(data, 500, len(data)) == len(tag)
    assert count_tag_bytes(data, 0, len(data)) == len(tag)


def test_a_tag_of_no_known_version_is_sound() -> None:
    assert count_tag_bytes(bytes(1_000) + make_ape(7, 0, bytes(900)), 0, 1_032) == 0
