"""A server of `dictalake review` for tests, in a thread of this process, and a plain client for it."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from dictalake.config.sections import Config
from dictalake.review.server import ReviewServer


@contextmanager
def serving(lake: str, **sections: Any) -> Iterator[str]:
    """Serves a lake, and gives the address that the command would print."""
    review = {"user": "Ann", **sections.pop("review", {})}
    config = Config.model_validate({"lake": {"uri": lake}, "review": review, **sections})
    server = ReviewServer(config)
    thread = threading.Thread(target=server.run, name="review")
    thread.start()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join()


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Client:
    """Requests as any program may send them. ``headers`` go with each; the cookie is kept as a browser does."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"

    def send(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=30)
        try:
            connection.request(method, path, body or None, {**self.headers, **headers})
            response = connection.getresponse()
            answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()
        if "set-cookie" in answer.headers:
            self.headers["Cookie"] = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def enter(self) -> Client:
        """Opens the printed address."""
        parts = urlsplit(self.address)
        assert self.get(f"{parts.path}?{parts.query}").status == 200
        return self

    def read_csrf(self, path: str = "/recordings") -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(path).text)
        assert found is not None
        return found[1]

    def post(self, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
        """A form as a page of the server sends it, unless ``headers`` say something else."""
        own = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin, **headers}
        return self.send("POST", path, urlencode(fields), **own)
