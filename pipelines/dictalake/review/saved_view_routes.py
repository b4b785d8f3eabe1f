"""What the forms of saved views do."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from dictalake.review.listing import SORTS, BadFilter, View, parse_filter
from dictalake.review.place import field_of, go, place_of, render_message


def save_view(request: Request) -> Response:
    """Keeps the conditions and the order of the list under the name that was given."""
    try:
        view = _read_view(field_of(request, "query")[:5000])
        place_of(request).views.save(field_of(request, "name").strip(), view)
    except BadFilter as error:
        return render_message(request, 400, "This view cannot be kept", str(error))
    return go(view.link())


def remove_view(request: Request) -> Response:
    place_of(request).views.remove(field_of(request, "name"))
    return go("/recordings")


def _read_view(query: str) -> View:
    """What stands in the address of a list. Raises BadFilter."""
    fields = parse_qs(query)
    sort = fields.get("sort", ["confidence"])[0]
    if sort not in SORTS:
        raise BadFilter("there is no such order")
    return View(tuple(parse_filter(text) for text in fields.get("f", [])[:20]), sort, fields.get("search", [""])[0])
