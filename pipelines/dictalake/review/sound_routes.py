"""Sound for the page of a recording: its wave as JSON, and its samples as WAV in the pieces that the browser asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dictalake.errors import DictalakeError
from dictalake.review.place import place_of, session_of, write_down
from dictalake.review.recording_page import find_rows
from dictalake.review.sound import MIX, Sound, explain

WAIT_S = 20.0
MOST_BYTES = 1_000_000  # of one answer, half a minute of sound: a browser asks for more when it needs it
_NEAR_S = 0.5  # speech so near to a word is covered by it
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


class NotYet(Exception):
    """The sound is still being loaded."""


async def describe_sound(request: Request) -> Response:
    """Waits until the sound is there, some seconds at most; the page asks again."""
    row = (await run_in_threadpool(find_rows, request, request.path_params["recording_id"]))[0]
    if row["status"] != "ok":
        return JSONResponse({"state": "failed", "why": "The recording failed, so there is no sound to hear."})
    try:
        sound = await _await_sound(place_of(request).sounds.load(row))
    except NotYet:
        return JSONResponse({"state": "loading"})
    except DictalakeError as error:  # whatever the archive or its bytes did, the rest of the page works
        return JSONResponse({"state": "failed", "why": explain(error)})
    return await run_in_threadpool(lambda: JSONResponse(_describe(sound, row)))


def _describe(sound: Sound, row: Mapping[str, Any]) -> dict[str, Any]:
    lost_s = (row["quality"] or {}).get("lost_s")
    return {
        "state": "ready",
        "duration_s": sound.duration_s,
        "channels": sound.channels,
        "peaks": sound.draw(),
        "speech": sound.speech,
        "uncovered": find_uncovered(sound, row["words"] or []),
        "holes": sound.find_silence() if lost_s else [],
        "lost_s": lost_s,
    }


async def _await_sound(future: Future[Sound]) -> Sound:
    """Holds no thread meanwhile: a few pages that wait would leave none for the others. Raises NotYet after ``WAIT_S``, and
    what the future raises."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[Sound]) -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(tell)
    try:
        await asyncio.wait_for(done.wait(), WAIT_S)
    except TimeoutError:
        raise NotYet from None
    return future.result()


def find_uncovered(sound: Sound, words: list[dict[str, Any]]) -> list[list[float]]:
    """Speech, of any channel, with no word near it: ``[start, end]`` in seconds."""
    covered = sorted((word["start_s"] - _NEAR_S, word["end_s"] + _NEAR_S) for word in words)
    left: list[list[float]] = []
    for start, end in sorted((start, end) for channel in sound.speech for start, end in channel):
        place = start
        for first, last in covered:
            if last <= place or first >= end:
                continue
            if first > place:
                left.append([round(place, 3), round(first, 3)])
            place = max(place, last)
        if place < end:
            left.append([round(place, 3), round(end, 3)])
    return left


async def send_sound(request: Request) -> Response:
    """The bytes of one range, never all of a long recording."""
    future = await run_in_threadpool(_find_sound, request)
    try:
        sound = await _await_sound(future)
    except NotYet:
        raise HTTPException(503, "The sound is being loaded.") from None
    except DictalakeError:  # as above; the page says why
        raise HTTPException(404, "There is no sound.") from None
    return await run_in_threadpool(_send_range, request, sound)


def _find_sound(request: Request) -> Future[Sound]:
    """Raises HTTPException 404 without one: the recording may have been erased since the page was opened."""
    recording_id, place = request.path_params["recording_id"], place_of(request)
    place.snapshot.refresh()
    there = place.sounds.find(recording_id) if place.snapshot.has_recording(recording_id) else None
    if there is not None:  # no need to read its row for each piece
        return there
    row = find_rows(request, recording_id)[0]
    if row["status"] != "ok":
        raise HTTPException(404, "There is no sound.")
    return place.sounds.load(row)


def _send_range(request: Request, sound: Sound) -> Response:
    recording_id, channel = request.path_params["recording_id"], request.path_params["channel"]
    if channel != MIX and int(channel) >= sound.channels:
        raise HTTPException(404, "There is no such channel.")
    total = sound.count_bytes()
    asked = _RANGE.fullmatch(request.headers.get("range", "bytes=0-"))
    start = int(asked[1]) if asked else 0
    if asked is None or start >= total:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{total}"})
    end = min(int(asked[2]) + 1 if asked[2] else total, total, start + MOST_BYTES)
    if end <= start:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{total}"})
    heard = session_of(request).heard
    if start == 0 or recording_id not in heard:  # also of one that begins inside
        write_down(request, [recording_id], "sound")
        heard.add(recording_id)
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{total}", "Accept-Ranges": "bytes"}
    return Response(sound.read(channel, start, end), 206, headers, "audio/wav")
