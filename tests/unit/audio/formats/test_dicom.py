"""DICOM audio waveforms decode to exactly the samples that were stored; patients stay in the object."""

from __future__ import annotations

import hmac
import io
import subprocess
import sys
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dictalake.audio.formats.g711 import A_LAW, MU_LAW
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.formats.reader import DicomOptions
from dictalake.config.sections import Config, Limits
from dictalake.errors import ConfigError, CorruptAudio, NoAudio, NotAudio, TooLarge, TooLong, UnsupportedCodec
from dictalake.records import AudioFormat
from dictalake.workflow.stages.load import Load, hash_patient
from tests.unit.audio.formats.archive_samples import BASIC_VOICE, GENERAL_AUDIO, encode, make_dicom, make_group, make_tone

# pydicom warns about the malformed values that these tests write on purpose
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LITTLE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
RAMP_8 = np.arange(256, dtype=np.uint8)
RAMP_16 = np.linspace(0, 65_535, 600).astype(np.uint16)


@pytest.mark.parametrize("syntax", LITTLE)
@pytest.mark.parametrize(
    ("interpretation", "stored", "wanted", "codec", "bits"),
    [
        ("UB", RAMP_8, (RAMP_8.astype(float) - 128) / 128, "pcm_u8", 8),
        ("SB", RAMP_8, RAMP_8.view(np.int8).astype(float) / 128, "pcm_s8", 8),
        ("US", RAMP_16, (RAMP_16.astype(float) - 32768) / 32768, "pcm_u16", 16),
        ("SS", RAMP_16, RAMP_16.view(np.int16).astype(float) / 32768, "pcm_s16", 16),
        ("MB", RAMP_8, MU_LAW, "mu_law", 8),
        ("AB", RAMP_8, A_LAW, "a_law", 8),
    ],
)
def test_every_interpretation_is_read_exactly(
    syntax: str, interpretation: str, stored: np.ndarray, wanted: np.ndarray, codec: str, bits: int
) -> None:
    audio = read_audio(make_dicom(make_group(stored.tobytes(), interpretation, stored.size), syntax=syntax), "r1")
    assert audio.format == AudioFormat("dicom", codec, 8_000, 1, bits)
    assert audio.samples.dtype == np.float32
    np.testing.assert_array_equal(audio.samples, wanted.astype(np.float32)[None])


def test_mu_law_and_a_law_follow_the_recommendation() -> None:
    # ITU-T G.711 tables 2a and 1a: extreme, smallest and silent codes, on the 16-bit scale
    assert [round(float(MU_LAW[code]) * 32768) for code in (0x00, 0x80, 0x7F, 0xFF, 0x7E, 0xFE)] == [-32124, 32124, 0, 0, -8, 8]
    assert [round(float(A_LAW[code]) * 32768) for code in (0x2A, 0xAA, 0x55, 0xD5)] == [-32256, 32256, -8, 8]


def test_big_endian_words_are_swapped_right() -> None:
    stored = RAMP_16.view(np.int16)
    group = make_group(stored.astype(">i2").tobytes(), "SS", stored.size)
    audio = read_audio(make_dicom(group, syntax=ExplicitVRBigEndian), "r1")
    np.testing.assert_array_equal(audio.samples[0] * 32768, stored)


def test_big_endian_bytes_packed_in_words_are_unpacked() -> None:
    group = make_group(RAMP_8.view("<u2").astype(">u2").tobytes(), "UB", 256)
    group["WaveformData"].VR = "OW"
    audio = read_audio(make_dicom(group, syntax=ExplicitVRBigEndian), "r1")
    np.testing.assert_array_equal(audio.samples[0] * 128 + 128, RAMP_8)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_interleaved_channels_are_taken_apart(channels: int) -> None:
    stored = np.arange(channels * 40, dtype=np.int16).reshape(40, channels)
    audio = read_audio(make_dicom(make_group(stored.tobytes(), "SS", 40, channels), SOPClassUID=GENERAL_AUDIO), "r1")
    assert audio.format.channels == channels
    np.testing.assert_array_equal(audio.samples * 32768, stored.T)


def test_fewer_bits_stored_than_allocated_keep_their_level() -> None:
    definition = Dataset()
    definition.WaveformBitsStored = 12
    stored = np.array([0, 2048, 4095], dtype=np.uint16)
    audio = read_audio(make_dicom(make_group(stored.tobytes(), "US", 3, ChannelDefinitionSequence=[definition])), "r1")
    assert audio.samples.tolist() == [[-1.0, 0.0, 2047 / 2048]]
    wider = np.array([0, 2048, 40_000], dtype=np.uint16)  # uses more bits than it says: all of them count
    audio = read_audio(make_dicom(make_group(wider.tobytes(), "US", 3, ChannelDefinitionSequence=[definition])), "r1")
    assert audio.samples[0, 0] == -1.0
    assert audio.samples[0, 2] == np.float32((40_000 - 32_768) / 32_768)


def test_multiplex_groups_follow_each_other() -> None:
    first, second = make_group(bytes([0, 1, 2]), "UB", 3), make_group(bytes([3, 4]), "UB", 2)
    audio = read_audio(make_dicom(first, second), "r1")
    assert (audio.samples * 128 + 128).tolist() == [[0, 1, 2, 3, 4]]


def test_multiplex_groups_of_unlike_rates_are_refused() -> None:
    groups = make_group(bytes(4), "UB", 4), make_group(bytes(4), "UB", 4, SamplingFrequency="16000")
    with pytest.raises(UnsupportedCodec, match=r"unlike rates \(8000 Hz, 16000 Hz\)"):
        read_audio(make_dicom(*groups), "r1")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_object_without_preamble_is_read(syntax: str) -> None:
    audio = read_audio(make_dicom(make_group(bytes(RAMP_8), "UB", 256), syntax=syntax, preamble=False), "r1")
    np.testing.assert_array_equal(audio.samples[0] * 128 + 128, RAMP_8)


def test_only_allowed_attributes_come_out() -> None:
    data = make_dicom(
        make_group(bytes(8), "UB", 8),
        ContentDate="20260203",
        ContentTime="140506.25",
        TimezoneOffsetFromUTC="-0530",
        Manufacturer="Acme",
        ManufacturerModelName="Recorder 2",
        StationName="CANARY-ROOM",
    )
    audio = read_audio(data, "r1")
    assert audio.dicom == {
        "sop_class_uid": BASIC_VOICE,
        "sop_instance_uid": "1.2.3.4",
        "series_instance_uid": "1.2.3.1",
        "study_instance_uid": "1.2.3",
        "content_datetime": datetime(2026, 2, 3, 19, 35, 6, 250_000, tzinfo=UTC),
        "modality": "AU",
        "manufacturer": "Acme",
        "manufacturer_model_name": "Recorder 2",
    }


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({"ContentDate": "20260203", "ContentTime": "1405"}, datetime(2026, 2, 3, 14, 5, tzinfo=UTC)),
        ({"ContentDate": "20260203"}, datetime(2026, 2, 3, tzinfo=UTC)),
        ({"AcquisitionDateTime": "20260203140506+0200"}, datetime(2026, 2, 3, 12, 5, 6, tzinfo=UTC)),
        (
            {"AcquisitionDateTime": "20260203140506", "TimezoneOffsetFromUTC": "+0100"},
            datetime(2026, 2, 3, 13, 5, 6, tzinfo=UTC),
        ),
        ({"ContentDate": "20260230"}, None),
        ({"ContentDate": "yesterday"}, None),
        ({"ContentDate": "00010101", "TimezoneOffsetFromUTC": "+1400"}, None),
        ({}, None),
    ],
)
def test_content_time_is_in_utc(attributes: dict[str, str], wanted: datetime | None) -> None:
    audio = read_audio(make_dicom(make_group(bytes(8), "UB", 8), **attributes), "r1")
    assert audio.dicom is not None
    assert audio.dicom["content_datetime"] == wanted


def test_a_time_without_offset_is_of_the_configured_zone() -> None:
    def read(**attributes: str) -> object:
        data = make_dicom(make_group(bytes(8), "UB", 8), ContentDate="20260703", ContentTime="0105", **attributes)
        audio = read_audio(data, "r1", dicom=DicomOptions("Europe/Vienna"))
        return audio.dicom and audio.dicom["content_datetime"]

    assert read() == datetime(2026, 7, 2, 23, 5, tzinfo=UTC)
    assert read(TimezoneOffsetFromUTC="-0100") == datetime(2026, 7, 3, 2, 5, tzinfo=UTC)


def test_patient_attributes_come_out_only_where_they_are_asked_for() -> None:
    data = make_dicom(make_group(bytes(8), "UB", 8))
    assert read_audio(data, "r1").patient == {}
    asked = DicomOptions(patient_fields=("PatientID", "PatientName", "PatientBirthDate"))
    assert read_audio(data, "r1", dicom=asked).patient == {"PatientID": "CANARY-1", "PatientName": "CANARY^Mary"}


def test_patient_hashes_are_keyed_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICTALAKE_PATIENT_KEY", "key of the hospital")
    patient = {"PatientID": "CANARY-1", "PatientName": "CANARY-1"}
    hashes = hash_patient(patient)
    assert set(hashes) == {"patient_id_hash", "patient_name_hash"}
    assert hashes["patient_id_hash"] != hashes["patient_name_hash"]
    expected = hmac.new(b"key of the hospital", b"PatientID\nCANARY-1", "sha256").hexdigest()
    assert hash_patient(patient)["patient_id_hash"] == hashes["patient_id_hash"] == expected
    monkeypatch.setenv("DICTALAKE_PATIENT_KEY", "another key of the same")
    assert hash_patient(patient)["patient_id_hash"] != hashes["patient_id_hash"]


def test_patient_hashes_without_a_key_are_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DICTALAKE_PATIENT_KEY", raising=False)
    config = Config.model_validate({"archive": {"patient_fields": ["PatientID"]}})
    with pytest.raises(ConfigError, match=r"at least 16 bytes in the environment variable DICTALAKE_PATIENT_KEY"):
        Load(config)


def test_free_text_in_a_uid_does_not_come_out() -> None:
    audio = read_audio(make_dicom(make_group(bytes(8), "UB", 8), StudyInstanceUID="CANARY"), "r1")
    assert audio.dicom is not None
    assert audio.dicom["study_instance_uid"] is None


@pytest.mark.parametrize(
    ("data", "error", "detail"),
    [
        (make_dicom(WaveformSequence=None), NoAudio, r"no \(5400,0100\) WaveformSequence"),
        (make_dicom(), NoAudio, "has no item"),
        (make_dicom(make_group(b"", "UB", 0)), NoAudio, "without a single sample"),
        (make_dicom(make_group(bytes(8), "UB", 8), SOPClassUID="1.2.840.10008.5.1.4.1.1.9.1.1"), NotAudio, "12-lead ECG"),
        (make_dicom(make_group(bytes(8), "UB", 9)), CorruptAudio, "holds 8 bytes of the 9 announced"),
        (
            make_dicom(make_group(bytes(8), "UB", 8, WaveformData=None)),
            CorruptAudio,
            "WaveformData is missing in item 1",
        ),
        (
            make_dicom(make_group(bytes(8), "UB", 8, NumberOfWaveformChannels=None)),
            CorruptAudio,
            r"\(003A,0005\) NumberOfWaveformChannels in item 1 of WaveformSequence is missing",
        ),
        (make_dicom(make_group(bytes(8), "UB", 8, SamplingFrequency=None)), CorruptAudio, "SamplingFrequency is missing"),
        (make_dicom(make_group(bytes(8), "UB", 8, SamplingFrequency="500")), UnsupportedCodec, "500 Hz"),
        (
            make_dicom(make_group(bytes(8), "UB", 8, WaveformBitsAllocated=16)),
            UnsupportedCodec,
            "UB with 16 bits; allowed",
        ),
        (make_dicom(make_group(bytes(8), "UB", 8, WaveformSampleInterpretation="ZZ")), UnsupportedCodec, "ZZ with 8 bits"),
        (make_dicom(make_group(bytes(8), "UB", 2**31)), TooLong, "longer than the 6 hours"),
        (make_dicom(make_group(bytes(8), "UB", 8, NumberOfWaveformChannels=0)), CorruptAudio, "0 channels"),
    ],
)
def test_broken_objects_name_the_element(data: bytes, error: type[Exception], detail: str) -> None:
    with pytest.raises(error, match=detail) as caught:
        read_audio(data, "r1")
    assert "CANARY" not in str(caught.value)


def test_deflated_object_that_inflates_without_end_is_refused() -> None:
    limits = Limits.model_validate({"object_mb": 0.02})
    data = make_dicom(make_group(bytes(100_000), "UB", 100_000), syntax=DeflatedExplicitVRLittleEndian)
    assert len(data) < 2_000
    with pytest.raises(TooLarge, match=r"inflates to more than the 0.02 MB"):
        read_audio(data, "r1", limits)


def test_sequences_nested_without_end_are_corrupt() -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x00\x54\x00\x01SQ\x00\x00\xff\xff\xff\xff"
    head = make_dicom(WaveformSequence=None)
    data = head + b"\x00\x54\x00\x01SQ\x00\x00\xff\xff\xff\xff" + item * 5_000
    with pytest.raises((CorruptAudio, NoAudio)):
        read_audio(data, "r1")


def test_number_of_the_wrong_size_is_corrupt() -> None:
    data = make_dicom(make_group(bytes(8), "UB", 8))
    element = b"\x3a\x00\x10\x00UL"  # (003A,0010) NumberOfWaveformSamples: four bytes, here three
    broken = data.replace(element + b"\x04\x00", element + b"\x03\x00")
    with pytest.raises(CorruptAudio, match=r"cannot be parsed \(BytesLengthException\)"):
        read_audio(broken, "r1")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(
    ("interpretation", "bits", "codec"),
    [("SL", 32, "pcm_s32"), ("UL", 32, "pcm_u32"), ("SL", 24, "pcm_s24"), ("UL", 24, "pcm_u24"), ("SS", 24, "pcm_s24")],
)
def test_wide_samples_come_back(interpretation: str, bits: int, codec: str, syntax: str) -> None:
    wanted = np.array([-1.0, -0.5, 0.0, 0.25, 0.75])
    codes = np.round(wanted * 2 ** (bits - 1)).astype(np.int64) + (2 ** (bits - 1) if interpretation[0] == "U" else 0)
    order = "big" if syntax == ExplicitVRBigEndian else "little"
    payload = b"".join(int(code).to_bytes(bits // 8, order, signed=interpretation[0] == "S") for code in codes)
    group = make_group(payload, interpretation, 5, WaveformBitsAllocated=bits)
    audio = read_audio(make_dicom(group, syntax=syntax), "r1")
    assert audio.format == AudioFormat("dicom", codec, 8_000, 1, bits)
    np.testing.assert_allclose(audio.samples[0], wanted, atol=1e-6)


def test_groups_with_time_offsets_lie_where_they_say() -> None:
    first, second = make_group(b"\x90" * 8, "UB", 8), make_group(b"\xa0" * 8, "UB", 8)
    first.MultiplexGroupTimeOffset, second.MultiplexGroupTimeOffset = "500", "502"  # 2 ms are 16 frames
    samples = read_audio(make_dicom(first, second), "r1").samples
    np.testing.assert_array_equal(samples, [[0.125] * 8 + [0.0] * 8 + [0.25] * 8])


def test_groups_that_sound_together_are_channels() -> None:
    first, second = make_group(b"\x90" * 8, "UB", 8), make_group(b"\xa0" * 8, "UB", 8)
    first.MultiplexGroupTimeOffset, second.MultiplexGroupTimeOffset = "0", "0.5"
    audio = read_audio(make_dicom(first, second), "r1")
    np.testing.assert_array_equal(audio.samples, [[0.125] * 8 + [0.0] * 4, [0.0] * 4 + [0.25] * 8])
    assert audio.format.channels == 2
    unlike = make_group(b"\x90" * 8, "UB", 4, 2), make_group(b"\xa0" * 4, "UB", 4)
    assert read_audio(make_dicom(*unlike), "r1").samples.shape == (3, 4)


def test_padding_is_silence() -> None:
    group = make_group(b"\x90\xff\xff\x90", "UB", 4)
    group.add_new(0x5400100A, "OB", b"\xff\x00")
    np.testing.assert_array_equal(read_audio(make_dicom(group), "r1").samples, [[0.125, 0, 0, 0.125]])


@pytest.mark.parametrize(
    ("sensitivity", "baseline", "wanted"),
    [("1", "-144", 0.0), ("0.5", "-72", 0.0), ("1", "0", 0.125), ("", "-144", 0.125), ("0", "5", 0.125), ("1", "9e9", 0.125)],
)
def test_baseline_moves_the_zero_if_it_can_be_meant(sensitivity: str, baseline: str, wanted: float) -> None:
    """0x90 is 144. A zero far outside, an empty or an impossible sensitivity: the middle of the range stays silence."""
    definition = Dataset()
    definition.ChannelSensitivity, definition.ChannelBaseline = sensitivity, baseline
    group = make_group(b"\x90" * 4, "UB", 4, ChannelDefinitionSequence=[definition])
    np.testing.assert_array_equal(read_audio(make_dicom(group), "r1").samples, [[wanted] * 4])


def test_audio_file_in_an_encapsulated_document_is_read() -> None:
    wav = encode(make_tone(0.1), 16_000, "WAV")
    document = make_dicom(WaveformSequence=None, EncapsulatedDocument=wav + b"\0", EncapsulatedDocumentLength=len(wav))
    audio = read_audio(document, "r1")
    assert audio.format == AudioFormat("wav", "pcm_s16le", 16_000, 1, 16)
    assert audio.dicom is not None
    assert audio.dicom["study_instance_uid"] == "1.2.3"
    np.testing.assert_array_equal(audio.samples[0], make_tone(0.1)[:, 0].astype(np.float32))


def test_audio_file_in_a_private_element_is_read() -> None:
    item = Dataset()
    item.private_block(0x0099, "ACME", create=True).add_new(0x01, "OB", encode(make_tone(0.1), 16_000, "FLAC"))
    nested = Dataset()
    nested.private_block(0x0097, "ACME", create=True).add_new(0x01, "SQ", [item])
    audio = read_audio(make_dicom(WaveformSequence=None, more=nested), "r1")
    assert (audio.format.container, audio.samples.shape) == ("flac", (1, 1600))


def test_pdf_in_an_encapsulated_document_is_no_audio() -> None:
    with pytest.raises(NoAudio, match="carries no audio file"):
        read_audio(make_dicom(WaveformSequence=None, EncapsulatedDocument=b"%PDF-1.7 ...", EncapsulatedDocumentLength=12), "r1")


def test_truncated_object_is_corrupt() -> None:
    data = make_dicom(make_group(bytes(8_000), "UB", 8_000))
    with pytest.raises(CorruptAudio):
        read_audio(data[:-4_000], "r1")


def test_nothing_is_printed_about_malformed_values() -> None:
    data = make_dicom(
        make_group(bytes(8), "UB", 8),
        ContentDate="CANARY",
        Modality="canary ü CANARY too long for a code string",
        Manufacturer="x" * 99,
    )
    script = (
        "import sys; from dictalake.audio.formats.read_audio import read_audio\n"
        "print(read_audio(sys.stdin.buffer.read(), 'r1').dicom['content_datetime'])"
    )
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (b"None", b"")


def test_zlib_garbage_in_a_deflated_object_is_corrupt() -> None:
    data = make_dicom(make_group(bytes(100), "UB", 100), syntax=DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    for payload in (b"\xff" * 50, b"", zlib.compress(b"x" * 9)):
        with pytest.raises((CorruptAudio, NoAudio)):
            read_audio(data[:start] + payload, "r1")


def test_data_set_survives_reading_from_a_buffer_with_trailing_bytes() -> None:
    buffer = io.BytesIO(make_dicom(make_group(bytes(RAMP_8), "UB", 256)))
    audio = read_audio(buffer.getvalue() + bytes(2), "r1")
    assert audio.samples.shape == (1, 256)
