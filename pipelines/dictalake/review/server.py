"""Serves the pages: on this machine with a token, or over TLS to people who log in."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.review.app import make_app
from dictalake.review.place import Place
from dictalake.review.sessions import Token, Users, name_account
from dictalake.review.snapshot import Snapshot
from dictalake.review.sound import SoundStore

_FILES = 8192  # open at once: a thousand connections that say nothing must leave room for those that do
_MOST_CONNECTIONS = 4000
_ANY = ("0.0.0.0", "::")
REQUEST_S = 20.0  # in which a request must have come


class _ImpatientProtocol(H11Protocol):
    """Closes a connection on which no whole request comes in time, the first or a later one: they would add up."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._answered: Any = None
        self._closing = asyncio.get_running_loop().call_later(REQUEST_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        cycle: Any = self.cycle
        if cycle is None or (cycle.response_complete and cycle is self._answered):
            self.transport.abort()
            return
        self._answered = cycle
        self._closing = asyncio.get_running_loop().call_later(REQUEST_S, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing.cancel()
        super().connection_lost(exc)


class ReviewServer:
    """A server that is ready to ``run``; ``address`` is what a person opens. Raises ConfigError for a door that stands open."""

    def __init__(self, config: Config) -> None:
        review = config.review
        if not review.is_local and (review.users is None or review.tls_cert is None or review.tls_key is None):
            raise ConfigError(
                f"review.host = {review.host}: other machines reach this address, so give review.users, review.tls_cert and "
                "review.tls_key; 127.0.0.1 needs none of them"
            )
        if (review.tls_cert is None) != (review.tls_key is None):
            raise ConfigError("review.tls_cert and review.tls_key go together; give both or none")
        if review.host in _ANY and not review.names:
            raise ConfigError(
                f"review.host = {review.host} is every address of this machine, and none that a browser asks for: say with "
                "review.names under which names browsers reach the pages"
            )
        users = None if review.users is None else Users(Path(review.users))
        if users is None and review.user is None:
            config = config.model_copy(update={"review": review.model_copy(update={"user": name_account()})})
        self._socket = _listen(review.host, review.port)
        port = self._socket.getsockname()[1]
        scheme = "http" if review.tls_cert is None else "https"
        self._place = Place(
            config=config,
            cookie=f"dictalake_review_{port}",
            snapshot=Snapshot(config.lake),
            sounds=SoundStore(config),
            users=users,
            token=Token(),
        )
        self._place.snapshot.refresh()  # a lake that is not there is told before anybody opens a page
        names = ("127.0.0.1", "localhost", "[::1]") if review.is_local else (_bracket(review.host),)
        hosts = {f"{name.lower()}:{port}" for name in (*names, *review.names)}
        if port == (80 if scheme == "http" else 443):
            hosts |= {host.rpartition(":")[0] for host in hosts}
        here = _bracket(self._socket.getsockname()[0])  # of localhost it may be either
        first = review.names[0] if review.names else here if review.is_local else names[0]
        path = "/login" if users is not None else f"/enter?token={self._place.token.value}"
        self.address = f"{scheme}://{first}:{port}{path}"
        settings = uvicorn.Config(
            make_app(self._place, hosts, scheme),
            http=_ImpatientProtocol,
            ws="none",
            lifespan="off",
            access_log=False,  # it would hold the token
            log_config=None,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=32_768,
            ssl_certfile=review.tls_cert,
            ssl_keyfile=review.tls_key,
        )
        self._server = uvicorn.Server(settings)

    def run(self, *, opens_browser: bool = False) -> None:
        """Serves until it is stopped."""
        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # tracebacks may quote what a page shows
        if opens_browser:
            token = self._place.token
            address = self.address.replace(token.value, token.make_once())
            # A browser of the terminal would hold the server up.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._place.close()

    def stop(self) -> None:
        """From another thread."""
        self._server.should_exit = True


def _bracket(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    """Raises ConfigError where the address is taken or not of this machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard), hard))
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(1024)
    except OSError as error:
        raise ConfigError(f"review.host, review.port: {error.strerror or error}; give another port, or 0") from None
    return listening
