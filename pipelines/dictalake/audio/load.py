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
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from dictalake.audio.answer import check_answer
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.formats.reader import DicomOptions
from dictalake.audio.level import measure_level
from dictalake.audio.resample import resample_blocks
from dictalake.audio.vad import DETECTOR_MODULES, Detector, find_speech, join_intervals, require_detector, total_s
from dictalake.config.headerless import Headerless
from dictalake.config.sections import Config, Limits
from dictalake.errors import TooManyWindows
from dictalake.records import SAMPLE_RATE_HZ, Recording
from dictalake.sandbox.levels import Level, require_level
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import Sandbox

# Raised whenever other samples, or another account of them, come out of the same bytes; rows of dictalake 0.1 have none.
LOADER_VERSION = 2
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
        limits = CallLimits(config.limits.decode_s, config.limits.decode_mb)
        self._sandbox = (limits, children, config.sandbox.level, config.quality.vad)

    def load(self, data: bytes, recording: Recording) -> LoadedAudio:
        """The sound in ``data``. Its content says what it is; only headerless sound goes by the ending of the name.

        Raises a LoadError: those of ``load_audio``, and TooLarge, DecoderTimeout and DecoderCrashed of the sandbox.
        """
        ending = PurePosixPath(recording.uri).suffix.lower().removeprefix(".")
        headerless = self._archive.find_headerless(ending)
        entry = None if headerless is None else headerless.model_dump()
        settings = {**self._settings, "ending": ending, "headerless": entry}
        answer, waveforms = _open_sandbox(*self._sandbox).call(data, recording.recording_id, settings)
        fields = settings["patient_fields"]
        return LoadedAudio(waveforms, **check_answer(answer, waveforms, recording.recording_id, fields, self._most_samples))


@functools.cache
def _open_sandbox(limits: CallLimits, children: int, level: Level, detector: Detector) -> Sandbox:
    """Kept for the life of the process: starting a child takes about a second."""
    return Sandbox(load_audio, limits, children, level, DETECTOR_MODULES[detector])


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

    ``patient`` is not hashed here: the key must not be where untrusted bytes are decoded. Raises the LoadErrors of
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
