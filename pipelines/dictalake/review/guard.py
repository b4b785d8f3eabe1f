"""What stands before every page: who asks, from where, and what the browser may do with the answer.

A request passes if its Host is one of ours, it has a session (or asks for what needs none), and, where it changes something, it
comes from our own pages: same origin, and with the secret of the session's forms. A body is read here, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dictalake.review.sessions import Session, Sessions

MOST_BODY = 2_000_000  # bytes of a form: an hour of dictation has 60,000
_MOST_FIELDS, _BODY_S = 200, 20.0
_OPEN, _STATIC = ("/login",), "/static/"  # paths that anybody may ask for: they hold nothing of the lake
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware. What it found goes into ``scope["state"]``: ``session`` (None only on open paths) and ``form``."""

    def __init__(
        self, app: ASGIApp, *, sessions: Sessions, cookie: str, hosts: Collection[str], scheme: str, has_token: bool
    ) -> None:
        self._app, self._sessions, self._cookie = app, sessions, cookie
        self._hosts, self._origins = frozenset(hosts), frozenset(f"{scheme}://{host}" for host in hosts)
        self._open = (*_OPEN, "/enter") if has_token else _OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan; websockets have no route
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = await self._refuse(scope, receive)
        await (answer or self._app)(scope, receive, send_guarded)

    async def _refuse(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer to a request that does not pass; None for one that does."""
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._hosts:
            return _tell(421, "This is not a name of this server.")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _tell(405, "This method is not allowed.")
        session = self._sessions.find(_read_cookie(headers.get("cookie", ""), self._cookie))
        state = scope.setdefault("state", {})
        state["session"], state["form"] = session, {}
        is_open = scope["path"] in self._open or scope["path"].startswith(_STATIC)
        if session is None and not is_open:
            return _tell(401, "Open the address that dictalake review printed, with its token, or log in at /login.")
        if scope["method"] == "POST":
            return await self._take_form(scope, receive, headers, session)
        return None

    async def _take_form(self, scope: Scope, receive: Receive, headers: Headers, session: Session | None) -> Response | None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if origin not in self._origins or site != "same-origin":
            return _tell(403, "A form of another page was refused.")
        body = await _read_body(receive)
        if body is None:
            return _tell(413, f"A form has at most {MOST_BODY:,} bytes.")
        try:
            fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            return _tell(400, "The form cannot be read.")
        form: dict[str, list[str]] = {}
        for name, value in fields:
            form.setdefault(name, []).append(value)
        scope["state"]["form"] = form
        if session is not None and form.get("csrf", [""])[0] != session.csrf:
            return _tell(403, "The form is of an older session: reload the page, then send it again.")
        return None


async def _read_body(receive: Receive) -> bytes | None:
    """None where there is more than ``MOST_BODY``."""
    body = bytearray()
    while True:
        try:
            message = await asyncio.wait_for(receive(), _BODY_S)
        except TimeoutError:
            return None
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MOST_BODY:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _read_cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _tell(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status)
