"""The nouns: frozen records that rooms take and return. Units are in the names; shapes and dtypes in the docstrings."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from pathlib import PurePosixPath

import numpy as np

from dictalake.errors import TranscriptionError

SAMPLE_RATE_HZ = 16_000

# What one recording consists of. A large one is mapped from a nameless temporary file, which goes when nobody holds it.
Data = bytes | mmap.mmap

BAD_LINE_VERSION = "bad_manifest_line"  # of a recording that stands for a line that cannot be used: no object has it

REPAIR_WORDS = (
    "header_open",
    "header_short",
    "header_repaired",
    "joined",
    "hole",
    "damaged",
    "cut_end",
    "leading_bytes",
    "trailing_bytes",
    "clock_reset",
)


def make_recording_id(uri: str, version: str) -> str:
    """blake2b-128 of ``uri`` and object ``version``: 32 hex digits that never change for the same object version."""
    return _hash(f"{uri}\n{version}")


def make_object_id(uri: str, version: str) -> str:
    """The id of an object of the archive. The file ``b`` in the archive object ``a`` has the URI ``a#b``, and so may an object:
    of a URI with a ``#`` the hash tells where it ends, so that no object has the id of a file in another one.
    """
    return _hash(f"\n{len(uri)}\n{uri}\n\n{version}") if "#" in uri else make_recording_id(uri, version)


def make_member_id(archive_id: str, uri: str, name: str, version: str) -> str:
    """The id of the file ``name`` in the archive object with this id, URI and version.

    Members of an object whose URI has a ``#`` are named by the same rule as the object: before 0.2 by the old one.
    """
    if "#" not in uri or archive_id == make_recording_id(uri, version):
        return make_recording_id(f"{uri}#{name}", version)
    return _hash(f"\n{len(uri)}\n{uri}\n{len(name)}\n{name}\n{version}")


def make_local_version(status: os.stat_result) -> str:
    """The version of a file on a disk."""
    return f"{status.st_mtime_ns}-{status.st_size}"


def list_subject_uris(uri: str, version: str | None = None, archive_id: str | None = None) -> tuple[str, ...]:
    """The URIs that an erasure may name in order to mean a recording: its own first, then that of what it is in.

    A file is in an archive object, a bad line in a manifest. Any of these names may hold a ``#``: the object's id, which is
    ``archive_id``, tells where the object's URI ends. An object of the archive is in nothing, whatever its name.
    """
    if "#" not in uri:
        return (uri,)
    if version == BAD_LINE_VERSION:
        return uri, uri.rpartition("#")[0]
    if archive_id is None:
        return (uri,)
    places = [place for place, mark in enumerate(uri) if mark == "#"]
    for of in (*(uri[:place] for place in places), uri):
        if archive_id in (make_object_id(of, version or ""), make_recording_id(of, version or "")):
            return (uri,) if of == uri else (uri, of)
    return uri, *(uri[:place] for place in places)  # the id is of nothing that is known: it may be in each of them


def find_ending(name: str) -> str:
    """``wav`` of a path, URI or name that ends in ``.WAV``; empty for none."""
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Recording:
    """One object of the archive at one version: the unit of work.

    ``version`` is the GCS generation, S3 version id or ETag, else ``mtime-size``. ``metadata`` are the other columns of the
    user's manifest. A file inside an archive object (ZIP, TAR) is a recording too: ``archive_id`` is that object's id and
    ``archive_rows`` how many rows it makes in all. ``done_members`` of an archive object are the ids that need no work any
    more, ``member_attempts`` the attempts of those that are tried again. With an ``error`` there is nothing to read: the
    recording stands for a line of the manifest, or an entry of a folder, that cannot be used. ``old_uris`` are other URIs under
    which an older version may have put it into the lake. ``ending`` is that of the name that was asked for, where a
    link has another one than what it leads to.
    """

    recording_id: str
    uri: str
    version: str
    size_bytes: int
    modified_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    archive_id: str | None = None
    archive_rows: int | None = None
    done_members: tuple[str, ...] = ()
    member_attempts: Mapping[str, int] = field(default_factory=dict)
    error: TranscriptionError | None = None
    old_uris: tuple[str, ...] = ()
    ending: str | None = None


@dataclass(frozen=True)
class AudioFormat:
    """How the audio was stored, in the container's own words (``wav``/``pcm_s16le``, ``dicom``/``mu_law`` …).

    ``tracks`` names for each channel the sound track that it comes from, counted from 0; None where there is one track.
    """

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    bits_per_sample: int | None = None
    tracks: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Account:
    """``lost_s`` in seconds: 0.0 when the account closes, None when nothing can be known. ``repairs`` are sorted words
    of REPAIR_WORDS; ``audio/formats/account.py`` says what each means.

    ``broken_s`` is the part of ``lost_s`` that is missing by damage or a cut, not by a jump of an intact clock: it decides
    whether the recording is refused (``limits.lost_ratio``).
    """

    lost_s: float | None = 0.0
    repairs: tuple[str, ...] = ()
    broken_s: float = 0.0

    def __post_init__(self) -> None:
        unknown = set(self.repairs) - set(REPAIR_WORDS)
        if unknown:
            raise ValueError(f"no words of the vocabulary: {', '.join(sorted(unknown))}")

    def also(self, *repairs: str, lost_s: float = 0.0, broken_s: float = 0.0) -> Account:
        """This account with more of each."""
        return Account(
            None if self.lost_s is None else self.lost_s + lost_s,
            tuple(sorted({*self.repairs, *repairs})),
            self.broken_s + broken_s,
        )


CLOSED = Account()


@dataclass(frozen=True)
class DecodedAudio:
    """What a container holds: ``samples`` float32 ``(channels, frames)`` in [-1, 1] at ``format.sample_rate_hz``.

    ``dicom`` holds the allow-listed attributes of a DICOM object in snake_case, None for plain audio; ``patient`` those of the
    patient that were asked for, by keyword: they go no further than to where they are hashed. ``account`` is of its time.
    """

    samples: np.ndarray
    format: AudioFormat
    dicom: Mapping[str, str | datetime | None] | None = None
    patient: Mapping[str, str] = field(default_factory=dict)
    account: Account = CLOSED


@dataclass(frozen=True)
class Window:
    """An interval ``[start, start + length)`` in samples at 16 kHz that the acoustic model sees in one pass."""

    start: int
    length: int


@dataclass(frozen=True)
class FrameGrid:
    """Where a model's output frames lie: frame ``i`` sees ``receptive`` samples around ``step × i + centre``."""

    step: int
    receptive: int

    @property
    def centre(self) -> int:
        return self.receptive // 2

    def window_of(self, length_s: float) -> int:
        """Samples of a window of ``length_s``, rounded down to the grid; at least two frames."""
        frames = max(int(length_s * SAMPLE_RATE_HZ) // self.step, 2 * -(-self.receptive // self.step))
        return frames * self.step

    def frames_of(self, samples: int) -> int:
        """Output frames of ``samples`` input samples; 0 below one receptive field."""
        return 0 if samples < self.receptive else (samples - self.receptive) // self.step + 1

    def time_s(self, frame: int) -> float:
        """The middle of ``frame`` on the recording's time axis."""
        return (frame * self.step + self.centre) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities of one channel, sparse: per kept frame only the tokens that a decoder may use.

    ``frame_index`` int32 ``(kept,)`` is the true frame of each kept frame: runs of sure blanks are collapsed into one.
    Tokens of kept frame ``k`` are ``token_ids[offsets[k]:offsets[k + 1]]`` (uint16) with ``logp`` (float16, natural log).
    ``frames`` is the length of the true time axis, ``vocabulary_size`` the width of the dense matrix.
    """

    frames: int
    vocabulary_size: int
    frame_index: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    logp: np.ndarray

    @property
    def kept(self) -> int:
        return len(self.frame_index)

    def dense(self) -> np.ndarray:
        """float32 ``(kept, vocabulary_size)``; probability left over goes in equal parts to the tokens that were pruned."""
        counts = np.diff(self.offsets)
        rows = np.repeat(np.arange(self.kept), counts)
        kept = np.bincount(rows, np.exp(self.logp.astype(np.float64)), minlength=self.kept)
        left = np.clip(1.0 - kept, 1e-12, None) / np.maximum(self.vocabulary_size - counts, 1)
        log_probs = np.empty((self.kept, self.vocabulary_size), dtype=np.float32)
        log_probs[:] = np.log(left)[:, None]
        log_probs[rows, self.token_ids] = self.logp
        return log_probs


@dataclass(frozen=True)
class Piece:
    """One emitted vocabulary entry over the true frames ``[start_frame, end_frame)``, with its peak log-probability there.

    ``posterior`` 0–1 is the share of the n-best list, by its scores, that has this piece at this time.
    """

    token_id: int
    text: str
    start_frame: int
    end_frame: int
    logp: float
    posterior: float = 1.0


@dataclass(frozen=True)
class Hypothesis:
    """One possible transcript of a channel, from a decoder. Scores are natural logs; greedy has ``lm_score`` 0.

    ``lm_score`` is weighted, and holds the score of each piece; ``hotword_score`` is the bonus of its hotwords.
    """

    pieces: tuple[Piece, ...]
    acoustic_score: float = 0.0
    lm_score: float = 0.0
    hotword_score: float = 0.0

    @property
    def total_score(self) -> float:
        return self.acoustic_score + self.lm_score + self.hotword_score


@dataclass(frozen=True)
class Word:
    """A written word (markup such as ``{period}`` is one) with its time; ``confidence`` is 0–1, or None if there is none."""

    word: str
    start_s: float
    end_s: float
    confidence: float | None
    channel: int = 0
