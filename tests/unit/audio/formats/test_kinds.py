"""Kinds of files beyond the common ones: recognised by their bytes, and read to the sound that was put in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import av
import numpy as np
import pytest

from dictalake.audio.formats.codecs import CODECS, OPEN_OPTIONS, check_codec, describe_codec
from dictalake.audio.formats.containers import CONTAINERS
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.formats.sniff import DEMUXERS, sniff
from dictalake.errors import CorruptAudio, NoAudio, TranscriptionError, UnsupportedCodec
from tests.unit.audio.formats.archive_samples import encode, make_tone, snr_db
from tests.unit.audio.formats.made_files import (
    INT16,
    TONE,
    make_bw64,
    make_ilbc,
    make_little_endian_au,
    make_nist,
    make_voc,
    move_ftyp,
    with_ffmpeg,
)
from tests.unit.audio.formats.test_formats import LOSSY as COMMON

TONE_8K = make_tone(2.0, 8_000)
EXACT: dict[str, tuple[Callable[[], bytes], str, str]] = {  # id → how it is made, container, codec
    "wavpack": (partial(with_ffmpeg, "wv", "wavpack", sample_format="s16p"), "wavpack", "wavpack"),
    "tta": (partial(with_ffmpeg, "tta", "tta", sample_format="s16"), "tta", "tta"),
    "voc": (make_voc, "voc", "pcm_s16le"),
    "nist": (make_nist, "nist", "pcm_s16le"),
    "ircam": (partial(encode, TONE, 16_000, "IRCAM", "PCM_16"), "ircam", "pcm_s16le"),
    "ircam-big": (partial(encode, TONE, 16_000, "IRCAM", "PCM_16", "BIG"), "ircam", "pcm_s16be"),
    "au-little": (make_little_endian_au, "au", "pcm_s16le"),
    "bw64": (make_bw64, "wav", "pcm_s16le"),
    "avi-pcm": (partial(with_ffmpeg, "avi", "pcm_s16le"), "avi", "pcm_s16le"),
    "mka-flac": (partial(with_ffmpeg, "matroska", "flac"), "matroska", "flac"),
    "mka-pcm": (partial(with_ffmpeg, "matroska", "pcm_s16le"), "matroska", "pcm_s16le"),
    "mov-pcm": (partial(with_ffmpeg, "mov", "pcm_s16le"), "mp4", "pcm_s16le"),
    "mov-without-ftyp": (lambda: move_ftyp(with_ffmpeg("mov", "pcm_s16le"), b"wide"), "mp4", "pcm_s16le"),
    "mp4-free-first": (lambda: move_ftyp(with_ffmpeg("mp4", "alac"), b"free"), "mp4", "alac"),
    "mp4-skip-first": (lambda: move_ftyp(with_ffmpeg("mp4", "alac"), b"skip"), "mp4", "alac"),
    "vob-pcm": (partial(with_ffmpeg, "vob", "pcm_dvd", 48_000), "mpegps", "pcm_dvd"),
    "mp4-flac": (partial(with_ffmpeg, "mp4", "flac"), "mp4", "flac"),
    "avi-with-pictures": (partial(with_ffmpeg, "avi", "pcm_s16le", video="mpeg4"), "avi", "pcm_s16le"),
}
LOSSY: dict[str, tuple[Callable[[], bytes], str, str, int, float]] = {  # … rate, least SNR in dB
    "nist-ulaw": (lambda: make_nist("ulaw", encode(TONE, 16_000, "RAW", "ULAW")), "nist", "pcm_mulaw", 16_000, 30),
    "ac3": (partial(with_ffmpeg, "ac3", "ac3", 48_000, 96_000), "ac3", "ac3", 48_000, 20),
    "ac3-44.1": (partial(with_ffmpeg, "ac3", "ac3", 44_100, 96_000), "ac3", "ac3", 44_100, 20),
    "eac3": (partial(with_ffmpeg, "eac3", "eac3", 48_000, 96_000), "eac3", "eac3", 48_000, 20),
    "ts-aac": (partial(with_ffmpeg, "mpegts", "aac", 16_000, 48_000), "mpegts", "aac", 16_000, 20),
    "ts-mp2": (partial(with_ffmpeg, "mpegts", "mp2", 16_000, 64_000), "mpegts", "mp3", 16_000, 20),  # all layers are one type
    "ts-pictures": (partial(with_ffmpeg, "mpegts", "aac", 16_000, 48_000, "mpeg2video"), "mpegts", "aac", 16_000, 20),
    "mpg-mp2": (partial(with_ffmpeg, "mpeg", "mp2", 16_000, 64_000), "mpegps", "mp2", 16_000, 20),
    "vob-ac3": (partial(with_ffmpeg, "vob", "ac3", 48_000, 96_000, "mpeg2video"), "mpegps", "ac3", 48_000, 20),
    "flv-mp3": (partial(with_ffmpeg, "flv", "libmp3lame", 22_050, 64_000), "flv", "mp3", 22_050, 20),
    "flv-aac": (partial(with_ffmpeg, "flv", "aac", 16_000, 48_000), "flv", "aac", 16_000, 20),
    "flv-nellymoser": (partial(with_ffmpeg, "flv", "nellymoser", 8_000), "flv", "nellymoser", 8_000, 10),
    "latm": (partial(with_ffmpeg, "latm", "aac", 16_000, 48_000), "latm", "aac_latm", 16_000, 20),
    "rm-ac3": (partial(with_ffmpeg, "rm", "ac3", 48_000, 96_000), "realmedia", "ac3", 48_000, 20),
    "3gp-aac": (partial(with_ffmpeg, "3gp", "aac", 16_000, 48_000), "mp4", "aac", 16_000, 20),
    "3gp-amr": (partial(with_ffmpeg, "3gp", "libopencore_amrnb", 8_000, 12_200), "mp4", "amr_nb", 8_000, 3),
    "mp4-pictures": (partial(with_ffmpeg, "mp4", "aac", 16_000, 48_000, "mpeg4"), "mp4", "aac", 16_000, 20),
    "mov-aac-without-ftyp": (
        lambda: move_ftyp(with_ffmpeg("mov", "aac", 16_000, 48_000), b"wide"),
        "mp4",
        "aac",
        16_000,
        20,
    ),
    "wav-g726": (partial(with_ffmpeg, "wav", "g726", 8_000, 32_000), "wav", "adpcm_g726", 8_000, 15),
    "wav-g722": (partial(with_ffmpeg, "wav", "g722"), "wav", "adpcm_g722", 16_000, 20),
    "wav-yamaha": (partial(with_ffmpeg, "wav", "adpcm_yamaha"), "wav", "adpcm_yamaha", 16_000, 20),
    "flv-adpcm": (partial(with_ffmpeg, "flv", "adpcm_swf", 22_050), "flv", "adpcm_swf", 22_050, 20),
    "mov-ima": (partial(with_ffmpeg, "mov", "adpcm_ima_qt"), "mp4", "adpcm_ima_qt", 16_000, 20),
    "mov-mulaw": (partial(with_ffmpeg, "mov", "pcm_mulaw", 8_000), "mp4", "pcm_mulaw", 8_000, 30),
    "ts-opus": (partial(with_ffmpeg, "mpegts", "libopus", 48_000, 64_000), "mpegts", "opus", 48_000, 20),
    "ra-144": (partial(with_ffmpeg, "rm", "real_144", 8_000), "realmedia", "ra_144", 8_000, 10),
    "au-g723-40": (partial(encode, TONE_8K, 8_000, "AU", "G723_40"), "au", "g723_40", 8_000, 20),
    "wav-nms-16": (partial(encode, TONE_8K, 8_000, "WAV", "NMS_ADPCM_16"), "wav", "nms_adpcm_16", 8_000, 10),
    "wav-nms-24": (partial(encode, TONE_8K, 8_000, "WAV", "NMS_ADPCM_24"), "wav", "nms_adpcm_24", 8_000, 20),
    "wav-nms-32": (partial(encode, TONE_8K, 8_000, "WAV", "NMS_ADPCM_32"), "wav", "nms_adpcm_32", 8_000, 20),
    "aiff-gsm": (partial(encode, TONE_8K, 8_000, "AIFF", "GSM610"), "aiff", "gsm", 8_000, 10),
    "avi-mp3": (partial(with_ffmpeg, "avi", "libmp3lame", 16_000, 64_000), "avi", "mp3", 16_000, 20),
    "mka-ac3": (partial(with_ffmpeg, "matroska", "ac3", 48_000, 96_000), "matroska", "ac3", 48_000, 20),
}
DECODERS = [(name, decoder) for name, codec in CODECS.items() for decoder in codec.decoders]


@pytest.mark.parametrize("name", EXACT)
def test_lossless_kinds_give_back_every_sample(name: str) -> None:
    make, container, codec = EXACT[name]
    audio = read_audio(make(), "r1")
    assert (audio.format.container, audio.format.codec) == (container, codec)
    made = INT16 if audio.format.sample_rate_hz == 16_000 else np.rint(make_tone(2.0, 48_000)[:, 0] * 32768)
    np.testing.assert_array_equal(np.rint(audio.samples[0] * 32768), made)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_kinds_give_back_the_sound(name: str) -> None:
    make, container, codec, rate_hz, least_snr_db = LOSSY[name]
    audio = read_audio(make(), "r1")
    assert (audio.format.container, audio.format.codec, audio.format.sample_rate_hz) == (container, codec, rate_hz)
    assert audio.samples.shape[1] / rate_hz == pytest.approx(2.0, abs=0.15)
    assert snr_db(make_tone(2.0, rate_hz)[:, 0], audio.samples[0]) > least_snr_db


def test_ilbc_is_read_to_its_length() -> None:
    audio = read_audio(make_ilbc(), "r1")
    assert (audio.format.container, audio.format.codec) == ("ilbc", "ilbc")
    assert audio.samples.shape[1] == 50 * 240


def test_every_demuxer_is_one_that_ffmpeg_has() -> None:
    for name, demuxer in DEMUXERS.items():
        assert av.ContainerFormat(demuxer, "r").is_input, name


@pytest.mark.parametrize(("name", "decoder"), DECODERS, ids=lambda value: value)
def test_every_decoder_decodes_the_codec_that_it_stands_for_and_no_pictures(name: str, decoder: str) -> None:
    found = av.codec.Codec(decoder, "r")
    assert (found.type, found.canonical_name) == ("audio", name)


def test_the_list_of_decoders_is_what_ffmpeg_is_given() -> None:
    assert OPEN_OPTIONS["codec_whitelist"].split(",") == [decoder for _, decoder in DECODERS]
    assert len(CODECS) < 80  # speech, and what people keep speech in


def test_ffmpegs_own_probing_opens_no_decoder_that_is_not_listed() -> None:
    """Without the list it decodes the first pictures to learn their format."""
    import io

    film = with_ffmpeg("mpegts", "aac", 16_000, 48_000, video="mpeg2video")
    widths = []
    for options in ({}, OPEN_OPTIONS):
        with av.open(io.BytesIO(film), format="mpegts", options=options) as file:
            widths.append(file.streams.video[0].codec_context.pix_fmt)
    assert widths == ["yuv420p", None]


def test_a_codec_outside_the_list_is_refused_by_its_name() -> None:
    check_codec("r1", "opus")
    with pytest.raises(UnsupportedCodec, match="atrac3"):
        check_codec("r1", "atrac3")


@pytest.mark.parametrize(("tag", "name"), [(0x0270, "atrac3"), (0x2001, "dts"), (0x1234, "0x1234")])
def test_a_wav_with_a_codec_outside_the_list_is_refused_by_its_name(tag: int, name: str) -> None:
    data = bytearray(encode(TONE, 16_000, "WAV"))
    data[20:22] = tag.to_bytes(2, "little")
    with pytest.raises(UnsupportedCodec, match=name):
        read_audio(bytes(data), "r1")


def test_a_wav_of_64_bit_numbers_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(UnsupportedCodec, match="pcm_s64le"):
        read_audio(with_ffmpeg("wav", "pcm_s64le"), "r1")


@pytest.mark.parametrize(
    ("make", "old", "new", "name"),
    [
        (partial(with_ffmpeg, "mp4", "alac"), b"alac", b"zzzz", "zzzz"),
        (partial(with_ffmpeg, "matroska", "flac"), b"A_FLAC", b"A_ZZZZ", "A_ZZZZ"),
        (partial(with_ffmpeg, "asf", "wmav2", 16_000, 48_000), b"\x61\x01\x01\x00", b"\x34\x12\x01\x00", "0x1234"),
        (partial(with_ffmpeg, "avi", "pcm_s16le"), b"\x01\x00\x01\x00\x80\x3e", b"\x34\x12\x01\x00\x80\x3e", "0x1234"),
    ],
    ids=["mp4", "matroska", "asf", "avi"],
)
def test_a_codec_that_ffmpeg_does_not_know_is_named_as_the_file_names_it(
    make: Callable[[], bytes], old: bytes, new: bytes, name: str
) -> None:
    data = make()
    assert old in data
    with pytest.raises(UnsupportedCodec, match=name):
        read_audio(data.replace(old, new), "r1")


def test_a_file_that_does_not_name_its_codec_gets_a_plain_word() -> None:
    assert describe_codec(b"", "wav") == describe_codec(b"", "tta") == "the coding"


@pytest.mark.parametrize(("muxer", "video"), [("mp4", "mpeg4"), ("avi", "mpeg4"), ("matroska", "mpeg4"), ("flv", "flv")])
def test_a_film_without_sound_has_no_audio(muxer: str, video: str) -> None:
    with pytest.raises(NoAudio, match="no sound track"):
        read_audio(with_ffmpeg(muxer, "", video=video), "r1")


def test_a_container_in_which_nothing_is_found_is_corrupt_not_silent() -> None:
    film = with_ffmpeg("matroska", "flac")
    with pytest.raises(CorruptAudio):
        read_audio(film[:40] + bytes(2000), "r1")


@pytest.mark.parametrize("name", [*EXACT, *LOSSY])
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_cut_files_give_a_part_or_a_reason(name: str, cut: float) -> None:
    make = {**EXACT, **LOSSY}[name][0]
    data = make()
    try:
        samples = read_audio(data[: int(cut * len(data))], "r1").samples
    except TranscriptionError as error:
        assert error.reason in ("corrupt_audio", "no_audio", "unsupported_codec")  # noqa: PT017
    else:
        assert samples.shape[1] > 0


def test_what_the_table_calls_proven_is_proven() -> None:
    """``exact`` and ``close`` are the rows of this file and of test_formats.py; headerless.py reads gsm and adpcm_ima_oki."""
    lossless = {codec for _, _, codec in EXACT.values()} | {"pcm_s16be"}
    lossless |= {f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")}
    lossy = {codec for _, _, codec, *_ in (*LOSSY.values(), *COMMON.values())} | {"gsm", "adpcm_ima_oki"}
    assert {name for name, codec in CODECS.items() if codec.proof == "exact"} == lossless
    assert {name for name, codec in CODECS.items() if codec.proof == "close"} == lossy - lossless
    assert {name for name, codec in CODECS.items() if codec.proof == "length"} == {"truespeech", "dss_sp", "ilbc"}


def test_a_transport_stream_with_a_track_of_unknown_kind_may_hold_sound() -> None:
    with pytest.raises(UnsupportedCodec, match="known to be sound"):
        read_audio(with_ffmpeg("mpegts", "pcm_bluray", 48_000), "r1")


def test_every_container_has_a_sample_here_or_in_the_common_kinds() -> None:
    made = {sniff(make()) for make, *_ in {**EXACT, **LOSSY}.values()} | {"ilbc"}
    common = {"w64", "flac", "mp3", "aac", "ogg", "aiff", "caf", "asf", "amr", "dss"}
    assert CONTAINERS.keys() - made - common == {"ape"}  # no encoder for Monkey's Audio here
