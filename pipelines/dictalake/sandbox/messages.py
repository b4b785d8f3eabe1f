"""Messages between a sandboxed child and its caller: JSON and raw samples, never a pickle."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADER = struct.Struct("<QQ")  # lengths of the JSON and of the bytes after it
_LONGEST_JSON = 2**26

# (bytes, recording id, JSON settings) → (JSON result, int16 (channels, samples)); importable by its name
Function = Callable[[bytes, str, dict[str, Any]], tuple[dict[str, Any], np.ndarray]]


@dataclass(frozen=True)
class CallLimits:
    """What one call may take: ``cpu_s`` of processor time, three times that by the clock, ``memory_mb`` above an idle child."""

    cpu_s: float
    memory_mb: float

    @property
    def clock_s(self) -> float:
        return 3 * self.cpu_s


def send(to: socket.socket, text: bytes, data: bytes | memoryview) -> None:
    to.sendall(HEADER.pack(len(text), len(data)) + text)
    to.sendall(data)


def receive(source: socket.socket, most_bytes: int, deadline: float | None = None) -> tuple[bytes, np.ndarray]:
    """The JSON, and the bytes after it as uint8 ``(length,)``. Raises EOFError where the other side is gone."""
    text_length, length = HEADER.unpack(_receive_exactly(source, HEADER.size, deadline).tobytes())
    if text_length > _LONGEST_JSON or length > most_bytes:
        raise ValueError("no message has this length")
    text = _receive_exactly(source, text_length, deadline).tobytes()
    return text, _receive_exactly(source, length, deadline)


def _receive_exactly(source: socket.socket, length: int, deadline: float | None) -> np.ndarray:
    buffer = np.empty(length, dtype=np.uint8)
    view, got = buffer.data, 0
    while got < length:
        if deadline is not None:
            source.settimeout(max(0.001, deadline - time.monotonic()))
        count = source.recv_into(view[got:])
        if not count:
            raise EOFError
        got += count
    return buffer
