"""The recordings inside an archive object (ZIP, TAR, gzip): each file in it becomes a recording of its own.

======  ==============================================================================================
zip     stored and deflated members, Zip64; read in place (zip_files.py)
tar     ustar, GNU and PAX, also several one after the other; read in place (tar_files.py)
gzip    inflated once into a nameless temporary file; a tar inside is read there, anything else is one
        file (gzip_files.py)
======  ==============================================================================================

Nothing that an archive announces is trusted. The number of members, their total size and the length of each header are bounded
(``limits.members``, ``limits.expanded_mb``), and a member is never read beyond its announced size. An archive inside an archive
is not opened. Links, folders and devices are not members; the file that a link names is a member itself.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from dictalake.archive.gzip_files import list_gzip
from dictalake.archive.listing import compile_globs
from dictalake.archive.members import DAMAGE, Bounds, Member, check_size
from dictalake.archive.tar_files import list_tar
from dictalake.archive.zip_files import list_zip
from dictalake.audio.formats.sniff import SNIFFED_BYTES, sniff
from dictalake.config.sections import Archive, Limits
from dictalake.errors import CorruptAudio, LoadError, NoAudio, UnsupportedContainer
from dictalake.records import Data, Recording, make_member_id

KINDS = ("zip", "tar", "gzip")


def find_kind(data: Data, archive: Archive) -> str | None:
    """The kind of archive (one of KINDS) that ``data`` is and that ``archive.expand`` says to open; None for anything else."""
    kind = sniff(data[:SNIFFED_BYTES]) if archive.expand else None
    return kind if kind in KINDS else None


@dataclass(frozen=True)
class Contents:
    """What is inside one archive object. ``damage`` says why some of it may be missing, None where the archive is whole."""

    recording: Recording
    kind: str
    members: tuple[tuple[Recording, Member], ...]
    damage: str | None

    @property
    def rows(self) -> int:
        """One for each file, and one for the object itself where it is damaged."""
        return len(self.members) + (self.damage is not None)

    def check_whole(self) -> None:
        """Raises CorruptAudio, for the object itself, where it is damaged."""
        if self.damage is not None:
            raise CorruptAudio(
                self.recording.recording_id,
                f"this {self.kind} archive is damaged: {self.damage}; {len(self.members)} files were found in it, "
                "there may have been more; upload it again",
            )

    def read(self, recording: Recording, member: Member, limits: Limits) -> bytes:
        """The bytes of one member. Raises ObjectTooLarge, UnsupportedContainer or CorruptAudio."""
        check_size(member.size_bytes, recording.recording_id, limits)
        if member.refusal:
            raise UnsupportedContainer(recording.recording_id, member.refusal)
        try:
            data = member.read()
        except DAMAGE as error:
            raise CorruptAudio(
                recording.recording_id,
                f"this file is damaged inside its archive ({type(error).__name__}); pack or upload the archive again",
            ) from None
        if len(data) < member.size_bytes:
            raise CorruptAudio(recording.recording_id, "the archive ends in the middle of this file; upload it again")
        if sniff(data) in KINDS:
            raise UnsupportedContainer(
                recording.recording_id, "this is an archive inside an archive; unpack the outer one and upload what is in it"
            )
        return data


@contextmanager
def open_members(data: Data, kind: str, recording: Recording, archive: Archive, limits: Limits) -> Iterator[Contents]:
    """The files inside ``data``, an archive object of ``kind`` (one of KINDS), that ``archive.member_include`` admits.

    Each is a recording ``uri#name`` that knows the archive object it is of, and how many rows that makes. Raises CorruptAudio
    (cannot be opened at all), NoAudio (no files), NotAudio (an Office document), TooManyMembers, ExpandsTooLarge or FetchFailed
    (no room to unpack it).
    """
    with ExitStack() as stack:
        try:
            members, damage = _open(bytes(data), kind, recording, archive, limits, stack)
        except LoadError:
            raise
        except DAMAGE as error:
            raise CorruptAudio(
                recording.recording_id,
                f"this {kind} archive cannot be opened ({type(error).__name__}); it may be cut short: upload it again",
            ) from None
        admits = compile_globs(archive.member_include, "archive.member_include")
        members = [member for member in members if admits(member.name.removeprefix("./").lstrip("/"))]
        if not members and damage is None:
            raise NoAudio(recording.recording_id, f"this {kind} archive holds no file that archive.member_include admits")
        yield Contents(recording, kind, tuple(_name_all(members, recording, damage is not None)), damage)


def _name_all(members: Iterable[Member], of: Recording, is_damaged: bool) -> Iterator[tuple[Recording, Member]]:
    """A name that comes again (tar appends newer versions) is told apart: ``name~2``."""
    named: dict[str, Member] = {}
    times: Counter[str] = Counter()
    for member in members:
        name = member.name
        while name in named:
            times[member.name] += 1
            name = f"{member.name}~{times[member.name] + 1}"
        named[name] = member
    rows = len(named) + is_damaged
    for name, member in named.items():
        uri = f"{of.uri}#{name}"
        recording_id = make_member_id(of.recording_id, of.uri, name, of.version)
        recording = replace(
            of,
            recording_id=recording_id,
            attempt=of.member_attempts.get(recording_id, 0),
            uri=uri,
            size_bytes=member.size_bytes,
            modified_at=member.modified_at or of.modified_at,
            archive_id=of.recording_id,
            archive_rows=rows,
            done_members=(),
            member_attempts={},
        )
        yield recording, member


def _open(
    data: bytes, kind: str, recording: Recording, archive: Archive, limits: Limits, stack: ExitStack
) -> tuple[list[Member], str | None]:
    bounds = Bounds(recording.recording_id, limits)
    if kind == "zip":
        return list_zip(data, bounds, ZoneInfo(archive.time_zone), stack)
    if kind == "tar":
        return list_tar(io.BytesIO(data), bounds)
    return list_gzip(data, recording.uri, bounds, stack)
