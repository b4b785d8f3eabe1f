"""What the HTTP client may do: no redirect to another host, no proxy or password from the environment, no connection that
waits for ever. An object comes as a stream, inflated where the server compressed it, in pieces of bounded size."""

from __future__ import annotations

from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem
from yarl import URL

from dictalake.archive.intake import Intake
from dictalake.archive.streamed import Body, take_body

_SILENCE_S = 60.0
_CONNECT_S = 30.0
_MOST_REDIRECTS = 5


class RefusedRedirect(aiohttp.ClientError):
    """The server sends on to another host, another port, or from https to http."""


class HttpObjects(HTTPFileSystem):
    """fsspec's file system with this client. The user's ``client_kwargs`` and ``headers`` go to the named host alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "get_client": _open_session})

    async def _info(self, url: str, **options: Any) -> Any:
        """fsspec says of every error that the object is not there."""
        try:
            return await super()._info(url, **options)
        except FileNotFoundError as error:
            cause = error.__cause__
            if cause is None or getattr(cause, "status", None) in (404, 410):
                raise
            raise cause from None

    async def open_body(self, url: str) -> Body:
        session = await self.set_session()
        headers = {"Accept-Encoding": "identity", **self.kwargs.get("headers", {})}
        response = await session.get(
            self.encode_url(url), **{**self.kwargs, "headers": headers, "max_redirects": _MOST_REDIRECTS}
        )

        async def close() -> None:
            response.close()

        try:
            self._raise_not_found_for_status(response, url)
        except BaseException:
            response.close()
            raise
        return Body(response.content.read, close)


async def _open_session(**options: Any) -> aiohttp.ClientSession:
    watch = aiohttp.TraceConfig()
    watch.on_request_redirect.append(_check_redirect)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    traces = [*options.pop("trace_configs", []), watch]
    return aiohttp.ClientSession(**{"timeout": timeout, "trust_env": False, **options}, trace_configs=traces)


async def _check_redirect(session: Any, context: Any, redirect: aiohttp.TraceRequestRedirectParams) -> None:
    answer = redirect.response
    here, there = answer.url, answer.url.join(URL(answer.headers.get("Location") or answer.headers.get("URI") or ""))
    is_same = here.origin() == there.origin()
    is_upgrade = here.host == there.host and (here.scheme, here.port, there.scheme, there.port) == ("http", 80, "https", 443)
    if not is_same and not is_upgrade:
        answer.close()
        raise RefusedRedirect


def read_http(filesystem: HttpObjects, url: str, intake: Intake) -> None:
    """All bytes of the object into ``intake``. Raises FileNotFoundError, ``storage_errors()``, or what ``intake`` raises."""

    async def ask() -> tuple[None, Body]:
        return None, await filesystem.open_body(url)

    take_body(filesystem.loop, ask, intake)
