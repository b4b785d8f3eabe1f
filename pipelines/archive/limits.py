"""What one recording may hold. Headers are claims: a few bytes may announce, or inflate to, more than a machine has."""

from __future__ import annotations

from pipelines.errors import CorruptAudio, NoAudio, TooLong, UnsupportedCodec
from pipelines.records import SAMPLE_RATE_HZ

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 384_000
MAX_CHANNELS = 64
# Over all channels, as stored and at 16 kHz: 18 h of one channel at 16 kHz, 3 h of two at 48 kHz; 4 GiB of float32.
MAX_SAMPLES = 2**30


def check_format(recording_id: str, sample_rate_hz: int, channels: int) -> None:
    """Raises CorruptAudio or UnsupportedCodec for a rate or channel count that no speech has."""
    if channels < 1 or sample_rate_hz < 1:
        raise CorruptAudio(recording_id, f"the header announces {channels} channels at {sample_rate_hz} Hz")
    if not MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:
        raise UnsupportedCodec(
            recording_id, f"the sampling rate is {sample_rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz can be read: convert it"
        )
    if channels > MAX_CHANNELS:
        raise UnsupportedCodec(recording_id, f"it has {channels} channels; at most {MAX_CHANNELS} can be read: split it")


def check_length(recording_id: str, frames: int, sample_rate_hz: int, channels: int) -> None:
    """Raises TooLong when ``frames`` samples of each channel are more than MAX_SAMPLES, stored or at 16 kHz."""
    if frames * channels * max(sample_rate_hz, SAMPLE_RATE_HZ) > MAX_SAMPLES * sample_rate_hz:
        longest_h = MAX_SAMPLES / channels / max(sample_rate_hz, SAMPLE_RATE_HZ) / 3600
        raise TooLong(
            recording_id,
            f"{channels} channels at {sample_rate_hz} Hz may be at most {longest_h:.1f} h long; split the recording",
        )


def check_not_empty(recording_id: str, frames: int) -> None:
    """Raises NoAudio for a container without a single sample."""
    if frames == 0:
        raise NoAudio(
            recording_id, "it is a sound object without a single sample; the recorder stopped before anything was written"
        )
