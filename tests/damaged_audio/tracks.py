"""Several tracks, and more channels than stereo."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.coded_sound import RATE_HZ
from tests.damaged_audio.encodings import make_of_first, make_sounds
from tests.damaged_audio.muxing import Track, mux
from tests.damaged_audio.truth import DamagedFile


def make_tracks() -> Iterator[DamagedFile]:
    """Two sound tracks, of which the first is silent, or both speak, or they differ in rate."""
    first, second = make_sounds()
    other = np.concatenate([second, np.zeros(len(first) - len(second))])
    for name, muxer, codec, rate_hz in (
        ("m4a", "mp4", "aac", RATE_HZ),
        ("mka", "matroska", "aac", RATE_HZ),
        ("webm", "webm", "libopus", 48_000),
        ("wma", "asf", "wmav2", RATE_HZ),
    ):
        bit_rate = 64_000 if codec == "libopus" else 32_000
        for kind, leading in (("silent", np.zeros_like(first)), ("both", other)):
            data = mux(muxer, [Track(leading, codec, rate_hz, bit_rate), Track(first, codec, rate_hz, bit_rate)])
            encoding = "m4a" if name == "mka" else name
            yield make_of_first(f"tracks-{kind}-{name}", encoding, data, tracks=(leading, first))
    data = mux("matroska", [Track(other, "aac", 8_000, 24_000), Track(first, "aac", RATE_HZ, 32_000)])
    yield make_of_first("tracks-rates-mka", "m4a", data, tracks=(other, first), slack_s=0.4)


def make_many_channels() -> Iterator[DamagedFile]:
    """More channels than stereo, in containers that FFmpeg reads."""
    sound = make_sounds()[0]
    for name, codec, layout, channels in (
        ("aac-6", "aac", "5.1", 6),
        ("aac-8", "aac", "7.1", 8),
        ("flac-8", "flac", "7.1", 8),
        ("pcm-8", "pcm_s16le", "7.1", 8),
        ("pcm-16", "pcm_s16le", "hexadecagonal", 16),
    ):
        # The low-frequency channel of AAC carries next to nothing of this sound.
        tracks = (sound, sound) if codec == "aac" else (sound,) * channels
        data = mux("matroska", [Track(sound, codec, layout=layout)])
        yield make_of_first(f"channels-{name}-mka", "m4a", data, tracks=tracks)
