"""Magic numbers: what a file is by its first bytes. ``strict`` asks that the fields behind a short one fit as well."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from dictalake.audio.formats.containers import DICOM

_ASF_ENCRYPTED = (  # Content Encryption Object, Extended Content Encryption Object
    bytes.fromhex("fbb31122 23bdd211 b4b700a0c955fc6e"),
    bytes.fromhex("14e68a29 2226174c b935dae07ee9289c"),
)
_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"OggS", "ogg"),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", "w64"),
    (b"#!AMR", "amr"),
    (b"#!iLBC20\n", "ilbc"),
    (b"#!iLBC30\n", "ilbc"),
    (b"Creative Voice File\x1a", "voc"),
    (b".RMF\0\0\0", "realmedia"),
    (b".ra\xfd", "realmedia"),
    (b"\x02dss", "dss"),
    (b"\x03dss", "dss"),
    (b"\x06dss", "grundig_dss"),
    (b"\x03ds2", "ds2"),
    (b"\x03enc", "ds2_encrypted"),
    (b"MS_VOICE", "sony_voice"),
    (b"ea3\x03", "openmg"),
    (b"EA3\x01", "openmg"),
    (b"ajkg", "shorten"),
    (b"ADIF", "adif"),
    (b"MP+", "musepack"),
    (b"MPCK", "musepack"),
    (b"OFR ", "optimfrog"),
    (b"tBaK", "tak"),
    (b"LA02", "la"),
    (b"LA03", "la"),
    (b"LA04", "la"),
    (b"TTA2", "tta2"),
    (b"DSD \x1c\0\0\0", "dsd"),
    (b"\x7f\xfe\x80\x01", "dts"),
    (b"\xfe\x7f\x01\x80", "dts"),
    (b"\x1f\xff\xe8\x00\x07", "dts"),
    (b"\xff\x1f\x00\xe8", "dts"),
    (b"TWIN97012000", "twinvq"),
    (b" paf\0\0\0", "paris"),
    (b"fap ", "paris"),
    (b"PVF1\n", "pvf"),
    (b"#!SILK", "silk"),
    (b"\x02#!SILK", "silk"),
    (b"\xc0\xde\xc2", "codec2"),
    (b"MThd", "midi"),
    (b"Extended Module: ", "tracker"),
    (b"IMPM", "tracker"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", "mxf"),
    (bytes.fromhex("b7d800203749da11a64e0007e95ead8d"), "wtv"),
    (b"-----BEGIN PGP MESSAGE", "encrypted"),
    (b"Salted__", "encrypted"),
    (b"age-encryption.org/", "encrypted"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"MSCF\0\0\0\0", "cab"),
    (b"Rar!\x1a\x07", "rar"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"%PDF", "pdf"),
    (b"%!PS", "postscript"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office"),
    (b"{\\rtf", "rtf"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"DDS |\0\0\0", "image"),
    (b"gimp xcf ", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"8BPS\0\1", "image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image"),
    (b"\xff\x4f\xff\x51", "image"),
    (b"SQLite format 3\0", "sqlite"),
    (b"PAR1", "parquet"),
    (b"ARROW1\0\0", "parquet"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x7fELF", "executable"),
    (b"\xca\xfe\xba\xbe", "executable"),
    (b"\xfe\xed\xfa\xce", "executable"),
    (b"\xfe\xed\xfa\xcf", "executable"),
    (b"\xce\xfa\xed\xfe", "executable"),
    (b"\xcf\xfa\xed\xfe", "executable"),
    (b"\0asm\x01\0\0\0", "executable"),
    (b"OTTO", "font"),
    (b"wOFF", "font"),
    (b"\0\x05\x16\x07\0\x02", "apple_double"),
    (b"\0\0\0\x01Bud1", "apple_double"),
    (b"bplist0", "plist"),
    (b"L\0\0\0\x01\x14\x02\0", "shortcut"),
    (b"YUV4MPEG2 ", "video"),
    (b"DKIF\0\0", "video"),
)
# What may stand deeper in a file: the bytes to look for → where in the container they stand, and the names that they may mean.
NEEDLES: dict[bytes, tuple[int, tuple[str, ...]]] = {
    b"RIFF": (0, ("wav", "avi")),
    b"RIFX": (0, ("wav",)),
    b"RF64": (0, ("wav",)),
    b"BW64": (0, ("wav",)),
    b"riff\x2e\x91\xcf\x11": (0, ("w64",)),
    b"fLaC": (0, ("flac",)),
    b"OggS": (0, ("ogg",)),
    b"FORM": (0, ("aiff",)),
    b".snd": (0, ("au",)),
    b"dns.": (0, ("au",)),
    b"caff": (0, ("caf",)),
    b"ftyp": (4, ("mp4", "mp4_encrypted")),
    b"moov": (4, ("mp4", "mp4_encrypted")),
    b"\x1a\x45\xdf\xa3": (0, ("matroska",)),
    bytes.fromhex("3026b2758e66cf11"): (0, ("asf",)),
    b"#!AMR": (0, ("amr",)),
    b"wvpk": (0, ("wavpack",)),
    b"TTA1": (0, ("tta",)),
    b"MAC ": (0, ("ape",)),
    b"NIST_1A": (0, ("nist",)),
    b"Creative Voice File\x1a": (0, ("voc",)),
    b"FLV\x01": (0, ("flv",)),
    b".RMF\0\0\0": (0, ("realmedia",)),
    b"\0\0\x01\xba": (0, ("mpegps",)),
}
_RIFF = {
    b"WAVE": "wav",
    b"AVI ": "avi",
    b"WEBP": "image",
    b"RMID": "midi",
    b"sfbk": "soundfont",
    b"QLCM": "qcp",
    b"CDDA": "cda",
}
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"uuid", b"styp", b"sidx", b"moof", b"PICT", b"meta")
_BRANDS = {b"aax ": "audible", b"aaxc": "audible"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jp2 "), "image"
)
_ENCRYPTED_ENTRIES = (b"enca", b"drms", b"drmi", b"aavd")
_MOST_BOXES = 100_000
_TEXT_BYTES = 1024
_CONTROL = bytes(set(range(32)) - {9, 10, 12, 13, 27}) + b"\x7f"
_HIGH = bytes(range(128, 256))
_TEXTS = (
    (re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S), "html"),
    (re.compile(rb"\s*<(?:\?xml|!doctype|[a-z_][\w:.-]*[\s/>])", re.I), "xml"),
    (re.compile(rb'\s*(?:\{\s*(?:"[^"]*"\s*:|\})|\[\s*(?:[\[{"\d\]-]))'), "json"),
)


def sniff_magic(head: bytes, strict: bool = False) -> str | None:
    """The name of the container that ``head`` begins with, as its magic number says. Never raises."""
    if head[128:132] == b"DICM":  # first: the preamble before it may hold anything, another format's header too
        return DICOM
    if head[257:262] == b"ustar":  # before its first bytes, which are a file's name
        return "tar"
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            if (strict and name in _STRICT and not _STRICT[name](head)) or (name in _NO_TEXT and is_text(head[:64])):
                return None
            return name
    for look in (_sniff_chunks, _sniff_boxes, _sniff_fields):
        if found := look(head, strict):
            return found
    return DICOM if not strict and _is_bare_dicom(head) else None


def _sniff_chunks(head: bytes, strict: bool) -> str | None:
    """RIFF and IFF: who is inside stands behind the length."""
    magic, kind, fits = head[:4], head[8:12], not strict or re.fullmatch(rb"[ -~]{4}", head[12:16]) is not None
    if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64") and fits:
        return _RIFF.get(kind)
    if magic in (b"FORM", b"FRM8") and fits:
        iff = {b"AIFF": "aiff", b"AIFC": "aiff", b"8SVX": "8svx", b"16SV": "8svx"}
        return "dsd" if magic == b"FRM8" and head[12:16] == b"DSD " else iff.get(kind)
    return None


def _sniff_boxes(head: bytes, strict: bool) -> str | None:
    """MP4 and QuickTime, which may begin with another box than ``ftyp``: it is one if another known box follows."""
    if len(head) < 8 or head[4:8] not in _BOXES[:10]:
        return None
    size, kind = struct.unpack(">I4s", head[:8])
    if kind == b"ftyp":
        fits = 12 <= size <= 4096 and (size % 4 == 0 or size < 64)
        if strict and not (fits and head[size + 4 : size + 8] in _BOXES):
            return None
        return _BRANDS.get(head[8:12]) or _check_encrypted(head)
    if kind == b"moov":
        return _check_encrypted(head) if head[12:16] in (b"mvhd", b"cmov", b"trak", b"prfl", b"iods", b"udta") else None
    if strict:
        return None
    if size == 1:
        size = int.from_bytes(head[8:16], "big")
    after = head[size + 4 : size + 8]
    if size >= 8 and (after in _BOXES or (not after and kind in (b"mdat", b"wide", b"skip", b"free"))):
        return _check_encrypted(head)
    return "mp4" if size == 0 and kind == b"mdat" else None


def _check_encrypted(data: bytes) -> str:
    """``mp4_encrypted`` where the first box ``stsd`` (sample descriptions) holds an entry of encrypted sound."""
    at = 0
    for _ in range(_MOST_BOXES):
        header = data[at : at + 16]
        if len(header) < 8:
            break
        size = int.from_bytes(header[:4], "big")
        if header[4:8] == b"moov":
            end = min(at + size, len(data)) if size >= 8 else len(data)
            while (at := data.find(b"stsd", at, end)) >= 0:
                if data[at + 16 : at + 20] in _ENCRYPTED_ENTRIES:
                    return "mp4_encrypted"
                at += 4
            break
        size = int.from_bytes(header[8:16], "big") if size == 1 else size
        if size < 8:
            break
        at += size
    return "mp4"


def _sniff_fields(head: bytes, strict: bool) -> str | None:
    """Short magic numbers, by the fields behind them."""
    for prefix, name, fits, always in _FIELDS:
        if head.startswith(prefix) and (fits(head) if strict or always else True):
            return name
    if head[32769:32774] == b"CD001":
        return "iso"
    if head[4:8] == b"\x57\x90\x75\x36":
        return "audible"
    if head.startswith(b"NIST_1A\n"):
        coding = re.search(rb"sample_coding +-s\d+ +(\S+)", head[:4096])
        packed = coding is not None and re.search(rb"shorten|shortpack|wavpack", coding[1]) is not None
        return "nist_compressed" if packed else "nist"
    if head.startswith(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")):
        return "asf_encrypted" if any(guid in head[:8192] for guid in _ASF_ENCRYPTED) else "asf"
    return None


def _number(head: bytes, layout: str, at: int) -> float:
    size = struct.calcsize(layout)
    return float(struct.unpack(layout, head[at : at + size].ljust(size, b"\0"))[0])


def _fits_au(head: bytes) -> bool:
    order = ">" if head[0] == ord(".") else "<"
    offset, encoding, rate_hz, channels = (_number(head, f"{order}I", at) for at in (4, 12, 16, 20))
    return 24 <= offset <= 2**16 and 1 <= encoding <= 27 and 1000 <= rate_hz <= 384_000 and 1 <= channels <= 256


def _fits_ircam(head: bytes) -> bool:
    """Rate and channels in the byte order that the magic number announces, or in the other: writers differ."""
    found = [(_number(head, f"{order}f", 4), _number(head, f"{order}I", 8)) for order in "<>"]
    return any(1000 <= rate_hz <= 384_000 and 1 <= channels <= 256 for rate_hz, channels in found)


def _fits_program(head: bytes) -> bool:
    at = int.from_bytes(head[60:64], "little")
    return head[at : at + 4] == b"PE\0\0" or b"This program" in head[:512] or head[at : at + 2] in (b"NE", b"LE")


def _fits_bitmap(head: bytes) -> bool:
    return head[6:10] == bytes(4) and head[14:18] in (b"\x28\0\0\0", b"\x0c\0\0\0", b"\x38\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0")


def _fits_pack(head: bytes) -> bool:
    return len(head) > 4 and (head[4] & 0xC4 == 0x44 or head[4] & 0xF1 == 0x21)


def _fits_flash(head: bytes) -> bool:
    return len(head) > 8 and 1 <= head[3] <= 60 and not is_text(head[:64])


def _fits_ebml(head: bytes) -> bool:
    return re.search(rb"\x42\x82.{1,8}(?:webm|matroska)", head[:80], re.S) is not None


# The magic number, the name, what has to fit behind it, and whether it has to at the beginning of a file too
_FIELDS: tuple[tuple[bytes, str, Callable[[bytes], bool], bool], ...] = (
    (b"fLaC", "flac", lambda head: len(head) > 8 and head[4] & 0x7F == 0 and head[5:8] == b"\0\0\x22", False),
    (b".snd", "au", _fits_au, False),
    (b"dns.", "au", _fits_au, True),
    (b"caff", "caf", lambda head: head[4:12] == b"\0\1\0\0desc", False),
    (b"\x1a\x45\xdf\xa3", "matroska", _fits_ebml, False),
    (b"wvpk", "wavpack", lambda head: len(head) > 10 and head[9] == 4 and 2 <= head[8] <= 16, True),
    (b"TTA1", "tta", lambda head: 1 <= _number(head, "<H", 4) <= 3 and 1 <= _number(head, "<H", 6) <= 256, True),
    (b"MAC ", "ape", lambda head: 3000 <= _number(head, "<H", 4) <= 4999, True),
    (b"FLV\x01", "flv", lambda head: len(head) > 8 and head[4] & 0xFA == 0 and head[5:9] == b"\0\0\0\x09", True),
    (b"\0\0\x01\xba", "mpegps", _fits_pack, True),
    *((bytes([0x64, 0xA3, kind, 0]), "ircam", _fits_ircam, True) for kind in (1, 2, 3, 4)),
    *((bytes([0, kind, 0xA3, 0x64]), "ircam", _fits_ircam, True) for kind in (1, 2, 3, 4)),
    (b"BZh", "bzip2", lambda head: head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"), True),
    *(
        (kind + b"WS", "swf", lambda head: len(head) > 8 and 1 <= head[3] <= 60 and not is_text(head[:64]), True)
        for kind in (b"F", b"C", b"Z")
    ),
    (
        b"\0\1\0\0\0",
        "font",
        lambda head: b"\x01" <= head[5:6] <= b"\x40" and re.match(rb"[ -~]{4}", head[12:16]) is not None,
        True,
    ),
    (b"\0\0\x01\xb3", "video", lambda head: len(head) > 10 and head[7] & 15 in range(1, 9) and head[10] & 0x20 > 0, True),
    (b"\0\0\0\x01\x67", "video", lambda head: head[5:6] in (b"\x42", b"\x4d", b"\x58", b"\x64", b"\x6e", b"\x7a"), True),
    (b"\0\0\0\x01\x40\x01\x0c", "video", lambda head: True, False),
    (b"MZ", "executable", _fits_program, True),
    (b"BM", "image", _fits_bitmap, True),
    (b"\0\0\1\0", "image", lambda head: len(head) > 9 and 1 <= head[4] <= 32 and head[5] == 0 and head[9] == 0, True),
)
# Magic numbers that a text might begin with
_NO_TEXT = {"sony_voice", "openmg", "shorten", "adif", "musepack", "optimfrog", "tak", "la", "tta2", "paris"}
_NO_TEXT |= {"tracker", "parquet", "font"}
_STRICT: dict[str, Callable[[bytes], bool]] = {
    "ogg": lambda head: len(head) > 27 and head[4] == 0 and head[5] < 8,
    "amr": lambda head: re.match(rb"#!AMR(?:-WB)?(?:_MC1\.0)?\n", head) is not None,
}


def _is_bare_dicom(head: bytes) -> bool:
    """DICOM written without preamble: the first element is a short one of group 0002 or 0008, in any byte order."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if head[4:6] in (b"UL", b"UI", b"CS", b"DA", b"TM", b"DT", b"LO", b"OB", b"SH"):
            return True
        length = struct.unpack("<I", head[4:8])[0]
        if order == "<" and length <= 64 and len(head) >= length + 12:  # implicit: small numbers, so the next one has to fit
            following = struct.unpack("<HH", head[length + 8 : length + 12])
            if (group, element) < following and following[0] in (0x0002, 0x0008, 0x0010):
                return True
    return False


def sniff_text(head: bytes) -> str | None:
    """text, html, xml or json; None for what is not text."""
    text = head[:_TEXT_BYTES]
    high = {b"\xff\xfe": text[3::2], b"\xfe\xff": text[2::2]}.get(text[:2], b"")  # UTF-16: mostly zeros in our scripts
    if high and 2 * high.count(0) > len(high):
        return "text"
    if not is_text(text):
        return None
    return next((name for pattern, name in _TEXTS if pattern.match(text.removeprefix(b"\xef\xbb\xbf"))), "text")


def is_text(head: bytes) -> bool:
    """UTF-8, or mostly ASCII in some other encoding, without control characters."""
    if head.translate(None, _CONTROL) != head:
        return False
    if len(head) >= 16 and len(head.translate(None, _HIGH)) > 0.8 * len(head):
        return True
    for cut in range(4):  # the excerpt may end inside a character
        try:
            head[: len(head) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False
