"""What is done to a recording's bytes before anything else may touch them: decoded, brought to 16 kHz, measured.

``load_audio`` runs inside the sandbox (``archive/sandbox.py``), so it takes and returns only what JSON and int16 can say.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np

from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.formats.reader import DicomOptions
from dictalake.audio.level import measure_level
from dictalake.audio.resample import resample_blocks
from dictalake.audio.vad import find_speech, join_intervals, total_s
from dictalake.config.sections import Config, Limits
from dictalake.errors import TooManyWindows
from dictalake.records import SAMPLE_RATE_HZ


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
    """``data`` → what is known about it, and int16 ``(channels, samples)`` at 16 kHz.

    Known are ``format`` (AudioFormat's fields), ``dicom`` (texts, or None), ``content_datetime`` (ISO, or None), ``quality``
    (``duration_s``, ``level_dbfs``, ``clipped_ratio``, ``dc_offset``, ``speech_s``), ``speech`` (for each channel its
    intervals in seconds) and ``patient`` (the attributes asked for, as they are: the caller hashes them, since its key must not
    be where untrusted bytes are decoded). Raises the LoadErrors of ``read_audio``, and TooManyWindows.
    """
    limits = Limits.model_validate(settings["limits"])
    most_samples = limits.windows * settings["window_s"] * SAMPLE_RATE_HZ

    def consume(rate_hz: int, blocks: Iterable[np.ndarray]) -> np.ndarray:
        def counted() -> Iterable[np.ndarray]:
            samples = 0.0
            for block in blocks:
                samples += block.size * SAMPLE_RATE_HZ / rate_hz
                if samples > most_samples:
                    raise TooManyWindows(
                        recording_id,
                        f"its channels together have more than the {limits.windows} windows of limits.windows; split it, or "
                        "raise the limit",
                    )
                yield block

        return resample_blocks(rate_hz, counted())

    options = DicomOptions(settings["time_zone"], tuple(settings["patient_fields"]))
    audio = read_audio(data, recording_id, limits, consume, vox_rate_hz=settings.get("vox_rate_hz"), dicom=options)
    waveforms = audio.samples
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
        },
        "speech": [intervals.tolist() for intervals in speech],
    }
    return known, waveforms
