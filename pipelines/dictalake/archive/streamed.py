"""Objects whose bytes come through a client with coroutines (s3fs, HTTP), a piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from dictalake.archive.deadlines import run_coroutine
from dictalake.archive.intake import PIECE, Intake

_PIECE_S = 1.0  # what came in this time is handed on, so that a slow line is not taken for a silent one
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Body:
    """``read`` gives at most so many bytes, none at the end. ``close`` ends the connection where there are more."""

    read: Callable[[int], Awaitable[bytes]]
    close: Callable[[], Awaitable[object]]


def take_body(
    loop: asyncio.AbstractEventLoop, ask: Callable[[], Coroutine[Any, Any, tuple[Answer, Body]]], intake: Intake
) -> Answer:
    """What ``ask`` answers; the bytes of its body are in ``intake`` then."""

    async def begin() -> tuple[Answer, Body, bytes, bool]:
        answer, body = await ask()
        return answer, body, *await _read_piece(body, intake.room)

    answer, body, piece, is_last = run_coroutine(loop, begin())
    try:
        intake.write(piece)
        while not is_last:
            piece, is_last = run_coroutine(loop, _read_piece(body, intake.room))
            intake.write(piece)
    except BaseException:
        asyncio.run_coroutine_threadsafe(_close(body), loop)
        raise
    return answer


async def _read_piece(body: Body, room: int) -> tuple[bytes, bool]:
    """What comes next, and whether it is the end. At the end, or when this fails, the body is closed."""
    clock = asyncio.get_running_loop().time
    until = clock() + _PIECE_S
    pieces: list[bytes] = []
    size, most = 0, min(PIECE, room)
    try:
        while size < most and clock() < until:
            piece = await body.read(most - size)
            if not piece:
                await body.close()
                return b"".join(pieces), True
            pieces.append(piece)
            size += len(piece)
    except BaseException:
        await body.close()
        raise
    return b"".join(pieces), False


async def _close(body: Body) -> None:
    await body.close()
