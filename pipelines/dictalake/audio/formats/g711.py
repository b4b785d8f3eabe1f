"""ITU-T G.711: µ-law and A-law codes to linear samples. The tables are computed once; decoding is one look-up a sample."""

from __future__ import annotations

import numpy as np


def _mu_law_table() -> np.ndarray:
    """float32 ``(256,)``: G.711 table 2, 14-bit values on the 16-bit scale (peak 32,124)."""
    code = ~np.arange(256) & 0xFF
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return (np.where(code & 0x80, -magnitude, magnitude) / 32768).astype(np.float32)


def _a_law_table() -> np.ndarray:
    """float32 ``(256,)``: G.711 table 1, 13-bit values on the 16-bit scale (peak 32,256)."""
    code = np.arange(256) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768).astype(np.float32)


MU_LAW = _mu_law_table()
A_LAW = _a_law_table()


def expand_mu_law(codes: np.ndarray) -> np.ndarray:
    """uint8 codes of any shape to float32 samples in [-1, 1]."""
    return np.asarray(MU_LAW[codes])


def expand_a_law(codes: np.ndarray) -> np.ndarray:
    """uint8 codes of any shape to float32 samples in [-1, 1]."""
    return np.asarray(A_LAW[codes])
