"""The recordings inside an archive object (ZIP, TAR, gzip): each file in it becomes a recording of its own.

======  ==============================================================================================
zip     stored and deflated members, Zip64; read in place (zip_files.py)
tar     ustar, GNU and PAX, also several one after the other; read in place (tar_files.py)
gzip    inflated once into a nameless temporary file; a tar inside is read there, anything else is one
        file (gzip_files.py)
======  ==============================================================================================

A sandboxed child lists the files and unpacks them (``unpacker.py``). It gets a descriptor of the object's own bytes, and
answers with a list that is checked here number by number, then with the bytes of one file a call. A child that dies, hangs or
runs out of memory costs the file that it was unpacking, or the object that it was listing; the next call has a fresh child.

Nothing that an archive announces is trusted. The number of members, their total size and the length of each header are bounded
(``limits.members``, ``limits.expanded_mb``), and a member is never read beyond its announced size. An archive inside an archive
is not opened. Links, folders and devices are not members; the file that a link names is a member itself.
"""

from __future__ import annotations

import errno
import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from dictalake.archive.descriptors import MOST_IN_MEMORY, map_file, open_bytes, open_empty
from dictalake.archive.globs import compile_globs
from dictalake.archive.gzip_files import no_room
from dictalake.archive.members import Bounds, ListError, Member, check_size, read_list
from dictalake.archive.unpacker import unpack
from dictalake.audio.formats.sniff import SNIFFED_BYTES, sniff
from dictalake.config.sections import Archive, Limits
from dictalake.errors import (
    CorruptAudio,
    DecoderCrashed,
    DecoderTimeout,
    ExpandsTooLarge,
    FetchFailed,
    NoAudio,
    TooLarge,
    TooManyMembers,
    UnsupportedContainer,
)
from dictalake.records import Data, Recording, make_member_id
from dictalake.sandbox.levels import Level
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import OF_CONTENT, Sandbox

KINDS = ("zip", "tar", "gzip")
RAISED = (*OF_CONTENT, TooManyMembers, ExpandsTooLarge, FetchFailed)  # of ``unpack``; the last is checked here
_ROOM = 2**20
UNPACKERS = 2  # child processes of one caller
UNPACK_MB = 160.0  # megabytes of memory that a child may take: the list of 100,000 files fits, and no file is in memory whole


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
    _unpacker: _Unpacker

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

    def read(self, recording: Recording, member: Member, limits: Limits) -> Data:
        """The bytes of one member; many lie in a nameless temporary file.

        Raises ObjectTooLarge, UnsupportedContainer, CorruptAudio, FetchFailed (no room on the disk), and what the sandbox
        raises: TooLarge, DecoderTimeout, DecoderCrashed.
        """
        check_size(member.size_bytes, recording.recording_id, limits)
        if member.refusal:
            raise UnsupportedContainer(recording.recording_id, member.refusal)
        data = self._unpacker.read(recording.recording_id, member)
        if len(data) < member.size_bytes:
            raise CorruptAudio(recording.recording_id, "the archive ends in the middle of this file; upload it again")
        if sniff(data[:SNIFFED_BYTES]) in KINDS:
            raise UnsupportedContainer(
                recording.recording_id, "this is an archive inside an archive; unpack the outer one and upload what is in it"
            )
        return data


@contextmanager
def open_members(
    data: Data, kind: str, recording: Recording, archive: Archive, limits: Limits, level: Level = "auto"
) -> Iterator[Contents]:
    """The files inside ``data``, an archive object of ``kind`` (one of KINDS), that ``archive.member_include`` admits.

    Each is a recording ``uri#name`` that knows the archive object it is of, and how many rows that makes. Raises CorruptAudio
    (cannot be opened at all), NoAudio (no files), NotAudio (an Office document), TooManyMembers, ExpandsTooLarge, FetchFailed
    (no room to unpack it), ConfigError where ``level`` (``sandbox.level``) asks for more than this machine has, and what the
    sandbox raises: TooLarge, DecoderTimeout, DecoderCrashed.
    """
    with ExitStack() as stack:
        unpacker = _Unpacker(kind, recording.recording_id, limits, level, stack)
        members, damage = unpacker.list(data, recording.uri, archive.time_zone)
        admits = compile_globs(archive.member_include, "archive.member_include")
        members = [member for member in members if admits(member.name.removeprefix("./").lstrip("/"))]
        if not members and damage is None:
            raise NoAudio(recording.recording_id, f"this {kind} archive holds no file that archive.member_include admits")
        yield Contents(recording, kind, tuple(_name_all(members, recording, damage is not None)), damage, unpacker)


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
            ending=None,
        )
        yield recording, member


class _Unpacker:
    """One archive object, as its caller has it: descriptors for the children, and what they are asked."""

    def __init__(self, kind: str, recording_id: str, limits: Limits, level: Level, stack: ExitStack) -> None:
        """``stack`` closes the descriptors."""
        self._kind, self._recording_id, self._limits, self._stack = kind, recording_id, limits, stack
        self._sandbox = _open_sandbox(CallLimits(limits.decode_s, UNPACK_MB, int(limits.expanded_mb * 1e6)), level)
        self._source, self._lock = -1, Lock()  # where the members are read

    @contextmanager
    def _open_source(self) -> Iterator[int]:
        """A descriptor that stays the one that it is, even if another thread leaves ``open_members`` meanwhile."""
        with self._lock:
            source = os.dup(self._source)
        try:
            yield source
        finally:
            os.close(source)

    def _forget(self) -> None:
        with self._lock:
            self._source = -1

    def list(self, data: Data, uri: str, time_zone: str) -> tuple[list[Member], str | None]:
        """The members and the damage, and from then on where they are read."""
        settings = {"kind": self._kind, "limits": self._limits.model_dump(), "time_zone": time_zone, "name": _name_inside(uri)}
        files = []
        try:
            self._source = self._stack.enter_context(open_bytes(data))
            files.append(self._source)
            if self._kind == "gzip":
                into, inflated = self._stack.enter_context(open_empty())
                files.append(into)
        except OSError as error:
            raise no_room(self._recording_id, error) from None
        answer, packed = self._call(self._sandbox.call, self._recording_id, {"do": "list", **settings}, files)
        if self._kind == "gzip":
            self._source = inflated
        self._stack.callback(self._forget)  # before the descriptors are closed
        try:
            return read_list(answer, packed, Bounds(self._recording_id, self._limits))
        except ListError as error:
            raise DecoderCrashed(
                self._recording_id, f"the process that lists this archive answered {error}; handle this file with caution"
            ) from None

    def read(self, recording_id: str, member: Member) -> Data:
        """At most as many bytes as ``member`` announces."""
        if not member.size_bytes:
            return b""
        settings = {"do": "read", "kind": self._kind, "size": member.size_bytes, "place": member.place}
        with self._open_source() as source:
            if member.size_bytes > MOST_IN_MEMORY:
                return self._read_into_file(source, recording_id, member, settings)
            _, data = self._call(self._sandbox.call, recording_id, settings, [source])
        return bytes(data[: member.size_bytes])

    def _read_into_file(self, source: int, recording_id: str, member: Member, settings: dict[str, Any]) -> Data:
        """Through a child of its own, which is gone before the file is mapped: it could make it shorter."""
        with ExitStack() as stack:
            with _explain_no_room(recording_id):
                into, written = stack.enter_context(open_empty())
            with self._sandbox.session() as session:
                self._call(session.call, recording_id, settings, [source, into])
            with _explain_no_room(recording_id):
                size = min(os.fstat(written).st_size, member.size_bytes)
                return map_file(written, size) if size else b""
        raise AssertionError("unreachable")

    def _call(
        self, call: Any, recording_id: str, settings: dict[str, Any], files: Sequence[int]
    ) -> tuple[dict[str, Any], memoryview]:
        """What the child says, and the bytes of its answer."""
        try:
            told, samples = call(b"", recording_id, settings, files)
        except FetchFailed:
            if len(files) < 2 or _has_room(files[1]):
                raise DecoderCrashed(
                    recording_id, "its unpacker found no room on the disk, where there is some; handle this file with caution"
                ) from None
            raise
        except TooLarge:
            raise TooLarge(
                recording_id,
                f"unpacking it takes more than {UNPACK_MB:g} MB of memory, as no archive of recordings does: handle this file "
                "with caution",
            ) from None
        except DecoderTimeout:
            raise DecoderTimeout(
                recording_id,
                f"unpacking it takes more than {self._limits.decode_s:g} s of the processor, or three times that of the clock "
                "(limits.decode_s); split the archive, or raise the limit",
            ) from None
        data = memoryview(samples.reshape(-1)).cast("B")
        length = told.get("length")
        if type(length) is not int or not 0 <= length <= len(data):
            length = len(data)
        return told, data[:length]


@contextmanager
def _explain_no_room(recording_id: str) -> Iterator[None]:
    """Around what touches files alone: that a process cannot be started says nothing of the disk."""
    try:
        yield
    except OSError as error:
        raise no_room(recording_id, error) from None


def _has_room(file: int) -> bool:
    """Whether more could be written to ``file``: storage that refuses everything ends a run, so a child is not believed."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(file, os.fstat(file).st_size, _ROOM)
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return True


def _name_inside(uri: str) -> str:
    """What the only file in a gzip is called."""
    name = uri.rsplit("/", 1)[-1]
    return name[: -len(".gz")] if name.lower().endswith(".gz") else name


@functools.cache
def _open_sandbox(limits: CallLimits, level: Level) -> Sandbox:
    """Kept for the life of the process: to start a child takes longer than to read a small archive."""
    return Sandbox(unpack, limits, UNPACKERS, level, raises=RAISED)
