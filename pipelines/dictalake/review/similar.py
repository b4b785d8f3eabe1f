"""The page of recordings whose transcripts mean nearly the same as that of one: "more like this"."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from dictalake.errors import RunError
from dictalake.lake.embeddings import find_similar
from dictalake.review.place import place_of, render, write_down
from dictalake.review.recording_page import find_rows

_SHOWN = 10


def show_similar(request: Request) -> Response:
    """The nearest recordings by the vectors of the lake, or what to do where there are none."""
    recording_id = request.path_params["recording_id"]
    row, place = find_rows(request, recording_id)[0], place_of(request)
    correction = place.snapshot.corrections.find_current(recording_id)
    hits, why = [], ""
    try:
        hits = find_similar(place.config.lake, row, None if correction is None else correction.text, _SHOWN)
    except RunError as error:
        why = str(error)
    write_down(request, [hit.recording_id for hit in hits], "list")
    return render(request, "similar.html", row=row, hits=hits, why=why)
