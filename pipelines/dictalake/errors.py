"""One tree of errors. Each failure of a recording has a stable ``reason``, the ``stage`` it happened in, and ``retryable``.

A ``detail`` is a sentence for the person who reads the lake. It never holds transcript text, a URI or a patient's data:
it may name sizes, rates, tags and formats.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path


class DictalakeError(Exception):
    """Base of every error that dictalake raises on purpose."""


class ConfigError(DictalakeError):
    """A bad or missing configuration value; the run does not start (exit code 2)."""


class RunError(DictalakeError):
    """The run itself cannot start or go on (exit code 1)."""


class TranscriptionError(DictalakeError):
    """Base of every failure of one recording; pickles across workers and becomes the row's ``error``."""

    stage = "unknown"
    reason = "unknown"
    retryable = False

    def __init__(self, recording_id: str, detail: str) -> None:
        super().__init__(recording_id, detail)

    @property
    def recording_id(self) -> str:
        return str(self.args[0])

    @property
    def detail(self) -> str:
        return str(self.args[1])

    def __str__(self) -> str:
        return f"recording {self.recording_id}: {self.reason} in {self.stage}: {self.detail}"


class LoadError(TranscriptionError):
    stage = "load"


class NotFound(LoadError):
    """The object is no longer there."""

    reason = "not_found"


class AccessDenied(LoadError):
    """The credentials may not read the object."""

    reason = "access_denied"


class CredentialsExpired(LoadError):
    """The credentials expired while the run went on, and no fresh ones were found."""

    reason = "credentials_expired"
    retryable = True


class FetchFailed(LoadError):
    """Reading the object failed again and again for reasons that may pass."""

    reason = "fetch_failed"
    retryable = True


class ChangedDuringRead(LoadError):
    """The object is no longer the version that the manifest names."""

    reason = "changed_during_read"
    retryable = True


class EmptyObject(LoadError):
    """The object has no bytes."""

    reason = "empty_object"


class NotAudio(LoadError):
    """The bytes are of something that is not audio, whatever the name says."""

    reason = "not_audio"


class UnsupportedContainer(LoadError):
    """Audio of a kind that dictalake does not read."""

    reason = "unsupported_container"


class UnsupportedCodec(LoadError):
    """A container that dictalake reads, with a coding inside that it does not."""

    reason = "unsupported_codec"


class CorruptAudio(LoadError):
    """Audio that cannot be decoded."""

    reason = "corrupt_audio"


class NoAudio(LoadError):
    """A sound object without a single sample, or a DICOM object without a waveform."""

    reason = "no_audio"


class ObjectTooLarge(LoadError):
    """The object has more bytes than ``limits.object_mb``."""

    reason = "object_too_large"


class TooManyMembers(LoadError):
    """An archive object holds more files than ``limits.members``."""

    reason = "too_many_members"


class ExpandsTooLarge(LoadError):
    """An archive object unpacks to more than ``limits.expanded_mb``."""

    reason = "expands_too_large"


class TooLong(LoadError):
    """The recording is longer than ``limits.duration_h``."""

    reason = "too_long"


class TooManyChannels(LoadError):
    """The recording has more channels than ``limits.channels``."""

    reason = "too_many_channels"


class TooManyWindows(LoadError):
    """The recording, all channels together, has more windows than ``limits.windows``."""

    reason = "too_many_windows"


class TooLarge(LoadError):
    """Decoding wants more memory than ``limits.decode_mb``: mostly a header that announces what is not there."""

    reason = "too_large"


class DecoderCrashed(LoadError):
    """The decoder's process died on these bytes, twice."""

    reason = "decoder_crashed"


class Erased(LoadError):
    """What it is of was erased by ``forget``; the row holds nothing else."""

    reason = "erased"


class DecoderTimeout(LoadError):
    """The decoder was not done with these bytes within ``limits.decode_s``."""

    reason = "decoder_timeout"


class EmitFailed(TranscriptionError):
    """The acoustic model failed on this recording."""

    stage, reason, retryable = "emit", "model_failed", True


class RecognizeFailed(EmitFailed):
    """The engine failed on this recording."""

    stage = "hear"


class DecodeFailed(TranscriptionError):
    """The decoder failed on this recording."""

    stage, reason = "decode", "decoder_failed"


class WorkerCrashed(TranscriptionError):
    """The worker's process died on this recording again and again, in company and alone."""

    reason, retryable = "worker_crashed", True

    def __init__(self, recording_id: str, detail: str, stage: str = "unknown") -> None:
        Exception.__init__(self, recording_id, detail, stage)
        self.stage = stage


class InternalError(TranscriptionError):
    """A defect of dictalake, kept to the one recording it met; the detail names the exception's type and place."""

    reason, retryable = "internal_error", True

    def __init__(self, recording_id: str, detail: str, stage: str = "unknown") -> None:
        Exception.__init__(self, recording_id, detail, stage)
        self.stage = stage


def name_place(error: BaseException) -> str:
    """Type and place of an exception. Its own words may quote audio tags, paths or rows, and are left out."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


def list_reasons() -> list[str]:
    """Every ``reason`` that a failed row may have, sorted."""

    def walk(kind: type[TranscriptionError]) -> Iterator[str]:
        yield kind.reason
        for below in kind.__subclasses__():
            yield from walk(below)

    return sorted(set(walk(TranscriptionError)) - {TranscriptionError.reason})
