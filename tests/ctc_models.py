"""CTC models of Hugging Face for tests, and sound for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from dictalake.acoustic.ctc import CtcModel
from dictalake.config.sections import Acoustic
from tests.recordings import make_sound


def make_waveform(seconds: float, seed: int) -> np.ndarray:
    return np.rint(make_sound(seconds, seed) * 32_767).astype(np.int16)


def load(folder: Path, **changes: Any) -> CtcModel:
    return CtcModel.load(Acoustic.model_validate({"model": str(folder), "device": "cpu", "dtype": "float32", **changes}))


def copy(folder: Path, target: Path, without: str) -> Acoustic:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(without))
    return Acoustic.model_validate({"model": str(target), "device": "cpu"})
