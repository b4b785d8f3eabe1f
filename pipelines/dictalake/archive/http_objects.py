"""What the HTTP client may do: no redirect to another host, no proxy or password from the environment, no connection that
waits for ever. An object comes as a stream, inflated where the server compressed it, in pieces of bounded size."""

from __future__ import annotations

from typing import Any

import aiohttp
from yarl import URL

from dictalake.archive.intake import Intake
from dictalake.archive.streamed import Body, take_body

_SILENCE_S = 60.0
_CONNECT_S = 30.0
_MOST_REDIRECTS = 5


class RefusedRedirect(aiohttp.ClientError):
    """The server sends on to another host, or from https to http."""

    status = 403  # no further try helps, and where it leads to nobody allowed


async def open_session(**options: Any) -> aiohttp.ClientSession:
    """The session of an HTTP file system of fsspec (its ``get_client``), with the user's ``client_kwargs`` as ``options``."""
    traces = aiohttp.TraceConfig()
    traces.on_request_redirect.append(_check_redirect)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    defaults: dict[str, Any] = {"timeout": timeout, "trust_env": False}
    return aiohttp.ClientSession(**{**defaults, **options}, trace_configs=[*options.pop("trace_configs", []), traces])


async def _check_redirect(session: Any, context: Any, redirect: aiohttp.TraceRequestRedirectParams) -> None:
    headers = redirect.response.headers
    here = redirect.response.url
    there = here.join(URL(headers.get("Location") or headers.get("URI") or ""))
    is_upgrade = (here.scheme, there.scheme) == ("http", "https")
    same_port = here.port == there.port or (is_upgrade and here.is_default_port() and there.is_default_port())
    if here.host != there.host or not same_port or not (here.scheme == there.scheme or is_upgrade):
        redirect.response.close()
        raise RefusedRedirect


def read_http(filesystem: Any, url: str, intake: Intake) -> None:
    """All bytes of the object into ``intake``. Raises FileNotFoundError, ``storage_errors()``, or what ``intake`` raises."""

    async def ask() -> tuple[None, Body]:
        session = await filesystem.set_session()
        options = {**filesystem.kwargs, "max_redirects": _MOST_REDIRECTS}
        options["headers"] = {"Accept-Encoding": "identity", **options.get("headers", {})}
        response = await session.get(filesystem.encode_url(url), **options)
        try:
            filesystem._raise_not_found_for_status(response, url)
        except BaseException:
            response.close()
            raise

        async def close() -> None:
            response.close()

        return None, Body(response.content.read, close)

    take_body(filesystem.loop, ask, intake)
