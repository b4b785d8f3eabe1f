"""Messages between a sandboxed child and its caller: JSON and raw samples, never a pickle."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADER = struct.Struct("<QQ")  # lengths of the JSON and of the bytes after it
LONGEST_DETAIL = 500  # characters
MOST_IN_MEMORY = 64_000_000  # bytes of an answer
MOST_FILES = 8  # that travel with one call
# What a recording's answer says beside its samples is small, but for the intervals of speech: at most one in 0.42 s.
_LONGEST_JSON = 2**19
_SAMPLES_PER_JSON = 250  # bytes of samples for each more byte of JSON: 128 for a second of sound
_MOST_VALUES = 2**15
_SECOND_BYTES = 32_000  # int16 at 16 kHz
_MOST_PER_S = 8  # commas

# (bytes, recording id, JSON settings) → (JSON result, int16 (channels, samples)); importable by its name
Function = Callable[[bytes, str, dict[str, Any]], tuple[dict[str, Any], np.ndarray]]


@dataclass(frozen=True)
class CallLimits:
    """What one call may take: ``cpu_s`` of processor time, three times that by the clock, ``memory_mb`` above an idle child.

    A child can write only to files that were handed to it, and at most ``file_bytes`` into each. One that has used ``life_s``
    of processor time in all its calls is ended, however many threads it has and whatever it does about it.
    """

    cpu_s: float
    memory_mb: float
    file_bytes: int = 0

    @property
    def clock_s(self) -> float:
        return 3 * self.cpu_s

    @property
    def life_s(self) -> float:
        return 3 * self.cpu_s


def send_request(to: socket.socket, text: bytes, data: bytes | bytearray | memoryview, files: Sequence[int] = ()) -> None:
    """To the child. The descriptors in ``files`` travel with the first byte."""
    with memoryview(data).cast("B") as view:
        header = HEADER.pack(len(text), len(view))
        sent = socket.send_fds(to, [header], list(files)) if files else 0
        to.sendall(header[sent:] + text)
        to.sendall(view)


def receive_request(channel: socket.socket) -> tuple[bytes, bytes, list[int]]:
    """In the child: the JSON, the bytes of the recording, of which it holds no second copy, and the descriptors."""
    header, files, _, _ = socket.recv_fds(channel, HEADER.size, MOST_FILES)
    text_length, length = HEADER.unpack(header + _receive_bytes(channel, HEADER.size - len(header), not header))
    return _receive_bytes(channel, text_length), _receive_bytes(channel, length), files


def _receive_bytes(channel: socket.socket, length: int, is_over: bool = False) -> bytes:
    """By recvmsg alone: the jail knows no other call that receives."""
    received = b""
    while len(received) < length and not is_over:
        more = channel.recvmsg(length - len(received), 0, socket.MSG_WAITALL)[0]
        is_over = not more
        received = received + more if received else more  # a second piece comes only where a signal interrupted the first
    if len(received) < length:
        raise EOFError
    return received


def send_answer(channel: socket.socket, text: bytes, data: memoryview) -> None:
    """From the child, by write alone: the jail knows no call that sends."""
    for part in (memoryview(HEADER.pack(len(text), len(data)) + text), data):
        sent = 0
        while sent < len(part):
            sent += os.write(channel.fileno(), part[sent:])


def read_answer(text: bytes, data: np.ndarray, nonce: str = "") -> tuple[dict[str, Any], np.ndarray]:
    """An answer of the child as ``{"value": …}`` or ``{"failure": {"reason": …, "detail": …}}``, and its samples.

    Raises ValueError for anything else: a child that has read a hostile file may send what it likes. ``nonce`` is what the
    request said: an answer to another request is none.
    """
    most = _MOST_VALUES + _MOST_PER_S * len(data) / _SECOND_BYTES
    if text.count(b",") > most:  # what is nested instead is refused below
        raise ValueError("more values than there can be: as objects they take many times the memory of their text")
    try:
        answer = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    shape = answer.pop("shape", None) if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or answer.pop("nonce", "") != nonce:
        raise ValueError("the answer to another request")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(length) is int and length >= 0 for length in shape)):
        raise ValueError("no shape")
    samples = data.view(np.int16).reshape(shape)
    match answer:
        case {"value": dict()} if len(answer) == 1:
            return answer, samples
        case {"failure": {"reason": str(reason), "detail": str(detail)}} if len(answer) == 1:
            return {"failure": {"reason": reason, "detail": clean_text(detail)[:LONGEST_DETAIL]}}, samples
    raise ValueError("neither a value nor a failure")


def clean_text(text: str) -> str:
    """``text`` without what a terminal, a log or a page would obey: control characters, marks of direction, half characters."""
    return text.translate(_UNPRINTABLE)


_UNPRINTABLE = dict.fromkeys(
    [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)], "\ufffd"
)


def receive_answer(source: socket.socket, most_bytes: int, deadline: float | None = None) -> tuple[bytes, np.ndarray]:
    """The JSON, and the bytes after it as uint8 ``(length,)``. Raises EOFError where the other side is gone."""
    text_length, length = HEADER.unpack(_receive_exactly(source, HEADER.size, deadline).tobytes())
    if length > most_bytes or text_length > _LONGEST_JSON + length // _SAMPLES_PER_JSON:
        raise ValueError("no message has this length")
    text = _receive_exactly(source, text_length, deadline).tobytes()
    return text, _receive_exactly(source, length, deadline)


def _receive_exactly(source: socket.socket, length: int, deadline: float | None) -> np.ndarray:
    buffer = _make_buffer(length)
    view, got = buffer.data, 0
    while got < length:
        if deadline is not None:
            source.settimeout(max(0.001, deadline - time.monotonic()))
        count = source.recv_into(view[got:])
        if not count:
            raise EOFError
        got += count
    return buffer


def _make_buffer(length: int) -> np.ndarray:
    """Memory for a small answer. A large one lies in a nameless temporary file, which goes with the array."""
    if length > MOST_IN_MEMORY and hasattr(os, "posix_fallocate"):
        # A disk that cannot hold it is no fault of the recording. Without its room a full disk would end this process later.
        with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, length)
            return np.frombuffer(mmap.mmap(file.fileno(), length), dtype=np.uint8)
    return np.empty(length, dtype=np.uint8)
