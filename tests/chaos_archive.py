"""The archive of a chaos run, what has to become of each file in it, and whether that is what the lake holds."""

from __future__ import annotations

import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dictalake.archive.manifest import find_recordings
from dictalake.config.sections import Archive
from dictalake.records import make_recording_id
from tests.recordings import make_sound, write_wav

# What becomes of the broken files, by name; all others are ok.
BROKEN = {"text.wav": "not_audio", "empty.wav": "empty_object", "noise.wav": "corrupt_audio"}
PACKED = 16  # files in the one archive object
SOUNDS = 6
# A recording in whose company processes were killed again and again may be given up; that is counted, not hidden.
CRASHES = ("worker_crashed", "decoder_crashed")


def write_archive(folder: Path, recordings: int) -> Path:
    """Short recordings, of a few sounds; three broken ones and those in a ZIP count among ``recordings``."""
    sounds = [make_sound(2.0 + 0.4 * seed, seed) for seed in range(SOUNDS)]
    for number in range(recordings - PACKED - len(BROKEN)):
        write_wav(folder / f"{number % 7}/{number:05}.wav", sounds[number % SOUNDS])
    whole = (folder / "0/00000.wav").read_bytes()
    (folder / "3/text.wav").write_bytes(b"Dear colleague, thank you for referring this patient.\n" * 20)
    (folder / "4/empty.wav").write_bytes(b"")
    (folder / "5/noise.wav").write_bytes(whole[:12] + b"\x00\xff" * 4_000)
    with zipfile.ZipFile(folder / "2/packed.zip", "w") as packed:
        for number in range(PACKED):
            packed.write(folder / f"{number % 7}/{number:05}.wav", f"{number:05}.wav")
    return folder


def expect_rows(archive: Archive) -> dict[str, str | None]:
    """recording_id → the reason why it fails, None for those that are ok: from the archive alone."""
    expected: dict[str, str | None] = {}
    for recording in find_recordings(archive):
        name = recording.uri.rsplit("/", 1)[1]
        if name.endswith(".zip"):
            uris = [f"{recording.uri}#{number:05}.wav" for number in range(PACKED)]
            expected |= dict.fromkeys((make_recording_id(uri, recording.version) for uri in uris), None)
        else:
            expected[recording.recording_id] = BROKEN.get(name)
    return expected


@dataclass(frozen=True)
class Verdict:
    """What a finished lake holds. ``crashed``: recordings that were given up. ``wrong``: rows of nothing in the archive,
    of another outcome than the file's, of another configuration, and sounds that have more than one text."""

    expected: int
    there: int
    lost: int
    duplicated: int
    crashed: int
    wrong: tuple[str, ...]


def verify(rows: Iterable[Mapping[str, Any]], expected: Mapping[str, str | None]) -> Verdict:
    """Compares committed rows, those of all attempts, with what ``expect_rows`` says."""
    rows = list(rows)
    times = Counter((row["recording_id"], row["attempt"], row["fingerprint"]) for row in rows)
    wrong: list[str] = []
    if len(fingerprints := {row["fingerprint"] for row in rows}) > 1:
        wrong.append(f"one command, {len(fingerprints)} fingerprints")
    crashed = 0
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        name, error = row["recording_id"], row["error"]
        reason = error["reason"] if error else None
        if row["status"] == "ok":
            texts[row["source"]["sha256"]].add(row["text"])
        if name not in expected:
            wrong.append(f"{name}: there is no such recording in the archive")
        elif reason in CRASHES:
            crashed += 1
        elif reason != expected[name] or (row["status"] == "ok") != (reason is None):
            told = f"{error['stage']}: {reason}: {error['detail']}" if error else "no error"
            wrong.append(f"{name}: {row['status']}, {told}; should be {expected[name] or 'ok'}")
    wrong += [f"one sound, {len(of_sound)} texts" for of_sound in texts.values() if len(of_sound) > 1]
    there = {row["recording_id"] for row in rows} & set(expected)
    return Verdict(
        expected=len(expected),
        there=len(there),
        lost=len(expected) - len(there),
        duplicated=sum(times.values()) - len(times),
        crashed=crashed,
        wrong=tuple(wrong),
    )
