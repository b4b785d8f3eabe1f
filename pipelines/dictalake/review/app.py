"""The web application: its routes, and what a person sees when something goes wrong."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dictalake import logs
from dictalake.errors import RunError, name_place
from dictalake.review import pages, recording_page, saved_view_routes, similar, sound_routes
from dictalake.review.guard import HEADERS, Guard
from dictalake.review.place import FOLDER, Place, render_message


class _RecordingId(Convertor[str]):
    """32 hex digits and nothing else: no path leads anywhere."""

    regex = "[0-9a-f]{32}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Channel(_RecordingId):
    regex = "[0-9]{1,2}|mix"


register_url_convertor("rid", _RecordingId())
register_url_convertor("channel", _Channel())


def make_app(place: Place, hosts: Collection[str], scheme: str = "http") -> Starlette:
    """``hosts`` are the values of the header Host that browsers send."""
    app = Starlette(
        routes=[
            Route("/enter", pages.enter),
            Route("/login", pages.log_in, methods=["GET", "POST"]),
            Route("/logout", pages.log_out, methods=["POST"]),
            Route("/", pages.show_overview),
            Route("/recordings", pages.show_list),
            Route("/recordings/filter", pages.change_list, methods=["POST"]),
            Route("/recordings/{recording_id:rid}", recording_page.show_recording),
            Route("/recordings/{recording_id:rid}/save", recording_page.save_correction, methods=["POST"]),
            Route("/recordings/{recording_id:rid}/undo", recording_page.undo_correction, methods=["POST"]),
            Route("/recordings/{recording_id:rid}/similar", similar.show_similar),
            Route("/views/save", saved_view_routes.save_view, methods=["POST"]),
            Route("/views/remove", saved_view_routes.remove_view, methods=["POST"]),
            Route("/sound/{recording_id:rid}/wave.json", sound_routes.describe_sound),
            Route("/sound/{recording_id:rid}/{channel:channel}.wav", sound_routes.send_sound),
            Route("/queue", pages.show_queue),
            Route("/queue/next", pages.take_next, methods=["POST"]),
            Route("/compare", pages.show_comparison),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ],
        middleware=[
            Middleware(
                Guard, sessions=place.sessions, cookie=place.cookie, hosts=hosts, scheme=scheme, has_token=place.users is None
            )
        ],
        exception_handlers={HTTPException: _tell, RunError: _tell_of_lake, Exception: _tell_of_defect},
    )
    app.state.place = place
    return app


def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    titles = {404: "Not here", 409: "Not saved", 400: "Not understood", 503: "Not yet"}
    text = error.detail if error.detail not in ("Not Found", "Method Not Allowed") else "There is no such page."
    return render_message(request, error.status_code, titles.get(error.status_code, "Not possible"), text)


def _tell_of_lake(request: Request, error: Exception) -> Response:
    _show_in_terminal(str(error))
    return render_message(request, 503, "The lake cannot be reached", "Try again; the terminal of dictalake review says more.")


def _tell_of_defect(request: Request, error: Exception) -> Response:
    """Starlette answers outside of the guard here, so its headers are set anew."""
    _show_in_terminal(f"a page failed, which is a defect of dictalake: {name_place(error)}")
    text = "Open the page again; what you saved may be there. The terminal of dictalake review says where it failed."
    response = render_message(request, 500, "Something went wrong", text)
    response.headers.update(HEADERS)
    return response


def _show_in_terminal(line: str) -> None:
    logs.log_event("page_failed", line, logs.shown_on(Console(stderr=True)), logs.ERROR)
