"""Headerless sound is read as the user says, never guessed, and named by its ending where nobody said anything."""

from __future__ import annotations

import av
import numpy as np
import pytest

from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.load import AudioLoader
from dictalake.config.headerless import USUAL, Headerless
from dictalake.config.sections import Archive, Config, Limits
from dictalake.errors import CorruptAudio, NoAudio, NotAudio, TooLong, TooManyChannels, UnsupportedContainer
from dictalake.records import Account, AudioFormat, Recording
from tests.unit.audio.formats.archive_samples import encode, make_tone, snr_db

TONE = make_tone(2.0, 8_000)
INT16 = np.rint(TONE[:, 0] * 32768)


def g722() -> bytes:
    encoder = av.CodecContext.create("g722", "w")
    encoder.sample_rate, encoder.format, encoder.layout = 16_000, "s16", "mono"
    samples = np.rint(make_tone(2.0)[:, 0] * 32768).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = 16_000
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def entry(codec: str, rate_hz: int = 8_000, channels: int = 1) -> Headerless:
    return Headerless.model_validate({"codec": codec, "rate_hz": rate_hz, "channels": channels})


@pytest.mark.parametrize(
    ("codec", "data", "stored", "least_snr_db"),
    [
        ("mu_law", encode(TONE, 8_000, "RAW", "ULAW"), AudioFormat("headerless", "pcm_mulaw", 8_000, 1, 8), 30),
        ("a_law", encode(TONE, 8_000, "RAW", "ALAW"), AudioFormat("headerless", "pcm_alaw", 8_000, 1, 8), 30),
        ("pcm_s16le", encode(TONE, 8_000, "RAW", "PCM_16", "LITTLE"), AudioFormat("headerless", "pcm_s16le", 8_000, 1, 16), 90),
        ("pcm_s16be", encode(TONE, 8_000, "RAW", "PCM_16", "BIG"), AudioFormat("headerless", "pcm_s16be", 8_000, 1, 16), 90),
        ("pcm_u8", encode(TONE, 8_000, "RAW", "PCM_U8"), AudioFormat("headerless", "pcm_u8", 8_000, 1, 8), 35),
        ("pcm_s8", encode(TONE, 8_000, "RAW", "PCM_S8"), AudioFormat("headerless", "pcm_s8", 8_000, 1, 8), 35),
        ("gsm", encode(TONE, 8_000, "RAW", "GSM610"), AudioFormat("headerless", "gsm", 8_000, 1), 10),
        ("vox", encode(TONE, 8_000, "RAW", "VOX_ADPCM"), AudioFormat("vox", "adpcm_ima_oki", 8_000, 1, 4), 20),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_coding_is_read_at_the_rate_it_is_said_to_have(
    codec: str, data: bytes, stored: AudioFormat, least_snr_db: float
) -> None:
    audio = read_audio(data, "r1", headerless=entry(codec))
    assert audio.format == stored
    assert audio.account == Account()
    assert audio.samples.shape[1] == pytest.approx(16_000, abs=170)
    assert snr_db(TONE[:, 0], audio.samples[0]) > least_snr_db


def test_g722_has_16_khz() -> None:
    audio = read_audio(g722(), "r1", headerless=entry("g722", 16_000))
    assert audio.format == AudioFormat("headerless", "adpcm_g722", 16_000, 1)
    assert audio.samples.shape == (1, 32_000)
    assert snr_db(make_tone(2.0)[:, 0], audio.samples[0]) > 20


def test_channels_take_turns() -> None:
    both = make_tone(1.0, 8_000, channels=2)
    audio = read_audio(encode(both, 8_000, "RAW", "PCM_16", "LITTLE"), "r1", headerless=entry("pcm_s16le", channels=2))
    np.testing.assert_allclose(audio.samples, both.T, atol=1e-6)


def test_long_files_are_read_in_blocks_without_a_seam() -> None:
    noise = np.random.default_rng(0).integers(-2000, 2000, 700_001).astype("<i2")
    audio = read_audio(b"\1\0" + noise.tobytes(), "r1", headerless=entry("pcm_s16le"))
    np.testing.assert_array_equal(audio.samples[0, 1:] * 2**15, noise)


@pytest.mark.parametrize(("codec", "rest"), [("pcm_s16le", 1), ("gsm", 17)])
def test_bytes_behind_the_last_whole_sample_are_told(codec: str, rest: int) -> None:
    subtype = {"pcm_s16le": "PCM_16", "gsm": "GSM610"}[codec]
    data = encode(TONE, 8_000, "RAW", subtype) + bytes(rest)
    assert read_audio(data, "r1", headerless=entry(codec)).account == Account(0.0, ("trailing_bytes",))


def test_a_damaged_gsm_frame_is_silence_of_its_length_and_lost() -> None:
    data = bytearray(encode(TONE, 8_000, "RAW", "GSM610"))
    data[33 * 40] = data[33 * 41] = 0x11
    audio = read_audio(bytes(data), "r1", headerless=entry("gsm"))
    assert audio.account == Account(0.04, ("damaged",), 0.04)
    assert audio.samples.shape[1] == len(data) // 33 * 160
    assert not audio.samples[0, 40 * 160 : 42 * 160].any()
    assert audio.samples[0, 43 * 160 : 80 * 160].std() > 0.2


def test_gsm_of_which_too_much_is_damaged_is_refused() -> None:
    data = bytearray(encode(TONE, 8_000, "RAW", "GSM610"))
    data[33 * 40 : 33 * 60 : 33] = bytes([0x11] * 20)
    assert read_audio(bytes(data), "r1", Limits(lost_ratio=0.3), headerless=entry("gsm")).account.broken_s == 0.4  # type: ignore[call-arg]
    with pytest.raises(CorruptAudio, match="lost_ratio"):
        read_audio(bytes(data), "r1", headerless=entry("gsm"))


def test_bytes_that_are_no_gsm_are_not_read_as_gsm() -> None:
    with pytest.raises(CorruptAudio, match=r"GSM 06\.10"):
        read_audio(encode(TONE, 8_000, "RAW", "ULAW"), "r1", headerless=entry("gsm"))


def test_limits_hold() -> None:
    limits = Limits(duration_h=0.0005, channels=2)  # type: ignore[call-arg]
    data = encode(TONE, 8_000, "RAW", "ULAW")
    with pytest.raises(TooLong):
        read_audio(data, "r1", limits, headerless=entry("mu_law"))
    with pytest.raises(TooManyChannels):
        read_audio(data, "r1", limits, headerless=entry("mu_law", channels=4))
    with pytest.raises(NoAudio):
        read_audio(b"\x80", "r1", limits, headerless=entry("pcm_s16le"))


def test_a_file_of_a_known_format_goes_by_its_content() -> None:
    assert read_audio(encode(TONE, 8_000, "WAV"), "r1", ending="ul", headerless=entry("mu_law")).format.container == "wav"
    with pytest.raises(UnsupportedContainer, match="DS2"):
        read_audio(b"\x03ds2" + bytes(100), "r1", headerless=entry("mu_law"))
    for data in (b"%PDF-1.7\n", b"<html><body>404</body></html>", b"The recording was not found on this server." * 9):
        with pytest.raises(NotAudio):
            read_audio(data, "r1", ending="ul", headerless=entry("mu_law"))


def test_coded_silence_that_is_the_letter_u_is_no_text() -> None:
    audio = read_audio(b"U" * 8_000, "r1", headerless=entry("a_law"))  # 0x55: the least negative value of A-law
    assert np.abs(audio.samples).max() < 0.001
    mixed = read_audio(b"U" * 2_000 + encode(TONE, 8_000, "RAW", "ALAW"), "r1", headerless=entry("a_law"))
    assert mixed.samples.shape[1] == 18_000


@pytest.mark.parametrize("ending", USUAL)
def test_without_an_entry_the_name_says_what_it_may_be_and_which_key_to_set(ending: str) -> None:
    with pytest.raises(UnsupportedContainer, match=rf"headerless .*archive\.headerless to {{{ending}: {{") as caught:
        read_audio(encode(TONE, 8_000, "RAW", "ULAW"), "r1", ending=ending)
    assert USUAL[ending].title in caught.value.detail
    advice = caught.value.detail.partition("archive.headerless to ")[2].partition(", or what")[0]
    import yaml

    assert Archive(headerless=yaml.safe_load(advice)).find_headerless(ending) is not None  # type: ignore[call-arg]


def test_unknown_bytes_of_another_ending_are_not_audio() -> None:
    with pytest.raises(NotAudio, match="no format that is known"):
        read_audio(encode(TONE, 8_000, "RAW", "ULAW"), "r1", ending="bin")


def load(uri: str, data: bytes, **archive: object) -> AudioFormat:
    config = Config.model_validate({"archive": archive, "quality": {"vad": "none"}})
    stored = AudioLoader(config).load(data, Recording("r1", uri, "1", len(data))).format
    return AudioFormat(**{key: value for key, value in stored.items() if key != "tracks"})


@pytest.mark.parametrize("uri", ["gs://bucket/a.UL", "gs://bucket/week.zip#in/a.ul", "/data/a.b.ul"])
def test_the_loader_goes_by_the_ending_of_the_name(uri: str) -> None:
    data = encode(TONE, 8_000, "RAW", "ULAW")
    assert load(uri, data, headerless=["ul"]) == AudioFormat("headerless", "pcm_mulaw", 8_000, 1, 8)
    assert load(uri, data, headerless={"ul": {"codec": "a_law"}}).codec == "pcm_alaw"
    with pytest.raises(UnsupportedContainer):
        load(uri, data)


def test_the_rate_of_vox_may_be_given_either_way() -> None:
    data = encode(TONE, 8_000, "RAW", "VOX_ADPCM")
    stored = AudioFormat("vox", "adpcm_ima_oki", 6_000, 1, 4)
    assert load("a.vox", data, vox_rate_hz=6_000) == stored
    assert load("a.vox", data, headerless={"vox": {"rate_hz": 6_000}}) == stored
    assert load("a.vox", data, headerless={"vox": {"rate_hz": 6_000}}, vox_rate_hz=8_000) == stored
