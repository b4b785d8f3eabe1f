"""Recordings for tests of whole runs: sounds from numbers, in the containers that archives hold, and some that are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import soundfile

from dictalake.config.locations import ASSETS
from dictalake.config.sections import Config
from dictalake.lake.query import open_lake
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group

DEMO_ARCHIVE = ASSETS / "demo-archive" / "recordings"

# What becomes of each file of the mixed archive: None is an ok row, else the reason of the failed one.
MIXED_ARCHIVE = {
    "ward/tones.wav": None,
    "ward/tones.flac": None,
    "ward/tones.mp3": None,
    "ward/mu_law.dcm": None,
    "ward/two_channels.wav": None,
    "ward/silence.wav": None,
    "ward/blip.wav": None,
    "bad/unreadable.wav": "corrupt_audio",
    "bad/cut_short.dcm": "corrupt_audio",
    "bad/empty.wav": "empty_object",
    "bad/letter.wav": "not_audio",
}


def make_sound(seconds: float, seed: int, rate_hz: int = 16_000) -> np.ndarray:
    """float64 ``(samples,)`` in [-1, 1]: a new pitch, loudness and amount of noise every fifth of a second."""
    random = np.random.default_rng(seed)
    length = round(seconds * rate_hz)
    pieces = []
    for start in range(0, length, rate_hz // 5):
        time = np.arange(start, min(start + rate_hz // 5, length)) / rate_hz
        tone = random.uniform(0.05, 0.6) * np.sin(2 * np.pi * random.uniform(150, 3500) * time)
        pieces.append(tone + random.normal(0, random.uniform(0, 0.1), len(time)))
    return np.clip(np.concatenate(pieces), -1, 1)


def write_wav(path: Path, sound: np.ndarray, rate_hz: int = 16_000) -> Path:
    """``sound`` as float64 ``(samples,)`` or ``(samples, channels)``, 16-bit PCM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate_hz, subtype="PCM_16")
    return path


def make_mu_law_dicom(seconds: float, seed: int, **changes: Any) -> bytes:
    """A Basic Voice Audio object, 8 kHz."""
    codes = encode(make_sound(seconds, seed, 8_000), 8_000, "RAW", "ULAW")
    return make_dicom(make_group(codes, "MB", len(codes)), **changes)


def write_mixed_archive(folder: Path) -> Path:
    """The files of MIXED_ARCHIVE below ``folder``, about a second each."""
    sound = make_sound(1.5, seed=1)
    dicom = make_mu_law_dicom(1.5, seed=2, ContentDate="20240229", ContentTime="101500")
    files = {
        "ward/tones.flac": encode(sound, 16_000, "FLAC"),
        "ward/tones.mp3": encode(sound, 16_000, "MP3"),
        "ward/mu_law.dcm": dicom,
        "bad/unreadable.wav": encode(sound, 16_000, "WAV")[:12] + b"\x00\xff" * 4_000,
        "bad/cut_short.dcm": dicom[: len(dicom) // 2],
        "bad/empty.wav": b"",
        "bad/letter.wav": b"Dear colleague, thank you for referring this patient.\n" * 20,
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    write_wav(folder / "ward/tones.wav", sound)
    write_wav(folder / "ward/two_channels.wav", np.stack([make_sound(2.5, seed=3), make_sound(2.5, seed=4)], axis=1))
    write_wav(folder / "ward/silence.wav", np.zeros(32_000))
    write_wav(folder / "ward/blip.wav", make_sound(0.05, seed=5))
    return folder


def make_config(model: Path, lake: Path | dict[str, Any] | None = None, **sections: dict[str, Any]) -> Config:
    """A run on the CPU in float32 with greedy decoding and without a report; ``sections`` change or add keys."""
    values: dict[str, dict[str, Any]] = {
        "acoustic": {"model": str(model), "device": "cpu", "dtype": "float32"},
        "decoding": {"kind": "greedy"},
        "report": {"write": False},  # it takes a second of processor time
        "lake": lake if isinstance(lake, dict) else {"uri": None if lake is None else str(lake)},
    }
    for section, keys in sections.items():
        values[section] = {**values.get(section, {}), **keys}
    return Config.model_validate(values)


def read_rows(
    lake: Path | str, storage_options: dict[str, str] | None = None, filter: ds.Expression | None = None
) -> list[dict[str, Any]]:
    """All committed rows, in order of their URIs."""
    rows = open_lake(str(lake), storage_options).to_table(filter=filter).to_pylist()
    return sorted(rows, key=lambda row: row["source"]["uri"])


def name_of(row: dict[str, Any]) -> str:
    """The last two parts of a row's URI."""
    return "/".join(row["source"]["uri"].rsplit("/", 2)[-2:])
