"""Children that a hostile archive has taken over: they answer what no honest unpacker does, or die. Imported by name."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dictalake.archive.descriptors import MOST_IN_MEMORY
from dictalake.archive.members import _ENTRY, Member, write_list
from dictalake.archive.unpacker import as_samples, unpack
from dictalake.errors import FetchFailed
from dictalake.sandbox.child import received_files

GOOD = Member("good.wav", 4, datetime(2024, 3, 2, tzinfo=UTC), (0,))


def _entry(**fields: Any) -> bytes:
    """One file with a field that it cannot have."""
    entry = np.zeros(1, _ENTRY)
    entry["name"] = 1
    for name, value in fields.items():
        entry[name] = value
    return entry.tobytes()


LIES: dict[str, tuple[dict[str, Any], bytes]] = {
    "negative-size": ({"members": 1}, _entry(size=-5) + b"a"),
    "negative-place": ({"members": 1}, _entry(place=[-1] * 6) + b"a"),
    "unknown-refusal": ({"members": 1}, _entry(refusal=77) + b"a"),
    "time-without-end": ({"members": 1}, _entry(time=1e300) + b"a"),
    "infinite-time": ({"members": 1}, _entry(time=np.inf) + b"a"),
    "name-without-end": ({"members": 1}, _entry(name=4097) + b"a" * 4097),
    "name-beyond-the-answer": ({"members": 1}, _entry(name=2**32 - 1) + b"a"),
    "half-characters": ({"members": 1}, _entry(name=3) + b"\xed\xa0\x80"),
    "no-text": ({"members": 1}, _entry(name=2) + b"\xff\xfe"),
    "more-than-it-sends": ({"members": 9}, _entry() + b"a"),
    "fewer-than-none": ({"members": -1}, b""),
    "a-fraction": ({"members": 1.5}, _entry() + b"a"),
    "a-word": ({"members": "many"}, b""),
    "nothing-said": ({}, b""),
    "words-of-its-own": ({"members": 0, "damage": "\x1b[2Jcall this number"}, b""),
    "unknown-damage": ({"members": 0, "damage": [99]}, b""),
    "numbers-that-do-not-fit": ({"members": 0, "damage": [0, 1]}, b""),
}


def lie(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Lists as the name of the object says; unpacks what it was told to list as ``kills``, ``stops`` and the like."""
    name = settings.get("name")
    if name in LIES:
        told, packed = LIES[name]
        return {"damage": None, "length": len(packed), **told}, as_samples(packed)
    if name == "too-many":
        told, packed = write_list([GOOD] * 12, None)
        return {**told, "length": len(packed)}, as_samples(packed)
    if name == "too-large":
        told, packed = write_list([Member("a", 10**12, None, (0,))], None)
        return {**told, "length": len(packed)}, as_samples(packed)
    if name == "claims-no-room":
        raise FetchFailed(recording_id, "the storage gives nothing")
    if name == "writes-on":
        size = _write_on(received_files()[1])
        return {"members": 0, "damage": None, "length": 0, "size": size}, as_samples(b"")
    if settings["do"] == "read" and settings["size"] > MOST_IN_MEMORY:
        os.dup(received_files()[1])  # it stays open after the call
    if settings["do"] == "read":
        return _misread(recording_id, settings)
    return unpack(data, recording_id, settings)


def _write_on(file: int) -> int:
    """Writes until it is refused."""
    size = 0
    try:
        while size < 300_000_000:
            size += os.pwrite(file, bytes(2**20), size)
    except OSError:
        pass
    return size


def _misread(recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    match settings["size"]:
        case 3:
            os._exit(1)
        case 5:
            signal.setitimer(signal.ITIMER_REAL, 0.2)  # as the clock of its limits does
            time.sleep(100)
        case 7:
            return {"length": 4000}, as_samples(b"x" * 4000)  # more than it announced
        case 9:
            return {"length": -1}, as_samples(b"short")
        case 11:
            bytearray(10**10)
        case 13:
            raise FetchFailed(recording_id, "the storage gives nothing")
    return unpack(b"", recording_id, settings)
