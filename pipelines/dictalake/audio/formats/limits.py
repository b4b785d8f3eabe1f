"""What one recording may hold. Headers are claims: a few bytes may announce, or inflate to, more than a machine has."""

from __future__ import annotations

from dictalake.config.sections import Limits
from dictalake.errors import CorruptAudio, NoAudio, TooLong, TooManyChannels, UnsupportedCodec
from dictalake.records import Account

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 384_000


def check_format(recording_id: str, sample_rate_hz: int, channels: int, limits: Limits) -> None:
    """Raises CorruptAudio, UnsupportedCodec or TooManyChannels for a rate or channel count that no speech has."""
    if channels < 1 or sample_rate_hz < 1:
        raise CorruptAudio(recording_id, f"the header announces {channels} channels at {sample_rate_hz} Hz")
    if not MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:
        raise UnsupportedCodec(
            recording_id, f"the sampling rate is {sample_rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz can be read: convert it"
        )
    if channels > limits.channels:
        raise TooManyChannels(
            recording_id, f"it has {channels} channels, limits.channels allows {limits.channels}; split it or raise the limit"
        )


def check_length(recording_id: str, frames: int, sample_rate_hz: int, limits: Limits) -> None:
    """Raises TooLong when ``frames`` samples of each channel last longer than ``limits.duration_h``."""
    if frames > limits.duration_h * 3600 * sample_rate_hz:
        raise TooLong(
            recording_id,
            f"it is longer than the {limits.duration_h:g} hours of limits.duration_h; split the recording or raise the limit",
        )


def check_not_empty(recording_id: str, frames: int) -> None:
    """Raises NoAudio for a container without a single sample."""
    if frames == 0:
        raise NoAudio(
            recording_id, "it is a sound object without a single sample; the recorder stopped before anything was written"
        )


def check_loss(recording_id: str, account: Account, length_s: float, limits: Limits) -> None:
    """Raises CorruptAudio for a recording of which too much cannot be decoded: the rest would pass for the whole."""
    broken_s, ratio = account.broken_s, limits.lost_ratio
    if broken_s > ratio * max(length_s, broken_s):
        raise CorruptAudio(
            recording_id,
            f"{broken_s:.1f} s of it cannot be decoded, {length_s:.1f} s are left with silence in the holes; limits.lost_ratio "
            f"allows {ratio:.0%}: copy it again from its source",
        )
