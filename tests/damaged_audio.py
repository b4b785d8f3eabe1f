"""Files that are damaged, joined, unclosed or oddly wrapped as real ones are, each with the truth about its sound.

Each function gives the files of one kind, over all containers in which the kind makes sense. ``check_account`` says whether
what was read of a file agrees with its truth. The sound is that of ``tests/coded_sound.py``: it tells which second of it one
hears.
"""

from __future__ import annotations

import functools
import io
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr

from dictalake.records import DecodedAudio
from tests.coded_sound import RATE_HZ, make_coded_sound, place
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group

FIXTURES = Path(__file__).parent / "fixtures/formats"
A_S, B_S = 8.0, 4.0  # the two sounds that the files are made of
_SHORT_S = 2.0  # what a stale header announces
TOLERANCE_S = 0.1
_EMPTY: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class DamagedFile:
    """``seconds`` is what the recording had, ``tracks`` what lies where in them: ``(samples,)`` at 16 kHz for each channel.

    ``unsure`` are intervals in seconds in which the sound need not be there: the damage and what depends on it. ``words`` are
    the repairs of which one must be named; empty where nothing need be said. ``or_error``: instead of reading it, a reader may
    fail with one of these reasons. ``slack_s`` is how far times may be off.
    """

    name: str
    data: bytes
    seconds: float
    tracks: tuple[np.ndarray, ...]
    unsure: tuple[tuple[float, float], ...] = ()
    words: frozenset[str] = frozenset()
    or_error: tuple[str, ...] = ()
    slack_s: float = TOLERANCE_S


def check_account(file: DamagedFile, audio: DecodedAudio) -> None:
    """Nothing is short, repeated or moved without a word, and the account's seconds are those of the truth."""
    rate_hz, account = audio.format.sample_rate_hz, audio.account
    duration_s = audio.samples.shape[1] / rate_hz
    lost_s = account.lost_s or 0.0
    said = f"{file.name}: {duration_s:.2f} s of {file.seconds:.2f} s, lost {account.lost_s}, {account.repairs}"
    assert duration_s <= file.seconds + file.slack_s, f"{said}: longer than the recording was"
    assert account.lost_s is None or duration_s + lost_s >= file.seconds - file.slack_s, (
        f"{said}: seconds are not accounted for"
    )
    assert not file.words or file.words & set(account.repairs), f"{said}: none of {sorted(file.words)} is named"
    assert len(audio.samples) >= len(file.tracks), f"{said}: {len(audio.samples)} of {len(file.tracks)} channels"
    at_16_khz = audio.samples if rate_hz == RATE_HZ else soxr.resample(audio.samples.T, rate_hz, RATE_HZ).T
    for channel, known in zip(at_16_khz, file.tracks, strict=False):
        placed = place(channel, known, file.unsure, within_s=file.slack_s + 0.05)
        unsure_s = sum(end - start for start, end in file.unsure)
        said_of_it = f"{said}: {placed}"
        assert placed.repeated_s <= 0.1, f"{said_of_it}: sound is there twice"
        assert placed.moved_s <= 0.1, f"{said_of_it}: sound is at another time than it was"
        assert placed.missing_s <= lost_s + 0.15, f"{said_of_it}: more is missing than is said"
        assert lost_s <= unsure_s + placed.missing_s + file.slack_s, f"{said_of_it}: more is said to be lost than is"


# Encodings: how a sound becomes a file of each container.


@dataclass(frozen=True)
class Encoding:
    """``reach_s`` is how far the damage of a packet reaches in time: a page of Ogg, the state of a decoder. ``delay_s`` is what
    the file has more than the sound, before it and behind it. ``is_coded``: a changed byte can be noticed, and costs packets.
    ``announced``: the file says how long it is, in front of the sound."""

    make: Callable[[np.ndarray], bytes]
    reach_s: float = 0.4
    delay_s: float = 0.0
    is_coded: bool = True
    announced: bool = True


def _with_soundfile(container: str, subtype: str, endian: str | None = None) -> Callable[[np.ndarray], bytes]:
    return lambda sound: encode(sound, RATE_HZ, container, subtype, endian)


def _with_ffmpeg(muxer: str, codec: str, rate_hz: int = RATE_HZ, bit_rate: int | None = None) -> Callable[[np.ndarray], bytes]:
    return lambda sound: mux(muxer, [Track(sound, codec, rate_hz, bit_rate)])


def _bw64(sound: np.ndarray) -> bytes:
    return b"BW64" + encode(sound, RATE_HZ, "RF64", "PCM_16")[4:]


def _speex(sound: np.ndarray) -> bytes:
    """PyAV has no encoder for it; these were made with FFmpeg's libspeex at quality 10."""
    return (FIXTURES / ("coded-8s.spx" if len(sound) == A_S * RATE_HZ else "coded-4s.spx")).read_bytes()


def _dicom(sound: np.ndarray) -> bytes:
    samples = (np.asarray(sound) * 32767).astype("<i2")
    return make_dicom(make_group(samples.tobytes(), "SS", len(samples), SamplingFrequency=str(RATE_HZ)))


ENCODINGS: dict[str, Encoding] = {
    "wav": Encoding(_with_soundfile("WAV", "PCM_16"), is_coded=False),
    "wav-mulaw": Encoding(_with_soundfile("WAV", "ULAW"), is_coded=False),
    "rf64": Encoding(_with_soundfile("RF64", "PCM_16"), is_coded=False),
    "bw64": Encoding(_bw64, is_coded=False),
    "w64": Encoding(_with_soundfile("W64", "PCM_16"), is_coded=False),
    "aiff": Encoding(_with_soundfile("AIFF", "PCM_16"), is_coded=False),
    "au": Encoding(_with_soundfile("AU", "PCM_16"), is_coded=False),
    "caf": Encoding(_with_soundfile("CAF", "PCM_16"), is_coded=False),
    "dicom": Encoding(_dicom, is_coded=False),
    "flac": Encoding(_with_soundfile("FLAC", "PCM_16")),
    "oga": Encoding(_with_ffmpeg("ogg", "flac"), reach_s=1.3, announced=False),
    "vorbis": Encoding(_with_soundfile("OGG", "VORBIS"), reach_s=1.3, announced=False),
    "opus": Encoding(_with_soundfile("OGG", "OPUS"), reach_s=1.3, announced=False),
    "speex": Encoding(_speex, reach_s=1.3, announced=False),
    "mp3": Encoding(_with_soundfile("MP3", "MPEG_LAYER_III"), delay_s=0.11),
    "adts": Encoding(_with_ffmpeg("adts", "aac", bit_rate=32_000), delay_s=0.13, announced=False),
    "m4a": Encoding(_with_ffmpeg("mp4", "aac", bit_rate=32_000), delay_s=0.13, announced=False),
    "m4a-front": Encoding(lambda sound: _index_in_front(mux("mp4", [Track(sound, "aac", bit_rate=32_000)])), delay_s=0.13),
    "webm": Encoding(_with_ffmpeg("webm", "libopus", 48_000, 64_000), delay_s=0.05),
    "wma": Encoding(_with_ffmpeg("asf", "wmav2", bit_rate=32_000), reach_s=0.8, delay_s=0.15),
    "amr": Encoding(_with_ffmpeg("amr", "libopencore_amrnb", 8_000, 12_200), delay_s=0.08, announced=False),
}
CODED = [name for name, encoding in ENCODINGS.items() if encoding.is_coded and name != "m4a-front"]


@functools.cache
def _sounds() -> tuple[np.ndarray, np.ndarray]:
    return make_coded_sound(A_S, 1), make_coded_sound(B_S, 2)


@functools.cache
def make_file(encoding: str, second: bool = False) -> bytes:
    """The whole and undamaged file of the first sound, or of the second."""
    return ENCODINGS[encoding].make(_sounds()[second])


def make_undamaged() -> Iterator[DamagedFile]:
    for name in ENCODINGS:
        yield _of_a(name, name, make_file(name), slack_s=TOLERANCE_S + ENCODINGS[name].delay_s)


def _of_a(name: str, encoding: str, data: bytes, **truth: Any) -> DamagedFile:
    """A file of which all is the first sound."""
    slack_s = TOLERANCE_S + ENCODINGS[encoding].delay_s
    file = DamagedFile(name, data, A_S, (_sounds()[0],), slack_s=slack_s)
    return replace(file, **{key: frozenset(value) if key == "words" else value for key, value in truth.items()})


# Muxing with FFmpeg


@dataclass(frozen=True)
class Track:
    sound: np.ndarray
    codec: str
    rate_hz: int = RATE_HZ
    bit_rate: int | None = None
    layout: str = "mono"


def mux(muxer: str, tracks: Sequence[Track], gap: tuple[float, float] = _EMPTY, **options: str) -> bytes:
    """``gap``: packets between these seconds are left out, and the times of the rest are kept."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer, options=options) as file:
        streams = []
        for track in tracks:
            stream = file.add_stream(track.codec, rate=track.rate_hz, layout=track.layout)
            if track.bit_rate:
                stream.bit_rate = track.bit_rate
            streams.append(stream)
        file.start_encoding()
        packets = [packet for stream, track in zip(streams, tracks, strict=True) for packet in _packets(stream, track)]
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            if not gap[0] <= float(packet.pts * packet.time_base) < gap[1]:
                file.mux(packet)
    return buffer.getvalue()


def _packets(stream: av.AudioStream, track: Track) -> list[av.Packet]:
    sound = track.sound if track.rate_hz == RATE_HZ else soxr.resample(track.sound, RATE_HZ, track.rate_hz).clip(-0.99, 0.99)
    channels = av.AudioLayout(track.layout).nb_channels
    interleaved = np.repeat(sound.astype(np.float32), channels)[None]
    frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=track.layout)
    frame.sample_rate, frame.pts, frame.time_base = track.rate_hz, 0, Fraction(1, track.rate_hz)
    fifo, packets = av.AudioFifo(), []
    for converted in av.AudioResampler(stream.codec_context.format, track.layout, track.rate_hz).resample(frame):
        fifo.write(converted)
    partial = track.codec != "libopencore_amrnb"
    while block := fifo.read(stream.codec_context.frame_size or 960, partial=partial):
        packets += stream.encode(block)
    return packets + stream.encode(None)


def remux_with_gap(data: bytes, gap: tuple[float, float]) -> bytes:
    """The packets of ``data`` again in Ogg, without those between the seconds of ``gap``."""
    buffer = io.BytesIO()
    # Pages of Ogg end at the gap only if they are short: a page gives the time of its end alone.
    options = {"page_duration": "20000"}
    with av.open(io.BytesIO(data), "r") as source, av.open(buffer, "w", format="ogg", options=options) as file:
        stream = file.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None and not gap[0] <= float(packet.pts * packet.time_base) < gap[1]:
                packet.stream = stream
                file.mux(packet)
    return buffer.getvalue()


def _index_in_front(m4a: bytes) -> bytes:
    """As for streaming: ``moov`` before ``mdat``."""
    start = m4a.index(b"moov") - 4
    brand = int.from_bytes(m4a[:4], "big")
    moov = m4a[start:]
    return m4a[:brand] + shift_offsets(moov, len(moov)) + m4a[brand:start]


def shift_offsets(data: bytes, by: int) -> bytes:
    """The boxes of an M4A whose ``stco`` counts ``by`` bytes more."""
    shifted = bytearray(data)
    at = data.index(b"stco") + 8
    count = int.from_bytes(data[at : at + 4], "big")
    for entry in range(at + 4, at + 4 + 4 * count, 4):
        shifted[entry : entry + 4] = (int.from_bytes(data[entry : entry + 4], "big") + by).to_bytes(4, "big")
    return bytes(shifted)


# Joined


def make_joined() -> Iterator[DamagedFile]:
    """Two whole files one after the other, plainly, and with tags, another rate or another number of channels at the seam."""
    tags = {"id3": make_id3(300), "ape": _make_ape(300), "id3v1": b"TAG" + bytes(125)}
    plain = ["wav", "rf64", "w64", "aiff", "au", "caf", "flac", "oga", "vorbis", "opus", "speex", "mp3", "adts", "webm", "amr"]
    for name in plain:
        words = () if name in ("mp3", "adts") else ("joined",)  # nothing marks the seam of bare frames
        yield _joined(name, name, make_file(name) + make_file(name, True), words)
    for tag, value in tags.items():
        yield _joined(f"mp3-{tag}", "mp3", make_file("mp3") + value + make_file("mp3", True), ())
    yield _joined("adts-id3", "adts", make_file("adts") + tags["id3"] + make_file("adts", True), ())
    yield _joined("flac-id3", "flac", make_file("flac") + tags["id3"] + make_file("flac", True), ("joined",))
    for name, container, subtype in _SEAMS:
        for kind, rate_hz, channels in (("other-rate", 22_050, 1), ("stereo", RATE_HZ, 2)):
            second = make_coded_sound(B_S, 2, rate_hz)[:, None].repeat(channels, axis=1)
            if (container, rate_hz) == ("OPUS", 22_050):
                continue
            made = encode(second, rate_hz, "OGG" if container == "OPUS" else container, subtype)
            yield _joined(f"{name}-{kind}", name, make_file(name) + made, ("joined",))
    for kind, rate_hz, layout in (("other-rate", 24_000, "mono"), ("stereo", RATE_HZ, "stereo")):
        made = mux("adts", [Track(_sounds()[1], "aac", rate_hz, 48_000, layout)])
        yield _joined(f"adts-{kind}", "adts", make_file("adts") + made, ("joined",))
    yield _joined("wav-two-data-chunks", "wav", _join_data_chunks(), ("joined",))


_SEAMS = [
    ("wav", "WAV", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("vorbis", "OGG", "VORBIS"),
    ("opus", "OPUS", "OPUS"),
]


def _joined(name: str, encoding: str, data: bytes, words: Iterable[str]) -> DamagedFile:
    sound = np.concatenate(_sounds())
    delay_s = ENCODINGS[encoding].delay_s
    seam = (A_S - 0.2, A_S + 0.2 + 2 * delay_s)
    return DamagedFile(
        f"joined-{name}", data, A_S + B_S, (sound,), (seam,), frozenset(words), slack_s=TOLERANCE_S + 2 * delay_s + 0.05
    )


def _join_data_chunks() -> bytes:
    """One RIFF with two ``data`` chunks and an unknown one between them."""
    first, second = make_file("wav"), make_file("wav", True)
    body = first[12:] + b"junk" + struct.pack("<I", 10) + bytes(10) + second[36:]
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def make_id3(size: int) -> bytes:
    sized = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    text = b"TIT2" + struct.pack(">I", 11) + b"\0\0\0Dictation1"
    return b"ID3\x03\0\0" + sized + text + bytes(size - len(text))


def _make_ape(size: int) -> bytes:
    """An APEv2 tag with one item of ``size`` bytes."""
    item = struct.pack("<II", size, 0) + b"Title\0" + b"x" * size
    field = b"APETAGEX" + struct.pack("<III", 2000, len(item) + 32, 1)
    return field + struct.pack("<I", 0xA0000000) + bytes(8) + item + field + struct.pack("<I", 0x80000000) + bytes(8)


# Damage inside the coded sound


def make_holes() -> Iterator[DamagedFile]:
    """300 bytes of FF, 1,500 zeros, 40 flipped bits, 3,000 bytes taken out, in the middle of the coded sound; and 40 bytes of
    FF so late that they meet the last page of Ogg but one."""
    for name in CODED:
        whole = make_file(name)
        middle, late = len(whole) // 2, round(0.8 * len(whole))
        damaged = {
            "hole_ff": (middle, 300, whole[:middle] + b"\xff" * 300 + whole[middle + 300 :]),
            "hole_zero": (middle, 1_500, whole[:middle] + bytes(1_500) + whole[middle + 1_500 :]),
            "bitrot": (middle, 2_000, _flip_bits(whole, middle, 40)),
            "lost": (middle, 3_000, whole[:middle] + whole[middle + 3_000 :]),
            "hole_late": (late, 40, whole[:late] + b"\xff" * 40 + whole[late + 40 :]),
        }
        per_byte, reach_s = A_S / len(whole), ENCODINGS[name].reach_s
        for kind, (at, length, data) in damaged.items():
            stretch = (at * per_byte - reach_s, (at + length) * per_byte + reach_s)
            # Some codecs have no checksum: changed bytes decode to a noise of the same length, which nobody can notice.
            said = {"damaged", "hole", "cut_end"} if name in _CHECKED or kind == "lost" else set()
            file = _of_a(f"{kind}-{name}", name, data, unsure=(stretch,), words=said, or_error=("corrupt_audio",))
            if kind == "lost" and name in _BARE:
                file = _without_its_length(file, at * per_byte, length * per_byte)
            yield file


def _without_its_length(file: DamagedFile, at_s: float, taken_s: float) -> DamagedFile:
    """Bare frames have neither clock nor length: of what was taken out nothing can be known but that something is."""
    sound = file.tracks[0]
    left = np.concatenate([sound[: round(at_s * RATE_HZ)], sound[round((at_s + taken_s) * RATE_HZ) :]])
    unsure = (at_s - file.slack_s - 0.4, at_s + file.slack_s + 0.4)
    return replace(file, seconds=A_S - taken_s, tracks=(left,), unsure=(unsure,), slack_s=file.slack_s + 0.3)


_CHECKED = ("flac", "oga", "vorbis", "opus", "speex")
_BARE = ("adts", "amr")


def _flip_bits(data: bytes, at: int, count: int) -> bytes:
    """``count`` bits within 2,000 bytes."""
    flipped, rng = bytearray(data), random.Random(20)
    for _ in range(count):
        flipped[at + rng.randrange(2_000)] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def make_lost_ends() -> Iterator[DamagedFile]:
    """The second half of the coded sound, or all of it, overwritten; the announced length is kept."""
    for name in CODED:
        whole = make_file(name)
        start, end = find_sound(name)
        middle = (start + end) // 2
        noise = random.Random(20).randbytes(end - start)
        damaged = {
            "tail_random": whole[:middle] + noise[: end - middle] + whole[end:],
            "tail_zero": whole[:middle] + bytes(end - middle) + whole[end:],
            "all_random": whole[:start] + noise + whole[end:],
        }
        for kind, data in damaged.items():
            from_s = 0.0 if kind == "all_random" else A_S / 2 - ENCODINGS[name].reach_s
            # Of bare frames nothing is left that would say what it was.
            reasons = ("corrupt_audio", "not_audio") if kind == "all_random" and name in ("mp3", "adts") else ("corrupt_audio",)
            file = _of_a(f"{kind}-{name}", name, data, unsure=((from_s, A_S),), or_error=reasons)
            # Where nothing in front says how long it was, that can but be guessed from the bytes.
            yield file if ENCODINGS[name].announced else replace(file, slack_s=file.slack_s + 0.5)


@functools.cache
def find_sound(encoding: str, second: bool = False) -> tuple[int, int]:
    """First byte of the coded sound and the byte behind its last."""
    data = make_file(encoding, second)
    if encoding in ("wav", "wav-mulaw", "rf64", "bw64"):
        return data.index(b"data") + 8, len(data)
    plain = {"w64": b"data", "aiff": b"SSND", "caf": b"data", "dicom": b"\x00\x54\x10\x10"}
    behind = {"w64": 24, "aiff": 16, "caf": 16, "dicom": 12}
    if encoding in plain:
        return data.index(plain[encoding]) + behind[encoding], len(data)
    if encoding == "au":
        return int.from_bytes(data[4:8], "big"), len(data)
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.audio[0]
        packets = [packet for packet in file.demux(stream) if packet.size and packet.pos is not None and packet.pos >= 0]
        first, last = packets[0], packets[-1]
    if encoding in ("m4a", "m4a-front"):
        return first.pos, last.pos + last.size
    return first.pos, len(data)


# The clock


def make_gaps() -> Iterator[DamagedFile]:
    """Three seconds of packets are gone and the times of the rest are kept."""
    gap = (3.0, 6.0)
    muxed = {
        "m4a": ("mp4", "aac", RATE_HZ, 32_000),
        "webm": ("webm", "libopus", 48_000, 64_000),
        "mka-aac": ("matroska", "aac", RATE_HZ, 32_000),
        "opus": ("ogg", "libopus", 48_000, 64_000),
        "oga": ("ogg", "flac", RATE_HZ, None),
        "wma": ("asf", "wmav2", RATE_HZ, 32_000),
    }
    for name, (muxer, codec, rate_hz, bit_rate) in muxed.items():
        data = mux(muxer, [Track(_sounds()[0], codec, rate_hz, bit_rate)], gap)
        yield _gap(name, "m4a" if name == "mka-aac" else name, data, gap)
    for name in ("vorbis", "speex"):
        yield _gap(name, name, remux_with_gap(make_file(name), gap), gap)


def _gap(name: str, encoding: str, data: bytes, gap: tuple[float, float]) -> DamagedFile:
    # A codec whose blocks overlap needs one more on each side; the muxers of Ogg write whole pages.
    return _of_a(f"gap-{name}", encoding, data, unsure=((gap[0] - 0.2, gap[1] + 0.3),), words={"hole"})


# Headers


@dataclass(frozen=True)
class SizeField:
    """A field of a header that announces a length: where it is, how wide, and how it counts ``samples`` of 16-bit sound."""

    at: int
    width: int
    order: str
    per_sample: int = 2
    more: int = 0

    def write(self, data: bytearray, samples: int) -> None:
        self.write_value(data, samples * self.per_sample + self.more)

    def write_value(self, data: bytearray, value: int) -> None:
        data[self.at : self.at + self.width] = (value & (256**self.width - 1)).to_bytes(self.width, self.order)


@functools.cache
def size_fields(encoding: str, second: bool = False) -> dict[str, SizeField]:
    """The fields that announce how long the sound is."""
    data = make_file(encoding, second)
    match encoding:
        case "wav":
            return {"riff": SizeField(4, 4, "little", 2, 36), "data": SizeField(40, 4, "little")}
        case "rf64" | "bw64":
            at = data.index(b"ds64") + 8
            return {
                "riff": SizeField(at, 8, "little", 2, 96),
                "data": SizeField(at + 8, 8, "little"),
                "samples": SizeField(at + 16, 8, "little", 1),
            }
        case "w64":
            return {
                "riff": SizeField(16, 8, "little", 2, 104),
                "data": SizeField(data.index(b"data\xf3\xac") + 16, 8, "little", 2, 24),
            }
        case "aiff":
            return {
                "form": SizeField(4, 4, "big", 2, 46),
                "frames": SizeField(data.index(b"COMM") + 10, 4, "big", 1),
                "ssnd": SizeField(data.index(b"SSND") + 4, 4, "big", 2, 8),
            }
        case "au":
            return {"data": SizeField(8, 4, "big")}
        case "caf":
            return {"data": SizeField(data.index(b"data") + 4, 8, "big", 2, 4)}
    raise KeyError(encoding)


def with_sizes(encoding: str, **values: int) -> bytes:
    """The file of the first sound with other values in its size fields."""
    data = bytearray(make_file(encoding))
    for name, value in values.items():
        size_fields(encoding)[name].write_value(data, value)
    return bytes(data)


def with_announced(encoding: str, seconds: float, *fields: str) -> bytes:
    """The file of the first sound whose header announces ``seconds``, in ``fields`` alone or in all of them."""
    data = bytearray(make_file(encoding))
    for name, field in size_fields(encoding).items():
        if not fields or name in fields:
            field.write(data, round(seconds * RATE_HZ))
    return bytes(data)


def with_flac_total(samples: int, second: bool = False) -> bytes:
    """STREAMINFO's 36 bits of total samples."""
    data = bytearray(make_file("flac", second))
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


def _dicom_announcing(samples: int, interpretation: str = "SS") -> bytes:
    pcm = (_sounds()[0] * 32767).astype("<i2").tobytes()
    codes = encode(_sounds()[0], RATE_HZ, "RAW", "ULAW")
    payload = pcm if interpretation == "SS" else codes
    return make_dicom(make_group(payload, interpretation, samples, SamplingFrequency=str(RATE_HZ)))


def make_stale_headers() -> Iterator[DamagedFile]:
    """A header that says 2 s over 8 s of samples: the recorder died after its first flush."""
    words = {"header_short", "header_repaired"}
    for name, fields in (
        ("wav", ()),
        ("wav", ("data",)),
        ("rf64", ()),
        ("rf64", ("data", "samples")),
        ("bw64", ()),
        ("w64", ()),
        ("w64", ("data",)),
        ("aiff", ()),
        ("aiff", ("ssnd",)),
        ("aiff", ("frames",)),
        ("au", ()),
        ("caf", ()),
    ):
        kind = f"stale-{name}" + "".join(f"-{field}" for field in fields)
        # Where COMM tells the truth, a chunk's size that does not may go without a word.
        said = set() if fields == ("ssnd",) else words
        yield _of_a(kind, name, with_announced(name, _SHORT_S, *fields), words=said)
    short = round(_SHORT_S * RATE_HZ)
    yield _of_a("stale-flac", "flac", with_flac_total(short), words=words)
    yield _of_a("stale-dicom", "dicom", _dicom_announcing(short), words=words)
    yield _of_a("stale-dicom-mulaw", "dicom", _dicom_announcing(short, "MB"), words=words)


def make_open_headers() -> Iterator[DamagedFile]:
    """A header that was never closed: sizes of 0, of an empty file, −1, or none at all."""
    words, most = {"header_open"}, 0xFFFFFFFF
    changed = {
        "wav-zero": ("wav", {"riff": 0, "data": 0}),
        "wav-ff": ("wav", {"riff": most, "data": most}),
        "wav-empty": ("wav", {"riff": 36, "data": 0}),
        "wav-data-zero": ("wav", {"data": 0}),
        "wav-7fffffff": ("wav", {"riff": 0x7FFFFFFF, "data": 0x7FFFFFFF - 36}),
        "rf64-zero": ("rf64", {"riff": 0, "data": 0, "samples": 0}),
        "rf64-data-zero": ("rf64", {"data": 0}),
        "rf64-ff": ("rf64", {"riff": 2**64 - 1, "data": 2**64 - 1, "samples": 0}),
        "bw64-zero": ("bw64", {"riff": 0, "data": 0, "samples": 0}),
        "w64-zero": ("w64", {"riff": 0, "data": 0}),
        "w64-empty": ("w64", {"riff": 104, "data": 24}),
        "aiff-zero": ("aiff", {"form": 0, "frames": 0, "ssnd": 0}),
        "aiff-empty": ("aiff", {"form": 46, "frames": 0, "ssnd": 8}),
        "au-zero": ("au", {"data": 0}),
        "caf-zero": ("caf", {"data": 0}),
        "caf-empty": ("caf", {"data": 4}),
    }
    for kind, (name, values) in changed.items():
        yield _of_a(f"open-{kind}", name, with_sizes(name, **values), words=words)
    # Lawful: the format itself says "unknown" so, and nothing need be said.
    yield _of_a("open-au-unknown", "au", with_sizes("au", data=most))
    yield _of_a("open-caf-unknown", "caf", with_sizes("caf", data=2**64 - 1))
    yield _of_a("open-flac-unknown", "flac", with_flac_total(0))
    yield _of_a("open-dicom-zero", "dicom", _dicom_announcing(0), or_error=("corrupt_audio",))
    sound = _sounds()[0]
    yield _of_a("open-webm-live", "webm", mux("webm", [Track(sound, "libopus", 48_000, 64_000)], live="1"))
    yield _of_a("open-m4a-fragments", "m4a", mux("mp4", [Track(sound, "aac", RATE_HZ, 32_000)], movflags=_FRAGMENTED))
    yield _of_a("open-m4a-no-index", "m4a", _without_index(), or_error=("corrupt_audio",))


_FRAGMENTED = "frag_keyframe+empty_moov+default_base_moof"


def _without_index() -> bytes:
    """An M4A whose recorder died: no ``moov`` was written, and ``mdat`` has no length."""
    data = bytearray(make_file("m4a"))
    mdat = data.index(b"mdat")
    data[mdat - 4 : mdat] = bytes(4)
    return bytes(data[: data.index(b"moov") - 4])


# Tracks


def make_tracks() -> Iterator[DamagedFile]:
    """Two sound tracks, of which the first is silent, or both speak, or they differ in rate."""
    first, second = _sounds()
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
            yield _of_a(f"tracks-{kind}-{name}", encoding, data, tracks=(leading, first))
    data = mux("matroska", [Track(other, "aac", 8_000, 24_000), Track(first, "aac", RATE_HZ, 32_000)])
    yield _of_a("tracks-rates-mka", "m4a", data, tracks=(other, first), slack_s=0.4)


def make_many_channels() -> Iterator[DamagedFile]:
    """More channels than stereo, in containers that FFmpeg reads."""
    sound = _sounds()[0]
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
        yield _of_a(f"channels-{name}-mka", "m4a", data, tracks=tracks)


# What stands before the sound


def make_leading() -> Iterator[DamagedFile]:
    """Tags, zeros, a byte order mark, the header of a protocol, or the rest of a frame before what the format begins with."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 300000\r\n\r\n"
    before = {"zeros": bytes(1_000), "http": http, "bom": b"\xef\xbb\xbf"}
    containers = ["wav", "rf64", "w64", "aiff", "au", "caf", "flac", "vorbis", "opus", "speex", "mp3", "adts", "webm", "amr"]
    for name in containers:
        for kind, leading in before.items():
            yield _of_a(f"lead-{kind}-{name}", name, leading + make_file(name), words={"leading_bytes"})
        yield _of_a(f"lead-id3-{name}", name, make_id3(500) + make_file(name))
    yield _of_a("lead-ape-mp3", "mp3", _make_ape(500) + make_file("mp3"))
    for name in ("mp3", "adts"):
        start = find_sound(name)[0] + 50
        yield _of_a(f"midstart-{name}", name, make_file(name)[start:], unsure=((0, 0.2),), words={"leading_bytes"})
    m4a = make_file("m4a")
    free = struct.pack(">I", 1_000) + b"free" + bytes(992)
    # Boxes before the first, or none of it: offsets inside the file are kept, as the box of the brand becomes one to skip.
    brand = int.from_bytes(m4a[:4], "big")
    yield _of_a("lead-free-m4a", "m4a", shift_offsets(free + m4a, len(free)))
    yield _of_a("qt-no-brand-m4a", "m4a", m4a[:4] + b"free" + m4a[8:brand] + m4a[brand:])


def make_inner_tags() -> Iterator[DamagedFile]:
    """Lawful things between frames: ID3 between those of ADTS and MP3, frames without data in AMR."""
    for name in ("adts", "mp3"):
        data = make_file(name)
        at = _frame_near(name, len(data) // 2)
        yield _of_a(f"inner-id3-{name}", name, data[:at] + make_id3(400) + data[at:], unsure=((3.7, 4.3),))
    yield _amr_with(15, b"", "no-data")
    yield _amr_with(8, bytes(5), "sid")


def _frame_near(encoding: str, near: int) -> int:
    with av.open(io.BytesIO(make_file(encoding))) as file:
        return next(packet.pos for packet in file.demux() if packet.pos is not None and packet.pos >= near)


def _amr_with(frame_type: int, body: bytes, kind: str) -> DamagedFile:
    """Half a second of frames of ``frame_type`` in the middle, as discontinuous transmission writes: pauses, not losses."""
    data, frames = make_file("amr"), 25
    at = 6 + (len(data) - 6) // 32 // 2 * 32
    pause = bytes([frame_type << 3 | 4]) + body
    split = (at - 6) // 32 * 320  # samples at 16 kHz
    sound = _sounds()[0]
    known = np.concatenate([sound[:split], np.zeros(frames * 320), sound[split:]])
    middle_s = split / RATE_HZ
    file = _of_a(f"inner-{kind}-amr", "amr", data[:at] + pause * frames + data[at:], tracks=(known,))
    return replace(file, seconds=A_S + 0.02 * frames, unsure=((middle_s - 0.1, middle_s + 0.02 * frames + 0.2),))


# Ends


def make_cut_ends() -> Iterator[DamagedFile]:
    """The file ends at 30 to 95 % of its bytes."""
    for name, encoding in ENCODINGS.items():
        whole = make_file(name)
        start, end = find_sound(name)
        for share in (0.3, 0.6, 0.95):
            cut = round(len(whole) * share)
            there_s = A_S * min(max(cut - start, 0) / (end - start), 1.0)
            if name == "m4a":
                there_s = 0.0  # its index was at the end
            file = _of_a(f"cut-{share:g}-{name}", name, whole[:cut], or_error=("corrupt_audio",))
            file = replace(file, unsure=((there_s - encoding.reach_s, A_S),))
            if encoding.announced:
                yield replace(file, words=frozenset({"cut_end"}))
            else:
                # Nothing says how long it was: all that can be asked for is what is there.
                known = _sounds()[0][: round(there_s * RATE_HZ)]
                slack_s = file.slack_s + encoding.reach_s
                yield replace(file, seconds=max(there_s, 0.0), tracks=(known,), slack_s=slack_s)


KINDS = {
    "undamaged": make_undamaged,
    "joined": make_joined,
    "hole": make_holes,
    "lost end": make_lost_ends,
    "gap in the clock": make_gaps,
    "stale header": make_stale_headers,
    "open header": make_open_headers,
    "several tracks": make_tracks,
    "many channels": make_many_channels,
    "leading bytes": make_leading,
    "lawful things between frames": make_inner_tags,
    "cut end": make_cut_ends,
}
