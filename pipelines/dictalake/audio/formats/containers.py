"""Every kind of file that dictalake knows by its bytes: what it reads, what it refuses by name, and what is no sound at all.

``docs/formats.md`` is made from these tables. A name is what ``sniff`` says; it stands in ``source.container`` of a row.
"""

from __future__ import annotations

from typing import NamedTuple

DICOM = "dicom"
UNKNOWN = "unknown"


class Container(NamedTuple):
    """``demuxer`` is FFmpeg's name of what opens it, ``title`` what people call it, ``names`` how its files usually end.

    Naming the demuxer keeps FFmpeg from choosing one by content: some (playlists, concat) would open other files that the
    bytes name. libsndfile tries first where it is the better reader (``audio_file.py``).
    """

    demuxer: str
    title: str
    names: str


CONTAINERS = {
    "wav": Container("wav", "WAV, WAVEX, RF64, BW64", "wav, bwf"),
    "w64": Container("w64", "Sony Wave64", "w64"),
    "flac": Container("flac", "FLAC", "flac"),
    "mp3": Container("mp3", "MPEG audio, layers I to III", "mp3, mp2, mpga"),
    "aac": Container("aac", "AAC in ADTS frames", "aac"),
    "latm": Container("loas", "AAC in LATM/LOAS frames", "latm, loas"),
    "ac3": Container("ac3", "AC-3 frames", "ac3"),
    "eac3": Container("eac3", "E-AC-3 frames", "eac3, ec3"),
    "ogg": Container("ogg", "Ogg", "ogg, oga, opus, spx"),
    "aiff": Container("aiff", "AIFF, AIFF-C", "aif, aiff, aifc"),
    "au": Container("au", "AU of Sun and NeXT, in both byte orders", "au, snd"),
    "caf": Container("caf", "Core Audio Format", "caf"),
    "voc": Container("voc", "Creative Voice", "voc"),
    "nist": Container("nistsphere", "NIST SPHERE", "sph, nist, wav"),
    "ircam": Container("ircam", "IRCAM / BICSF", "sf"),
    "wavpack": Container("wv", "WavPack", "wv"),
    "tta": Container("tta", "True Audio", "tta"),
    "ape": Container("ape", "Monkey's Audio", "ape"),
    "mp4": Container("mp4", "MP4, 3GPP, QuickTime", "m4a, m4b, mp4, 3gp, 3g2, mov"),
    "matroska": Container("matroska", "Matroska, WebM", "mka, mkv, webm"),
    "asf": Container("asf", "ASF of Windows Media", "wma, asf, wmv"),
    "avi": Container("avi", "AVI", "avi"),
    "flv": Container("flv", "Flash Video", "flv"),
    "mpegts": Container("mpegts", "MPEG transport stream", "ts, m2ts, mts"),
    "mpegps": Container("mpeg", "MPEG program stream", "mpg, mpeg, vob"),
    "realmedia": Container("rm", "RealMedia, RealAudio", "rm, ra, rmvb"),
    "amr": Container("amr", "AMR, AMR-WB", "amr, awb"),
    "ilbc": Container("ilbc", "iLBC", "lbc, ilbc"),
    "dss": Container("dss", "DSS dictation (Olympus, Philips)", "dss"),
}

_EXPORT = "export it as WAV with the software that wrote it"
_CONVERT = "convert it to FLAC or WAV"
_UNPACK = "unpack it and upload what is inside"
_EXPAND = "and archive.expand is off; turn it on, or unpack it"

# Sound, or something that may hold sound, that dictalake does not open: what it is, and what to do.
REFUSED = {
    "ds2": "an Olympus/Philips DS2 dictation, which no free decoder reads; export it as WAV with the dictation software",
    "ds2_encrypted": "an encrypted DS2 dictation; decrypt it and export it as WAV with the dictation software and its password",
    "sony_voice": f"a Sony voice recorder's file (MSV, DVF), which no free decoder reads; {_EXPORT}",
    "openmg": f"Sony OpenMG audio (ATRAC); {_EXPORT}",
    "audible": "an Audible audiobook, which is encrypted; leave it out with archive.include",
    "mp4_encrypted": "an MP4 file whose sound is encrypted; decrypt it, or export it as WAV with the software that plays it",
    "asf_encrypted": "a Windows Media file whose sound is encrypted; decrypt it, or export it as WAV with the software that "
    "plays it",
    "encrypted": "an encrypted file (PGP, OpenSSL or age); decrypt it and upload what is inside",
    "nist_compressed": f"NIST SPHERE audio compressed with Shorten; {_CONVERT} (sph2pipe does)",
    "shorten": f"Shorten audio; {_CONVERT}",
    "adif": f"AAC in ADIF; {_CONVERT}",
    "musepack": f"Musepack audio; {_CONVERT}",
    "optimfrog": f"OptimFROG audio; {_CONVERT}",
    "tak": f"TAK audio; {_CONVERT}",
    "la": f"Lossless Audio (LA); {_CONVERT}",
    "tta2": f"True Audio of version 2; {_CONVERT}",
    "dsd": f"DSD audio (DSF or DSDIFF); {_CONVERT}",
    "dts": f"DTS frames; {_CONVERT}",
    "twinvq": f"TwinVQ audio; {_CONVERT}",
    "8svx": f"Amiga 8SVX or 16SV audio; {_CONVERT}",
    "paris": f"an Ensoniq PARIS file; {_CONVERT}",
    "pvf": f"a Portable Voice Format file of vgetty; {_CONVERT}",
    "qcp": f"a QCP file of a mobile phone (QCELP, EVRC); {_CONVERT}",
    "silk": f"SILK frames of Skype, WeChat or QQ; {_CONVERT}",
    "codec2": f"Codec 2 frames; {_CONVERT}",
    "midi": "MIDI notes, which hold no speech; leave it out with archive.include",
    "tracker": "a music module (XM, IT, S3M), which holds no speech; leave it out with archive.include",
    "soundfont": "a SoundFont, which holds no speech; leave it out with archive.include",
    "cda": "a shortcut to a track of a CD (CDA), which holds no sound itself; copy the CD as WAV",
    "swf": "a Flash movie (SWF); export its sound as WAV",
    "mxf": f"an MXF video; {_CONVERT}",
    "wtv": f"a Windows Recorded TV video; {_CONVERT}",
    "zip": f"a ZIP archive, {_EXPAND}",
    "gzip": f"gzip-compressed data, {_EXPAND}",
    "tar": f"a TAR archive, {_EXPAND}",
    "rar": f"a RAR archive; {_UNPACK}",
    "7z": f"a 7z archive; {_UNPACK}",
    "cab": f"a CAB archive; {_UNPACK}",
    "iso": f"a disc image (ISO 9660); {_UNPACK}",
    "bzip2": f"bzip2-compressed data; {_UNPACK}",
    "xz": f"xz-compressed data; {_UNPACK}",
    "zstd": f"zstd-compressed data; {_UNPACK}",
}

# What holds no sound, whatever its name says.
NOT_AUDIO = {
    "text": "text",
    "html": "an HTML page",
    "xml": "an XML document",
    "json": "JSON",
    "rtf": "an RTF document",
    "pdf": "a PDF document",
    "postscript": "a PostScript document",
    "office": "a Microsoft Office document or another OLE2 file",
    "image": "a picture",
    "video": "a video stream without sound",
    "sqlite": "an SQLite database",
    "parquet": "a Parquet or Arrow table",
    "hdf5": "an HDF5 file",
    "executable": "a program",
    "font": "a font",
    "apple_double": "metadata of macOS (a file ._*, or .DS_Store)",
    "plist": "a property list of Apple",
    "shortcut": "a shortcut of Windows",
}
