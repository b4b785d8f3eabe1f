"""A faster way to call the C++ search of ctc-beam-decoder.

The package's Python copies the matrix several times to normalise it, and builds a tuple from numpy scalars for each word of
each beam. Together this takes half as long as the C++ search itself. The code below calls one version of the library's C
interface; for any other version, the package's own Python runs. Inputs and beams equal the package's bit for bit, and a test
compares them.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

_INTS, _DOUBLES, _FLOATS = (ctypes.POINTER(kind) for kind in (ctypes.c_int32, ctypes.c_double, ctypes.c_float))
_LEAST_LOGP = np.float32(np.log(1e-15))
_MESSAGE_BYTES = 512
_INTERFACE = 2  # the package itself refuses a library of another version

Beam = tuple[str, None, list[tuple[str, tuple[int, int]]], float, float]


def faster_decoder(module: Any) -> type[Any]:
    """A ``BeamSearchDecoder`` of ``module``, the package ``ctc_beam_decoder``, that gives the same beams sooner."""
    if getattr(module, "_REQUIRED_ABI_VERSION", None) != _INTERFACE:
        usual: type[Any] = module.BeamSearchDecoder
        return usual

    class Decoder(module.BeamSearchDecoder):
        def decode_beams(
            self, log_probs: np.ndarray, *, beam_width: int, beam_prune_logp: float, token_min_logp: float
        ) -> list[Beam]:
            """Takes natural logs, float32 ``(frames, n_columns)``. A beam is a text, None, the words with their first frame
            and the one after their last, the acoustic score and the total score. Raises ValueError and RuntimeError."""
            if log_probs.ndim != 2 or log_probs.shape[1] != self.n_columns:
                raise ValueError(f"log-probabilities must have {self.n_columns} columns, not the shape {log_probs.shape}")
            normalised, library = _normalise(log_probs), self._capi.lib
            message = ctypes.create_string_buffer(_MESSAGE_BYTES)
            found = library.ctcbd_decode(
                self._handle,
                normalised.ctypes.data_as(_FLOATS),
                *normalised.shape,
                beam_width,
                beam_prune_logp,
                token_min_logp,
                0,  # do not prune histories; pyctcdecode's decode_beams does not either
                (ctypes.c_char_p * 1)(),
                0,
                0.0,
                message,
                _MESSAGE_BYTES,
            )
            if not found:
                raise RuntimeError(f"ctc-beam-decoder: {message.value.decode('utf-8', 'replace') or 'no reason given'}")
            try:
                return _unpack(library, ctypes.c_void_p(found))
            finally:
                library.ctcbd_result_free(ctypes.c_void_p(found))

    return Decoder


def _normalise(log_probs: np.ndarray) -> np.ndarray:
    """Follows pyctcdecode's order of steps: the last bits depend on it, and they decide which of two equal beams is first."""
    log_probs = np.ascontiguousarray(log_probs, dtype=np.float32)
    normalised: np.ndarray = log_probs - log_probs.max(axis=1, keepdims=True)
    normalised -= np.log(np.exp(normalised).sum(axis=1, keepdims=True))
    return np.clip(normalised, _LEAST_LOGP, 0, out=normalised)


def _unpack(library: Any, found: ctypes.c_void_p) -> list[Beam]:
    beams, words, size = ctypes.c_int32(), ctypes.c_int32(), ctypes.c_int32()
    library.ctcbd_sizes(found, ctypes.byref(beams), ctypes.byref(words), ctypes.byref(size))
    if beams.value == 0:
        return []
    texts = ctypes.create_string_buffer(max(size.value, 1))
    counts = np.empty(beams.value, dtype=np.int32)
    frames = np.empty((max(words.value, 1), 2), dtype=np.int32)
    acoustic, whole = np.empty(beams.value, dtype=np.float64), np.empty(beams.value, dtype=np.float64)
    ints, doubles = (counts, frames), (acoustic, whole)
    pointers = [array.ctypes.data_as(_INTS) for array in ints] + [array.ctypes.data_as(_DOUBLES) for array in doubles]
    library.ctcbd_pack(found, texts, *pointers)
    spans = list(zip(frames[:, 0].tolist(), frames[:, 1].tolist(), strict=True))
    unpacked: list[Beam] = []
    at = 0
    each = zip(
        texts.raw[: size.value].split(b"\x00")[: beams.value], counts.tolist(), acoustic.tolist(), whole.tolist(), strict=True
    )
    for packed, count, acoustic_score, score in each:
        text = packed.decode("utf-8")
        # Like the package, leave out a word without a span and a span without a word.
        unpacked.append((text, None, list(zip(text.split(), spans[at : at + count], strict=False)), acoustic_score, score))
        at += count
    return unpacked
