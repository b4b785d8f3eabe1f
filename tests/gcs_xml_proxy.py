"""A translating proxy, for tests only: Google Cloud Storage's XML API, which delta-rs speaks, in front of fake-gcs-server,
whose JSON API is complete. JSON requests go through untouched, so one address serves delta-rs, pyarrow and gcsfs.

| XML request of object_store 0.13            | becomes                                                        |
| ------------------------------------------- | -------------------------------------------------------------- |
| PUT /bucket/key, x-goog-if-generation-match | POST /upload/storage/v1/b/bucket/o?uploadType=multipart        |
| GET, HEAD /bucket/key, Range                | GET /storage/v1/b/bucket/o/key, and with alt=media             |
| DELETE /bucket/key                          | DELETE /storage/v1/b/bucket/o/key                              |
| GET /bucket?list-type=2&prefix=&delimiter=  | GET /storage/v1/b/bucket/o?prefix=&delimiter=&pageToken=       |
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import datetime
from email.utils import format_datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree

JSON_PATHS = ("/storage/v1/", "/upload/", "/resumable/", "/download/", "/batch/", "/b/")
HOP_HEADERS = {"connection", "host", "transfer-encoding", "content-length", "date", "server", "keep-alive"}


class GcsXmlProxy:
    """Runs on a free loopback port until ``stop``; ``backend`` is the ``host:port`` of a fake-gcs-server."""

    def __init__(self, backend: str) -> None:
        handler = type("BoundHandler", (_Handler,), {"backend": backend, "put_lock": threading.Lock()})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a client that was killed in the middle of a request."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    backend: str
    put_lock: threading.Lock
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._route(self._list_or_read)

    def do_HEAD(self) -> None:
        self._route(self._list_or_read)

    def do_PUT(self) -> None:
        self._route(self._write)

    def do_POST(self) -> None:
        self._route(self._refuse)

    def do_PATCH(self) -> None:
        self._route(self._refuse)

    def do_DELETE(self) -> None:
        self._route(self._delete)

    def _route(self, translate: Any) -> None:
        body = self._read_body()
        if self.path.startswith(JSON_PATHS):
            headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_HEADERS}
            self._reply(*self._ask(self.command, self.path, body, headers))
            return
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        translate(bucket, key, {name: values[0] for name, values in parse_qs(parts.query, True).items()}, body)

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, method: str, path: str, body: bytes = b"", headers: Any = None) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self.backend, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def _reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key not in HOP_HEADERS:
                self.send_header(key, value)
        length = headers.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _object_path(self, bucket: str, key: str) -> str:
        return f"/storage/v1/b/{quote(bucket)}/o/{quote(key, safe='')}"

    def _list_or_read(self, bucket: str, key: str, query: dict[str, str], body: bytes) -> None:
        if not key:
            self._list(bucket, query)
            return
        status, _, content = self._ask("GET", self._object_path(bucket, key))
        if status != 200:
            self._fail(status)
            return
        found = json.loads(content)
        headers = _describe(found)
        if self.command == "HEAD":
            self._reply(200, {**headers, "content-length": found["size"]})
            return
        ranged = {"Range": self.headers["Range"]} if "Range" in self.headers else {}
        status, answer, content = self._ask("GET", f"{self._object_path(bucket, key)}?alt=media", headers=ranged)
        if "content-range" in answer:
            headers["content-range"] = answer["content-range"]
        self._reply(status, headers, content)

    def _write(self, bucket: str, key: str, query: dict[str, str], body: bytes) -> None:
        if query or "x-goog-copy-source" in self.headers:
            self._fail(501)  # multipart uploads and copies: nothing in dictalake makes them
            return
        name = json.dumps({"name": key}).encode()
        kind = b"application/octet-stream"
        parts = b"--part\r\nContent-Type: application/json\r\n\r\n%s\r\n--part\r\nContent-Type: %s\r\n\r\n%s\r\n--part--\r\n"
        arguments = {"uploadType": "multipart", "name": key}
        generation = self.headers.get("x-goog-if-generation-match")
        if generation is not None:
            arguments["ifGenerationMatch"] = generation
        path = f"/upload/storage/v1/b/{quote(bucket)}/o?{urlencode(arguments)}"
        # The real service compares and writes in one step; the emulator's own check must not race with another PUT.
        with self.put_lock:
            status, _, answer = self._ask(
                "POST", path, parts % (name, kind, body), {"Content-Type": "multipart/related; boundary=part"}
            )
        if status == 200:
            self._reply(200, _describe(json.loads(answer)))
        else:
            self._fail(status)

    def _delete(self, bucket: str, key: str, query: dict[str, str], body: bytes) -> None:
        status, _, _ = self._ask("DELETE", self._object_path(bucket, key))
        if status in (200, 204):
            self._reply(204, {})
        else:
            self._fail(status)

    def _refuse(self, bucket: str, key: str, query: dict[str, str], body: bytes) -> None:
        self._fail(501)

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        names = {
            "prefix": "prefix",
            "delimiter": "delimiter",
            "continuation-token": "pageToken",
            "max-keys": "maxResults",
            "start-after": "startOffset",
        }
        arguments = {names[name]: value for name, value in query.items() if name in names}
        status, _, content = self._ask("GET", f"/storage/v1/b/{quote(bucket)}/o?{urlencode(arguments)}")
        if status != 200:
            self._fail(status)
            return
        listing = json.loads(content)
        root = ElementTree.Element("ListBucketResult")
        for found in listing.get("items", []):
            if found["name"] == query.get("start-after"):  # startOffset includes it, start-after does not
                continue
            entry = ElementTree.SubElement(root, "Contents")
            for tag, value in (("Key", found["name"]), ("Size", found["size"]), ("LastModified", found["updated"])):
                ElementTree.SubElement(entry, tag).text = value
            ElementTree.SubElement(entry, "ETag").text = _etag(found)
        for prefix in listing.get("prefixes", []):
            ElementTree.SubElement(ElementTree.SubElement(root, "CommonPrefixes"), "Prefix").text = prefix
        if token := listing.get("nextPageToken"):
            ElementTree.SubElement(root, "NextContinuationToken").text = token
        self._reply(200, {"content-type": "application/xml"}, ElementTree.tostring(root))

    def _fail(self, status: int) -> None:
        code = {404: "NoSuchKey", 412: "PreconditionFailed", 501: "NotImplemented"}.get(status, "InternalError")
        self._reply(status, {"content-type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode())


def _etag(found: dict[str, Any]) -> str:
    return str(found.get("etag") or found["generation"])


def _describe(found: dict[str, Any]) -> dict[str, str]:
    """Headers that the XML API gives with every object."""
    modified = datetime.fromisoformat(found["updated"].replace("Z", "+00:00"))
    return {
        "etag": f'"{_etag(found)}"',
        "last-modified": format_datetime(modified).replace("+0000", "GMT"),
        "x-goog-generation": str(found["generation"]),
        "content-type": "application/octet-stream",
    }
