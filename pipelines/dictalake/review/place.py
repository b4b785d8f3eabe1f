"""What all pages share: the lake, the sound, the sessions, and how a page is made of a template."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dictalake.config.sections import Config
from dictalake.lake.corrections import Access, AccessLog
from dictalake.review.found_items import FindingReader
from dictalake.review.saved_views import SavedViews
from dictalake.review.sessions import Session, Sessions, Token, Users
from dictalake.review.snapshot import Snapshot
from dictalake.review.sound import SoundStore

FOLDER = Path(__file__).parent


@dataclass
class Place:
    """One lake and everything that the server keeps about it. It is ``request.app.state.place``."""

    config: Config
    cookie: str
    snapshot: Snapshot
    sounds: SoundStore
    users: Users | None
    token: Token
    sessions: Sessions = field(default_factory=Sessions)
    templates: Environment = field(default_factory=lambda: open_templates())

    def __post_init__(self) -> None:
        self.findings = FindingReader(self.config.lake)
        self.views = SavedViews(str(self.config.lake.uri))
        self.accesses = AccessLog(self.config.lake) if self.config.review.access_log else None
        self.templates.globals["is_written_down"] = self.accesses is not None

    def close(self) -> None:
        self.sounds.close()


def open_templates() -> Environment:
    """Every value is escaped."""
    environment = Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"length": show_length, "percent": show_percent, "time": show_time, "commas": lambda n: f"{n:,}"}
    return environment


def show_length(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def show_percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def show_time(when: datetime | None) -> str:
    return "–" if when is None else f"{when:%Y-%m-%d %H:%M}"


def place_of(request: Request) -> Place:
    place: Place = request.app.state.place
    return place


def session_of(request: Request) -> Session:
    session: Session = request.state.session
    return session


def write_down(request: Request, recording_ids: Sequence[str], what: Access) -> None:
    """Notes in the access log, if there is one, that the person sees or hears these. Raises RunError: then show nothing."""
    accesses = place_of(request).accesses
    if accesses is not None and recording_ids:
        accesses.add(session_of(request).who, recording_ids, what)


def field_of(request: Request, name: str, default: str = "") -> str:
    """A field of the form that was sent."""
    form: Mapping[str, list[str]] = request.state.form
    return form.get(name, [default])[0]


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page of a person who is logged in."""
    session = session_of(request)
    shown = {"session": session, "now": int(time.time()), "can_log_out": place_of(request).users is not None, **values}
    return HTMLResponse(place_of(request).templates.get_template(template).render(shown), status)


def render_message(request: Request, status: int, title: str, text: str) -> Response:
    """A page with a sentence: what happened and what to do."""
    session = request.state.session
    template = place_of(request).templates.get_template("message.html")
    shown = {"session": session, "now": 0, "can_log_out": False, "title": title, "text": text}
    return HTMLResponse(template.render(shown), status)


def go(address: str) -> Response:
    return RedirectResponse(address, 303)
