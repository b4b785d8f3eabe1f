"""All errors of dictalake, and for each failure what happened and what to do about it.

Each reason why a recording can fail is a subclass of TranscriptionError. The class holds the ``reason`` and the ``stage``
that are written to the row, and whether a retry may succeed (``retryable``). It also holds two texts for people: the
``meaning`` (what happened) and the ``advice`` (what to do). The documentation, the report and ``doctor`` take these from
``list_failures()``.

The ``detail`` of an error describes the single case. It may name sizes, rates, tags and formats. It never holds transcript
text, a URI or patient data.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class DictalakeError(Exception):
    """Base of every error that dictalake raises on purpose."""


class ConfigError(DictalakeError):
    """A configuration value is bad or missing. The run does not start (exit code 2)."""


class RunError(DictalakeError):
    """The run itself cannot start or continue (exit code 1). Programs tell the subclasses apart by ``reason``."""

    reason: str | None = None
    meaning = advice = ""


class ArchiveEmpty(RunError):
    """The archive lists nothing, although the lake holds recordings from it."""

    reason = "archive_empty"
    meaning = "The archive lists nothing, although the lake holds recordings from it. No row was changed."
    advice = "Check that its folder is mounted and that archive.uri is right. If everything was deleted, add --allow-empty."


class TranscriptionError(DictalakeError):
    """Base of every failure of one recording. It pickles across workers and becomes the ``error`` of the row."""

    stage = "unknown"
    reason = "unknown"
    retryable = False
    meaning = "This version of dictalake does not know the reason."
    advice = "Read error.detail, or use the version of dictalake that wrote the row."

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
    """Base of failures to fetch a recording or to decode it to samples."""

    stage = "load"


class EmptyObject(LoadError):
    reason = "empty_object"
    meaning = "The object has no bytes."
    advice = "The recorder or the upload stopped early: upload the file again."


class NotAudio(LoadError):
    reason = "not_audio"
    meaning = "The bytes are not audio, whatever the name of the file says."
    advice = "Leave such files out with archive.include."


class UnsupportedContainer(LoadError):
    reason = "unsupported_container"
    meaning = "The file is audio of a kind that dictalake does not read, such as DS2 or an encrypted file, or is headerless."
    advice = "Export or unpack the file as error.detail says, and upload the result; for a headerless file, set the key."


class UnsupportedCodec(LoadError):
    reason = "unsupported_codec"
    meaning = "The container is supported, but not the codec or the sampling rate inside it."
    advice = "Convert the file to another codec; error.detail names the one that was found."


class CorruptAudio(LoadError):
    reason = "corrupt_audio"
    meaning = "The container is supported, but its content is damaged and cannot be decoded."
    advice = "Fetch the file again from where it was recorded."


class NoAudio(LoadError):
    reason = "no_audio"
    meaning = (
        "The file has no samples or is a film without a sound track, or the DICOM object has neither a waveform nor an "
        "embedded audio file."
    )
    advice = "There is nothing to transcribe; leave such files out with archive.include."


class ObjectTooLarge(LoadError):
    reason = "object_too_large"
    meaning = "The object is larger than limits.object_mb."
    advice = "Split the file, or raise the limit and run again with --retry-failed object_too_large."


class TooManyMembers(LoadError):
    reason = "too_many_members"
    meaning = "The ZIP or TAR holds more files than limits.members."
    advice = "Split the archive, or raise the limit and run again with --retry-failed too_many_members."


class ExpandsTooLarge(LoadError):
    reason = "expands_too_large"
    meaning = "The ZIP, TAR or gzip file unpacks to more than limits.expanded_mb."
    advice = (
        "Check whether the file is an attack; if it is not, split it, or raise the limit and run again with "
        "--retry-failed expands_too_large."
    )


class ArchiveOverBudget(LoadError):
    reason = "archive_over_budget"
    meaning = (
        "The ZIP, TAR or gzip file holds more hours of sound, or takes longer, than one such file may: limits.archive_h or "
        "limits.archive_s, as error.detail says. The files before this one have rows of their own."
    )
    advice = (
        "Check whether the file is an attack; if it is not, raise the limit and run again with --retry-failed "
        "archive_over_budget, which reads only the files that are missing."
    )


class TooLong(LoadError):
    reason = "too_long"
    meaning = "The recording is longer than limits.duration_h."
    advice = "Split the recording, or raise the limit and run again with --retry-failed too_long."


class TooManyChannels(LoadError):
    reason = "too_many_channels"
    meaning = "The recording has more channels than limits.channels."
    advice = "Split the recording, or raise the limit and run again with --retry-failed too_many_channels."


class TooManyWindows(LoadError):
    reason = "too_many_windows"
    meaning = "All channels of the recording together have more windows than limits.windows."
    advice = "Split the recording, or raise the limit and run again with --retry-failed too_many_windows."


class TooLarge(LoadError):
    reason = "too_large"
    meaning = "Decoding needs more memory than limits.decode_mb."
    advice = (
        "The header is probably damaged; if the file plays elsewhere, raise the limit and run again with "
        "--retry-failed too_large."
    )


class DecoderTimeout(LoadError):
    reason = "decoder_timeout"
    meaning = "Decoding took longer than limits.decode_s."
    advice = (
        "The file is probably damaged; if it plays elsewhere, raise the limit and run again with --retry-failed "
        "decoder_timeout."
    )


class NoMemorySlot(LoadError):
    reason = "no_memory_slot"
    retryable = True
    meaning = (
        "The recording needs more memory than a decoder's share, or its decoder ended as if it did. A machine decodes one "
        "such recording at a time, and this one waited too long for its turn. Nothing is known to be wrong with it."
    )
    advice = "Run again with --retry-failed; if many recordings fail like this, raise ray.load_memory_mb."


class DecoderCrashed(LoadError):
    reason = "decoder_crashed"
    meaning = "The decoder's process died twice on this file, or gave an answer that no decoder gives."
    ended = False  # whether the process died, for which lack of memory may be the cause
    advice = "Inspect the file with care: it may be an attack."


class NotFound(LoadError):
    reason = "not_found"
    meaning = "The object was deleted after it was listed."
    advice = "Nothing, unless the file should still be there."


class AccessDenied(LoadError):
    reason = "access_denied"
    meaning = "The credentials do not allow reading the object."
    advice = "Grant them read access, then run again with --retry-failed access_denied."


class CredentialsExpired(LoadError):
    reason = "credentials_expired"
    retryable = True
    meaning = "The credentials expired during the run, and no fresh ones were found."
    advice = "Log in again or renew the token, then run again with --retry-failed."


class FetchFailed(LoadError):
    reason = "fetch_failed"
    retryable = True
    meaning = "Reading the object failed repeatedly with errors that are often temporary."
    advice = "Check the network and the storage, then run again with --retry-failed."


class ChangedDuringRead(LoadError):
    reason = "changed_during_read"
    retryable = True
    meaning = "The object was replaced between listing and reading."
    advice = "Nothing: the next run transcribes the new version as a new recording."


class BadManifestLine(LoadError):
    reason = "bad_manifest_line"
    meaning = "A line of archive.manifest names no recording that dictalake can look for; error.detail says which and why."
    advice = "Correct the line and run again: the corrected line is a new recording, and this row stays."


class NotAllowed(LoadError):
    reason = "not_allowed"
    meaning = "A line of a manifest or inventory names an object outside archive.allowed. dictalake did not contact that place."
    advice = (
        "Add its folder or bucket to archive.allowed and run again: the object is then a new recording, and this row stays."
    )


class LinkLoop(LoadError):
    reason = "link_loop"
    meaning = "The entry is a symbolic link that leads back to itself."
    advice = "Replace the link with the file that it should lead to, or remove it."


class NameTooLong(LoadError):
    reason = "name_too_long"
    meaning = "The path is longer than the operating system opens (4,096 bytes)."
    advice = "Move the file to a folder higher up, or set archive.uri to a folder closer to the file."


class EntryFailed(LoadError):
    reason = "entry_failed"
    meaning = "The folder or bucket lists the entry, but dictalake could not find out what it is."
    advice = "Check the disk, as error.detail says, and run again: an entry that can be read then is a new recording."


class IdTaken(LoadError):
    reason = "id_taken"
    meaning = "Another recording has the same recording_id, and its row was written first; error.detail names both."
    advice = "Rename one of the two objects: it then gets another id. Please report this, as it is not supposed to happen."


class Erased(LoadError):
    reason = "erased"
    meaning = "The recording was erased with dictalake forget; the row holds nothing else."
    advice = "Nothing."


class EmitFailed(TranscriptionError):
    stage, reason, retryable = "emit", "model_failed", True
    meaning = "The acoustic model or the speech engine failed on this recording."
    advice = "Run again with --retry-failed; if it fails again, report the place that error.detail names."


class RecognizeFailed(EmitFailed):
    """The same failure in an engine that returns text directly."""

    stage = "hear"


class DecodeFailed(TranscriptionError):
    stage, reason = "decode", "decoder_failed"
    meaning = "The CTC decoder failed on this recording."
    advice = "This is a defect of dictalake: report the place that error.detail names."


class WorkerCrashed(TranscriptionError):
    reason, retryable = "worker_crashed", True
    meaning = "The worker's process died repeatedly on this recording, also when it processed the recording alone."
    advice = (
        "The recording is too large for the worker's memory, or a library has a defect: run again with "
        "--retry-failed and larger ray.*_memory_mb."
    )

    def __init__(self, recording_id: str, detail: str, stage: str = "unknown") -> None:
        Exception.__init__(self, recording_id, detail, stage)
        self.stage = stage


class InternalError(TranscriptionError):
    reason, retryable = "internal_error", True
    meaning = "A defect of dictalake stopped this one recording; error.detail names the exception and its place."
    advice = "Report the place that error.detail names; after an update, run again with --retry-failed."

    def __init__(self, recording_id: str, detail: str, stage: str = "unknown") -> None:
        Exception.__init__(self, recording_id, detail, stage)
        self.stage = stage


class ModelUnreachable(TranscriptionError):
    stage, reason, retryable = "extract", "model_unreachable", True
    meaning = "The server of the language model did not answer, or refused for the moment, at every try."
    advice = "Check extract.server and the server's own log, then run dictalake extract again with --retry-failed."


class ModelRefused(TranscriptionError):
    stage, reason = "extract", "model_refused"
    meaning = "The server of the language model refuses the request: error.detail has its HTTP status."
    advice = "For 400 and 413 lower extract.part_chars or extract.max_tokens to what the model takes, and run again."


class ModelTimeout(TranscriptionError):
    stage, reason, retryable = "extract", "model_timeout", True
    meaning = "The answer of the language model took longer than extract.request_s, or did not end."
    advice = "Raise extract.request_s or lower extract.concurrency, then run dictalake extract again with --retry-failed."


class AnswerCutOff(TranscriptionError):
    stage, reason = "extract", "answer_cut_off"
    meaning = "The answer of the language model was longer than extract.max_tokens and ends in the middle."
    advice = "Raise extract.max_tokens or lower extract.part_chars; both make a new fingerprint, under which all is read again."


class AnswerInvalid(TranscriptionError):
    stage, reason = "extract", "answer_invalid"
    meaning = "The answer of the language model is no JSON of the schema. Nothing of it was taken."
    advice = "Use a server that constrains its output to a JSON schema, or another model; dictalake extract says which does."


@dataclass(frozen=True)
class Failure:
    """One reason why a row failed. ``stage`` says where: several stages are joined by commas, ``any`` means every stage."""

    reason: str
    stage: str
    retryable: bool
    meaning: str
    advice: str


def list_failures() -> list[Failure]:
    """Every reason that a failed row can have, each once, in the order of this file."""
    stages: dict[str, list[str]] = {}
    first: dict[str, type[TranscriptionError]] = {}
    for kind in _walk_kinds(TranscriptionError):
        if kind.reason != TranscriptionError.reason:
            first.setdefault(kind.reason, kind)
            stages.setdefault(kind.reason, []).append("any" if kind.stage == TranscriptionError.stage else kind.stage)
    return [
        Failure(reason, ", ".join(stages[reason]), kind.retryable, kind.meaning, kind.advice) for reason, kind in first.items()
    ]


def list_run_failures() -> list[type[RunError]]:
    """The failures of a whole run that have a ``reason``."""
    return [kind for kind in RunError.__subclasses__() if kind.reason is not None]


def advise(reason: str) -> str:
    """What to do about rows that failed for ``reason``. A reason that this version does not know has advice too."""
    return {failure.reason: failure.advice for failure in list_failures()}.get(reason, TranscriptionError.advice)


def list_reasons() -> list[str]:
    """Every ``reason`` that a failed row can have, sorted."""
    return sorted(failure.reason for failure in list_failures())


def name_place(error: BaseException) -> str:
    """The type and the place of an exception. Its message stays out, since it may quote audio tags, paths or rows."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


def _walk_kinds(kind: type[TranscriptionError]) -> Iterator[type[TranscriptionError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _walk_kinds(below)


def make_error(reason: str, recording_id: str, detail: str) -> TranscriptionError:
    """The error for a ``reason`` that was stored as text. Raises StopIteration for an unknown reason."""
    return next(kind for kind in _walk_kinds(TranscriptionError) if kind.reason == reason)(recording_id, detail)
