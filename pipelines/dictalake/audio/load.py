"""The only door from a recording's bytes to sound: decoded, brought to 16 kHz and measured, in a sandbox.

Everything that needs sound (a run, ``dictalake doctor``, ``dictalake evaluate``) asks an AudioLoader: all read the same.
``load_audio`` runs in the sandbox's child process (``sandbox/``): it takes and returns only what JSON and int16 can
express.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from dictalake.audio.answer import check_answer
from dictalake.audio.formats.reader import DicomOptions
from dictalake.audio.level import measure_level
from dictalake.audio.resample import resample_blocks
from dictalake.audio.vad import DETECTOR_MODULES, Detector, find_speech, join_intervals, require_detector, total_s
from dictalake.config.headerless import Headerless
from dictalake.config.sections import Config, Limits
from dictalake.errors import DecoderCrashed, NoMemorySlot, TooLarge, TooManyWindows
from dictalake.records import SAMPLE_RATE_HZ, Data, Recording, find_ending
from dictalake.sandbox.child import is_memory_tight
from dictalake.sandbox.levels import Level, require_level
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.node_slot import hold_slot
from dictalake.sandbox.pool import Sandbox

# Raised whenever other samples, or another account of them, come out of the same bytes; rows of dictalake 0.1 have none.
LOADER_VERSION = 2
HEAVY = "decoder"  # the place on a machine for a recording that needs more than its decoder's share of memory
_WORKER_MB = 400.0  # a load worker without its decoders: Python, what is fetched and loaded ahead, and who unpacks archives
_IDLE_MB = 60.0  # a decoder that has nothing to do
_READERS = "dictalake.audio.formats.read_audio"
_LEAST_SHARE_MB: dict[Detector, float] = {"webrtc": 96.0, "silero": 700.0, "none": 96.0}  # ten minutes of dictation
_WAITS = 4  # times the longest call: how long a recording waits for its place
DECODERS = 2  # child processes of one caller: a recording that hangs does not hold up the others


@dataclass(frozen=True)
class LoadedAudio:
    """What is known about one recording, and its sound.

    ``waveforms`` are int16 ``(channels, samples)`` at 16 kHz. ``format`` has AudioFormat's fields. ``dicom`` is None for
    plain audio. ``patient`` are the attributes asked for, by keyword, as they stand in the file: the caller hashes them.
    ``quality`` has ``duration_s``, ``level_dbfs``, ``clipped_ratio``, ``dc_offset``, ``speech_s``, ``lost_s`` and ``repairs``
    (``records.Account``). ``speech`` holds ``(start, end)`` in seconds for each interval of each channel.
    """

    waveforms: np.ndarray
    format: dict[str, Any]
    dicom: dict[str, str] | None
    patient: dict[str, str]
    content_datetime: datetime | None
    quality: dict[str, Any]
    speech: list[list[list[float]]]

    @property
    def duration_s(self) -> float:
        return float(self.waveforms.shape[1]) / SAMPLE_RATE_HZ


class AudioLoader:
    """Bytes of recordings → LoadedAudio, for any number of threads. Raises ConfigError where the speech detector is missing,
    or what ``sandbox.level`` requires of this machine.
    """

    def __init__(self, config: Config, children: int = DECODERS) -> None:
        """Up to ``children`` recordings are decoded at once, each in a process of its own."""
        require_detector(config.quality.vad)
        require_level(config.sandbox.level)
        self._settings = make_settings(config)
        self._archive = config.archive
        self._most_samples = SAMPLE_RATE_HZ * min(
            config.limits.windows * self._settings["window_s"], config.limits.channels * config.limits.duration_h * 3600
        )
        self._first_try = CallLimits(config.limits.decode_s, share_memory(config))
        self._limits = CallLimits(config.limits.decode_s, config.limits.decode_mb)
        self._children, self._kind = children, (config.sandbox.level, config.quality.vad)

    def load(self, data: Data, recording: Recording) -> LoadedAudio:
        """The sound in ``data``. Its content says what it is; only headerless sound goes by the ending of the name.

        Raises those of ``load_audio``, NoMemorySlot, and TooLarge, DecoderTimeout and DecoderCrashed of the sandbox.
        """
        ending = find_ending(recording.uri) if recording.ending is None else recording.ending
        headerless = self._archive.find_headerless(ending)
        entry = None if headerless is None else headerless.model_dump()
        settings = {**self._settings, "ending": ending, "headerless": entry}
        answer, waveforms = self._call(data, recording.recording_id, settings)
        fields = settings["patient_fields"]
        return LoadedAudio(waveforms, **check_answer(answer, waveforms, recording.recording_id, fields, self._most_samples))

    def _call(self, data: Data, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
        """In a child with a share of the worker's memory. What needs more, or may have ended that child for want of it, is then
        tried in one that has it all, alone on this machine.
        """
        why = f"it needs more memory than the {self._first_try.memory_mb:.0f} MB of its decoder's share"
        if len(data) <= self._first_try.memory_mb * 1e6 / 2:
            last = self._first_try == self._limits
            sandbox = _open_sandbox(self._first_try, self._children, *self._kind)
            try:
                return sandbox.call(memoryview(data), recording_id, settings if last else {**settings, "is_first_try": True})
            except TooLarge:
                if last:
                    raise
            except DecoderCrashed as crash:  # a library that gets no memory may end its process
                if last or not crash.ended:
                    raise
                why = f"its decoder crashed with {self._first_try.memory_mb:.0f} MB, perhaps because it needed more memory"
        wait_s = _WAITS * self._limits.clock_s
        try:
            with hold_slot(HEAVY, wait_s):
                sandbox = _open_sandbox(self._limits, 1, *self._kind)
                try:
                    return sandbox.call(memoryview(data), recording_id, settings)
                finally:
                    sandbox.close()  # its memory is the next one's
        except TimeoutError:
            raise NoMemorySlot(
                recording_id,
                f"{why}, and for {wait_s:g} s others had the one place that this machine has for recordings that need more; "
                "run again with --retry-failed no_memory_slot",
            ) from None


def share_memory(config: Config) -> float:
    """Megabytes that each decoder of a worker may take of ``ray.load_memory_mb``, at most ``limits.decode_mb``."""
    rest = config.ray.load_memory_mb - _WORKER_MB - DECODERS * _IDLE_MB
    return min(config.limits.decode_mb, max(_LEAST_SHARE_MB[config.quality.vad], rest / DECODERS))


@functools.cache
def _open_sandbox(limits: CallLimits, children: int, level: Level, detector: Detector) -> Sandbox:
    """Kept for the life of the process: starting a child takes about a second."""
    return Sandbox(load_audio, limits, children, level, (_READERS, *DETECTOR_MODULES[detector]))


def make_settings(config: Config) -> dict[str, Any]:
    """What ``load_audio`` needs to know. ``window_s`` is how far one window of the model reaches beyond the one before it."""
    return {
        "limits": config.limits.model_dump(),
        "vad": config.quality.vad,
        "window_s": config.windows.length_s - config.windows.overlap_s,
        "time_zone": config.archive.time_zone,
        "patient_fields": config.archive.patient_fields,
    }


def load_audio(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """``data`` → the fields of LoadedAudio as JSON can express them (times in ISO format), and the waveforms.

    On the first try, in little memory, raises TooLarge also for what came out damaged after much memory was taken: a library
    that gets no more may take that for a damaged file.
    """
    if not settings.get("is_first_try"):
        return _load_audio(data, recording_id, settings)
    try:
        known, waveforms = _load_audio(data, recording_id, settings)
    except Exception:  # the defect that a library reports may be that it got no memory
        if is_memory_tight():
            raise TooLarge(recording_id, "") from None
        raise
    is_damaged = known["quality"]["lost_s"] != 0 or known["quality"]["repairs"]
    if is_damaged and is_memory_tight():
        raise TooLarge(recording_id, "")
    return known, waveforms


def _load_audio(data: bytes, recording_id: str, settings: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """``patient`` is not hashed here: the key must not be where untrusted bytes are decoded. Raises the LoadErrors of
    ``read_audio``, and TooManyWindows.
    """
    limits = Limits.model_validate(settings["limits"])
    most_samples = limits.windows * settings["window_s"] * SAMPLE_RATE_HZ

    def check_windows(samples: float) -> None:
        if samples > most_samples:
            raise TooManyWindows(
                recording_id,
                f"its channels together have more than the {limits.windows} windows of limits.windows; split it, or raise the "
                "limit",
            )

    def consume(rate_hz: int, blocks: Iterable[np.ndarray]) -> np.ndarray:
        def counted() -> Iterable[np.ndarray]:
            samples = 0.0
            for block in blocks:
                samples += block.size * SAMPLE_RATE_HZ / rate_hz
                check_windows(samples)
                yield block

        return resample_blocks(rate_hz, counted())

    options = DicomOptions(settings["time_zone"], tuple(settings["patient_fields"]))
    headerless = None if settings.get("headerless") is None else Headerless.model_validate(settings["headerless"])
    from dictalake.audio.formats.read_audio import read_audio  # a child has it; the driver and workers need no decoders

    audio = read_audio(data, recording_id, limits, consume, settings.get("ending", ""), headerless, options)
    waveforms = audio.samples
    check_windows(waveforms.size)  # parts that follow one another, and tracks, were counted apart
    speech = [find_speech(channel, settings["vad"]) for channel in waveforms]
    dicom = audio.dicom or {}
    when = dicom.get("content_datetime")
    known = {
        "format": vars(audio.format),
        "dicom": None if audio.dicom is None else {key: value for key, value in dicom.items() if isinstance(value, str)},
        "patient": dict(audio.patient),
        "content_datetime": when.isoformat() if isinstance(when, datetime) else None,
        "quality": {
            "duration_s": waveforms.shape[1] / SAMPLE_RATE_HZ,
            **measure_level(waveforms)._asdict(),
            "speech_s": None if settings["vad"] == "none" else total_s(join_intervals(speech)),
            "lost_s": audio.account.lost_s,
            "repairs": list(audio.account.repairs),
        },
        "speech": [intervals.tolist() for intervals in speech],
    }
    return known, waveforms
