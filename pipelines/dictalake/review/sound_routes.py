"""Sound for the page of a recording: its wave as JSON, and its samples as WAV in the pieces that the browser asks for."""

from __future__ import annotations

import re
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dictalake.errors import DictalakeError
from dictalake.review.place import place_of, session_of
from dictalake.review.recording_page import find_rows
from dictalake.review.sound import MIX, Sound, explain

_WAIT_S = 20.0
MOST_BYTES = 1_000_000  # of one answer, half a minute of sound: a browser asks for more when it needs it
_NEAR_S = 0.5  # speech so near to a word is covered by it
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


def describe_sound(request: Request) -> Response:
    """Waits until the sound is there, some seconds at most; the page asks again."""
    recording_id = request.path_params["recording_id"]
    row = find_rows(request, recording_id)[0]
    if row["status"] != "ok":
        return JSONResponse({"state": "failed", "why": "The recording failed, so there is no sound to hear."})
    try:
        sound = place_of(request).sounds.load(row).result(_WAIT_S)
    except NotYet:
        return JSONResponse({"state": "loading"})
    except DictalakeError as error:  # whatever the archive or its bytes did, the rest of the page works
        return JSONResponse({"state": "failed", "why": explain(error)})
    lost_s = (row["quality"] or {}).get("lost_s")
    return JSONResponse(
        {
            "state": "ready",
            "duration_s": sound.duration_s,
            "channels": sound.channels,
            "peaks": sound.draw(),
            "speech": sound.speech,
            "uncovered": find_uncovered(sound, row["words"] or []),
            "holes": sound.find_silence() if lost_s else [],
            "lost_s": lost_s,
        }
    )


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


def send_sound(request: Request) -> Response:
    """The bytes of one range, never all of a long recording."""
    recording_id, channel = request.path_params["recording_id"], request.path_params["channel"]
    row = find_rows(request, recording_id)[0]  # it may have been erased since the page was opened
    place = place_of(request)
    if row["status"] != "ok":
        raise HTTPException(404, "There is no sound.")
    try:
        sound = place.sounds.load(row).result(_WAIT_S)
    except NotYet:
        raise HTTPException(503, "The sound is being loaded.") from None
    except DictalakeError:  # as above; the page says why
        raise HTTPException(404, "There is no sound.") from None
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
    session = session_of(request)
    if place.accesses is not None and (start == 0 or recording_id not in session.heard):  # also of one that begins inside
        place.accesses.add(session.who, [recording_id], "sound")
        session.heard.add(recording_id)
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{total}", "Accept-Ranges": "bytes"}
    return Response(sound.read(channel, start, end), 206, headers, "audio/wav")
