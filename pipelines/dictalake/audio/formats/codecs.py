"""The codecs that may be opened: speech and what people keep speech in. Anything else is refused by its name.

FFmpeg has decoders for hundreds of formats of games, phones and broadcasters, many of them written once and read by nobody
since. Only those below are opened, by FFmpeg's own probing too (OPEN_OPTIONS): pictures are never decoded.
``docs/formats.md`` is made from this table.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from dictalake.audio.formats.containers import CONTAINERS
from dictalake.errors import CorruptAudio, LoadError, NoAudio, UnsupportedCodec


class Codec(NamedTuple):
    """``decoders`` are FFmpeg's names of what opens it; none where only libsndfile does.

    ``proof`` is what a test gets back: ``exact`` every sample, ``close`` the sound as near as the codec allows, ``length``
    noise of the right length and rate (there is no encoder), ``none`` nothing: no such file was there to test with.
    """

    title: str
    containers: str
    decoders: tuple[str, ...] = ()
    proof: str = "close"


def _pcm(*names: str) -> dict[str, Codec]:
    """FFmpeg's names say it all: signed, unsigned or floating point, bits, byte order."""
    kinds = {"s": "signed", "u": "unsigned", "f": "floating point"}
    orders = {"le": ", little-endian", "be": ", big-endian", "": ""}
    found = {}
    for name in names:
        kind, bits, order = re.fullmatch(r"([suf])(\d+)(le|be|)", name).groups()  # type: ignore[union-attr]
        codec = f"pcm_{name}"
        found[codec] = Codec(
            f"PCM, {bits} bits, {kinds[kind]}{orders[order]}", _PCM_CONTAINERS, (codec,), "close" if bits == "8" else "exact"
        )
    return found


_PCM_CONTAINERS = "WAV, W64, AIFF, AU, CAF, MP4, Matroska, AVI …"
_FILES = "WAV, AU, AIFF-C, CAF, NIST, AVI, QuickTime"
_REAL = "RealMedia"
CODECS: dict[str, Codec] = {  # FFmpeg's canonical name, or libsndfile's subtype in lower case → what it is
    **_pcm("s8", "u8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f32be", "f64le", "f64be"),
    "pcm_dvd": Codec("PCM of DVD", "MPEG program stream", ("pcm_dvd",), "exact"),
    "pcm_bluray": Codec("PCM of Blu-ray and AVCHD", "MPEG transport stream", ("pcm_bluray",), "none"),
    "pcm_mulaw": Codec("G.711 µ-law", _FILES, ("pcm_mulaw",)),
    "pcm_alaw": Codec("G.711 A-law", _FILES, ("pcm_alaw",)),
    "adpcm_ms": Codec("Microsoft ADPCM", "WAV, AVI", ("adpcm_ms",)),
    "adpcm_ima_wav": Codec("IMA ADPCM", "WAV, W64, AVI", ("adpcm_ima_wav",)),
    "adpcm_ima_qt": Codec("IMA ADPCM of QuickTime", "QuickTime, AIFF-C, CAF", ("adpcm_ima_qt",)),
    "adpcm_ima_oki": Codec("Dialogic/OKI ADPCM", "WAV; headerless VOX", ("adpcm_ima_oki",)),
    "adpcm_yamaha": Codec("Yamaha ADPCM", "WAV", ("adpcm_yamaha",)),
    "adpcm_swf": Codec("ADPCM of Flash", "FLV", ("adpcm_swf",)),
    "adpcm_ct": Codec("Creative ADPCM", "VOC, WAV", ("adpcm_ct",), "none"),
    "adpcm_sbpro_2": Codec("Sound Blaster Pro ADPCM, 2 bits", "VOC", ("adpcm_sbpro_2",), "none"),
    "adpcm_sbpro_3": Codec("Sound Blaster Pro ADPCM, 2.6 bits", "VOC", ("adpcm_sbpro_3",), "none"),
    "adpcm_sbpro_4": Codec("Sound Blaster Pro ADPCM, 4 bits", "VOC", ("adpcm_sbpro_4",), "none"),
    "adpcm_g722": Codec("G.722", "WAV; headerless", ("g722",)),
    "adpcm_g726": Codec("G.726", "WAV", ("g726",)),
    "adpcm_g726le": Codec("G.726, little-endian", "WAV, AU", ("g726le",), "none"),
    "g721_32": Codec("G.721, 32 kbit/s", "WAV, AU"),
    "g723_24": Codec("G.723 ADPCM, 24 kbit/s", "AU"),
    "g723_40": Codec("G.723 ADPCM, 40 kbit/s", "AU"),
    "nms_adpcm_16": Codec("NMS ADPCM, 16 kbit/s", "WAV"),
    "nms_adpcm_24": Codec("NMS ADPCM, 24 kbit/s", "WAV"),
    "nms_adpcm_32": Codec("NMS ADPCM, 32 kbit/s", "WAV"),
    "gsm": Codec("GSM 06.10", "QuickTime; headerless", ("gsm",)),
    "gsm_ms": Codec("GSM 06.10 of Microsoft", "WAV, W64, AVI, AIFF-C", ("gsm_ms",)),
    "g723_1": Codec("G.723.1", "WAV, DSS (LP)", ("g723_1",)),
    "g729": Codec("G.729", "WAV", ("g729",), "none"),
    "truespeech": Codec("TrueSpeech", "WAV", ("truespeech",), "length"),
    "dss_sp": Codec("DSS SP", "DSS", ("dss_sp",), "length"),
    "ilbc": Codec("iLBC", "iLBC, CAF", ("ilbc",), "length"),
    "amr_nb": Codec("AMR narrow band", "AMR, 3GPP", ("amrnb", "libopencore_amrnb")),
    "amr_wb": Codec("AMR wide band", "AMR, 3GPP", ("amrwb", "libopencore_amrwb")),
    "speex": Codec("Speex", "Ogg, WAV, FLV", ("speex",)),
    "nellymoser": Codec("Nellymoser", "FLV", ("nellymoser",)),
    "opus": Codec("Opus", "Ogg, Matroska, MP4, CAF, MPEG-TS", ("opus", "libopus")),
    "vorbis": Codec("Vorbis", "Ogg, Matroska", ("vorbis",)),
    "mp1": Codec("MPEG layer I", "MPEG audio, WAV", ("mp1float", "mp1"), "none"),
    "mp2": Codec("MPEG layer II", "MPEG audio, WAV, AVI, MPEG-TS, MPEG program stream", ("mp2float", "mp2")),
    "mp3": Codec("MPEG layer III", "MPEG audio, WAV, MP4, Matroska, AVI, FLV, MPEG-TS", ("mp3float", "mp3")),
    "aac": Codec("AAC, HE-AAC", "ADTS, MP4, Matroska, FLV, MPEG-TS, CAF, RealMedia", ("aac",)),
    "aac_latm": Codec("AAC in LATM", "LATM, MPEG-TS", ("aac_latm",)),
    "ac3": Codec("AC-3", "AC-3, MPEG-TS, MPEG program stream, MP4, Matroska, AVI, RealMedia", ("ac3",)),
    "eac3": Codec("E-AC-3", "E-AC-3, MPEG-TS, MP4, Matroska", ("eac3",)),
    "wmav1": Codec("Windows Media Audio 1", "ASF", ("wmav1",)),
    "wmav2": Codec("Windows Media Audio 2", "ASF, AVI", ("wmav2",)),
    "wmavoice": Codec("Windows Media Audio Voice", "ASF", ("wmavoice",), "none"),
    "wmapro": Codec("Windows Media Audio 9 Professional", "ASF", ("wmapro",), "none"),
    "wmalossless": Codec("Windows Media Audio Lossless", "ASF", ("wmalossless",), "none"),
    "ra_144": Codec("RealAudio 1.0", _REAL, ("real_144",)),
    "ra_288": Codec("RealAudio 2.0", _REAL, ("real_288",), "none"),
    "sipr": Codec("RealAudio Sipro", _REAL, ("sipr",), "none"),
    "cook": Codec("RealAudio Cook", _REAL, ("cook",), "none"),
    "flac": Codec("FLAC", "FLAC, Ogg, Matroska, MP4", ("flac",), "exact"),
    "alac": Codec("Apple Lossless", "MP4, CAF", ("alac",), "exact"),
    "wavpack": Codec("WavPack", "WavPack, Matroska", ("wavpack",), "exact"),
    "tta": Codec("True Audio", "True Audio, Matroska", ("tta",), "exact"),
    "ape": Codec("Monkey's Audio", "Monkey's Audio", ("ape",), "none"),
}
# For every decoder that is opened: FFmpeg itself refuses any other, whatever the file says that its packets are.
DECODER_OPTIONS = {"codec_whitelist": ",".join(decoder for codec in CODECS.values() for decoder in codec.decoders)}
# For ``av.open``: FFmpeg tries packets of every track to learn what they are, some demuxers open others, and none may open
# another file that the bytes name.
OPEN_OPTIONS = {
    **DECODER_OPTIONS,
    "format_whitelist": ",".join(container.demuxer for container in CONTAINERS.values()),
    "protocol_whitelist": "none",
}


def check_codec(recording_id: str, codec_name: str, decoder: str | None = None) -> None:
    """Raises UnsupportedCodec for a codec outside CODECS, or one that FFmpeg would open with another ``decoder`` than ours.

    Call it before the first packet is decoded.
    """
    if codec_name not in CODECS or (decoder is not None and decoder not in CODECS[codec_name].decoders):
        raise UnsupportedCodec(
            recording_id, f"its codec is {codec_name}, which dictalake does not open; convert it to FLAC or WAV"
        )


def refuse_unknown_codec(recording_id: str, data: bytes, container: str, title: str) -> UnsupportedCodec:
    """The error for a track that FFmpeg has no decoder for."""
    coding = describe_codec(data, container)
    return UnsupportedCodec(recording_id, f"no decoder for {coding} inside the {title} container; convert it to FLAC or WAV")


def refuse_without_track(recording_id: str, kinds: Collection[str], title: str) -> LoadError:
    """The error for a container without a sound track. ``kinds`` are the types of its streams, as FFmpeg calls them.

    A transport stream does not always say what a track is, so that one of unknown kind may be sound.
    """
    if not kinds:
        return CorruptAudio(recording_id, f"the {title} container holds no readable track")
    if title == "mpegts" and not {*kinds} <= {"video", "subtitle"}:
        return UnsupportedCodec(
            recording_id, "no track of the mpegts container is known to be sound; convert it to FLAC or WAV"
        )
    return NoAudio(recording_id, f"the {title} container holds no sound track, only pictures or other data")


_TAGGED = {  # container → where it names its codec: four letters, or the number of a WAVEFORMATEX
    "mp4": re.compile(rb"stsd.{12}([ -~]{4})", re.S),
    "aiff": re.compile(rb"COMM.{22}([ -~]{4})", re.S),
    "caf": re.compile(rb"desc.{16}([ -~]{4})", re.S),
    "matroska": re.compile(rb"(A_[A-Z0-9_/]{2,24})"),
    "wav": re.compile(rb"fmt .{4}(..)", re.S),
    "w64": re.compile(rb"fmt \xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a.{8}(..)", re.S),
    "avi": re.compile(rb"strh.{4}auds.{40,80}?strf.{4}(..)", re.S),
    "asf": re.compile(rb"\x40\x9e\x69\xf8\x4d\x5b\xcf\x11\xa8\xfd\x00\x80\x5f\x5c\x44\x2b.{38}(..)", re.S),
}
_HEADER_BYTES = 2**20


def describe_codec(data: bytes, container: str) -> str:
    """How ``data`` itself names the codec of its sound: ``codec QDM2``, ``codec 0x0270``; for a codec that FFmpeg knows not."""
    pattern = _TAGGED.get(container)
    found = None if pattern is None else pattern.search(data[:_HEADER_BYTES]) or pattern.search(data[-_HEADER_BYTES:])
    if found is None:
        return "the coding"
    tag = found[1]
    return f"codec 0x{int.from_bytes(tag, 'little'):04X}" if len(tag) == 2 else f"codec {tag.decode('ascii').strip()}"
