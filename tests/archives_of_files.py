"""ZIP and TAR archives as tests make them: whole ones, and ones with headers that are there to harm the reader."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dictalake.archive.unpack import Contents, open_members
from dictalake.audio.formats.read_audio import sniff
from dictalake.config.sections import Archive, Limits
from dictalake.errors import LoadError
from dictalake.records import Recording, make_recording_id

OBJECT = Recording(make_recording_id("gs://a/x.zip", "7"), "gs://a/x.zip", "7", 0, datetime(2025, 5, 17, tzinfo=UTC))
WHEN = datetime(2024, 3, 2, 12, 30, tzinfo=UTC)
FILES = {"ward/a.wav": b"first", "ward/b.wav": b"second" * 400, "c.txt": b"text"}


def make_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, WHEN.timetuple()[:6])
            info.compress_type = method
            packed.writestr(info, data)
    return buffer.getvalue()


def make_tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as packed:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), int(WHEN.timestamp())
            packed.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


KINDS = {
    "zip": lambda files: make_zip(files),
    "zip-stored": lambda files: make_zip(files, zipfile.ZIP_STORED),
    "tar": lambda files: make_tar(files),
    "tar.gz": lambda files: make_tar(files, "w:gz"),
}


def unpack(data: bytes, limits: Mapping[str, Any] | None = None, **archive: Any) -> tuple[Contents, dict[str, bytes | str]]:
    """The contents, and for each member its bytes or the reason why it cannot be read."""
    checked, found = Limits.model_validate(limits or {}), {}
    with open_members(data, sniff(data), OBJECT, Archive.model_validate(archive), checked) as contents:
        for recording, member in contents.members:
            name = recording.uri.partition("#")[2]
            try:
                found[name] = contents.read(recording, member, checked)
            except LoadError as error:
                found[name] = error.reason
    return contents, found


def raw_header(name: bytes, size_field: bytes, kind: bytes) -> bytes:
    """A tar header with anything as its size, and the right checksum."""
    header = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157], header[148:156] = size_field.ljust(12, b"\0"), kind, b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def pax(kind: bytes, records: dict[str, str]) -> bytes:
    body = b""
    for key, value in records.items():
        text = f" {key}={value}\n".encode()
        length = len(text) + len(str(len(text) + len(str(len(text)))))
        body += f"{length}".encode() + text
    return raw_header(b"pax", f"{len(body):011o}".encode(), kind) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def without_magic(header: bytes) -> bytes:
    """As tars were before POSIX."""
    old = bytearray(header)
    old[257:265], old[148:156] = bytes(8), b" " * 8
    old[148:156] = f"{sum(old):06o}\0 ".encode()
    return bytes(old)


WHOLE_FILE = raw_header(b"a.wav", b"00000000003", b"0") + b"abc".ljust(512, b"\0")
HOSTILE = {
    "negative-size": raw_header(b"b.wav", b"\xff\x80" + bytes(10), b"0"),
    "huge-size": raw_header(b"b.wav", b"\x80" + b"\x7f" * 11, b"0"),
    "negative-pax-size": pax(b"x", {"size": "-5"}) + raw_header(b"b.wav", b"00000000003", b"0") + bytes(512),
    "sparse": raw_header(b"b.wav", b"00000000000", b"S") + bytes(512),
    "old-sparse": without_magic(raw_header(b"b.wav", b"00000000000", b"S")) + bytes(512),
    "old-globals": (without_magic(raw_header(b"g", b"00000060000", b"g")) + bytes(24_576)) * 20,
    "pax-sparse": pax(b"x", {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "2000000000"})
    + raw_header(b"b.wav", b"00000000003", b"0")
    + bytes(512),
    "global-path": pax(b"g", {"path": "p" * 60_000}) + raw_header(b"b.wav", b"00000000000", b"0") * 3000,
    "many-globals": pax(b"g", {"comment": "c" * 100}) * 5000,
    "digits": pax(b"x", {"comment": "7" * 60_000}) + raw_header(b"b.wav", b"00000000003", b"0") + bytes(512),
    "long-name": pax(b"x", {"path": "p/" * 20_000}) + raw_header(b"b.wav", b"00000000003", b"0") + bytes(512),
}
