"""A proxy that makes the faults of object storage, for tests only: real HTTP in front of an emulator, in a separate process
for the same reason as the emulators.

=========  ==========================================================================================
kind       what happens to the request
=========  ==========================================================================================
429        refused with ``Retry-After: 1``
500, 503   refused
401        refused as with expired credentials
reset      the connection is reset without an answer, before the request reached the storage
lost       the request is carried out, the answer is lost
truncate   half of the body that was announced, then the connection ends
corrupt    one bit of the body is wrong
slow       the right answer, half a second late
=========  ==========================================================================================

Which requests fail is a matter of seed, method, path and how often this was asked before: not of which thread came first, and
not of the chance name of a test's bucket.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.emulators import ObjectStore
from tests.gcs_xml_proxy import HOP_HEADERS, _Handler

KINDS = ("429", "500", "503", "reset", "truncate", "corrupt")
SLOW_S = 0.5
ROOT = Path(__file__).parent.parent
_BUCKET = re.compile(r"bucket-[0-9a-f]{12}")
# What reads the bytes of an object: gcsfs and google-cloud-storage, then S3
OBJECTS_READ = r"/download/storage/|alt=media|^/[^/?]+/[^?]+$"


@contextmanager
def run_faulty(
    store: ObjectStore,
    rate: float,
    seed: int,
    kinds: Sequence[str] = KINDS,
    *,
    path: str = OBJECTS_READ,
    methods: Sequence[str] = ("GET",),
) -> Iterator[tuple[ObjectStore, Callable[[], Counter[str]]]]:
    """``store`` behind the proxy, and what counts its faults by kind (``requests``: those that could have failed).

    Of the requests with one of ``methods`` in whose path and query ``path`` is found, the share ``rate`` meets a fault.
    """
    plan = {"backend": store.url, "scheme": store.scheme, "rate": rate, "seed": seed}
    plan |= {"kinds": list(kinds), "path": path, "methods": list(methods)}
    command = [sys.executable, "-m", "tests.fault_proxy", json.dumps(plan)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the fault proxy did not start")

            def count() -> Counter[str]:
                with urllib.request.urlopen(f"{url}/__counts", timeout=30) as answer:
                    return Counter(json.load(answer))

            yield (
                replace(
                    store,
                    url=url,
                    storage_options={key: value.replace(store.url, url) for key, value in store.storage_options.items()},
                    fsspec_options={**store.fsspec_options, "endpoint_url": url},
                ),
                count,
            )
        finally:
            process.stdin.close()
            process.wait()


class _Faults:
    """Which request meets which fault, and how many did."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._path = re.compile(plan["path"])
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def choose(self, method: str, path: str) -> tuple[str | None, random.Random]:
        if method not in self._plan["methods"] or not self._path.search(path):
            return None, random.Random(0)
        request = f"{method} {_BUCKET.sub('bucket', path)}"
        with self._lock:
            self._asked[request] += 1
            self.counts["requests"] += 1
            chance = random.Random(f"{self._plan['seed']} {request} {self._asked[request]}")
        return (chance.choice(self._plan["kinds"]) if chance.random() < self._plan["rate"] else None), chance

    def count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1


class _FaultyHandler(_Handler):
    faults: _Faults
    scheme: str

    def _route(self, translate: Any) -> None:
        if self.path == "/__counts":
            self._reply(200, {"content-type": "application/json"}, json.dumps(self.faults.counts).encode())
            return
        body = self._read_body()
        kind, chance = self.faults.choose(self.command, self.path)
        if kind is not None and (kind.isdigit() or kind == "reset"):
            self.faults.count(kind)
            self._refuse_with(int(kind)) if kind.isdigit() else self._reset()
            return
        headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_HEADERS}
        status, answer, content = self._ask(self.command, self.path, body, headers)
        if kind == "lost":
            self.faults.count(kind)
            self._reset()
        elif kind == "truncate" and len(content) > 1 and status < 300:
            self.faults.count(kind)
            self._truncate(status, answer, content)
        elif kind == "corrupt" and content and status < 300:
            self.faults.count(kind)
            damaged = bytearray(content)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            self._reply(status, answer, bytes(damaged))
        else:
            if kind == "slow":
                self.faults.count(kind)
                time.sleep(SLOW_S)
            self._reply(status, answer, content)

    def _refuse_with(self, status: int) -> None:
        code = {429: "TooManyRequests", 401: "ExpiredToken", 500: "InternalError"}.get(status, "SlowDown")
        headers = {"retry-after": "1"} if status == 429 else {}
        if self.scheme == "gs":
            body = json.dumps({"error": {"code": status, "message": code}}).encode()
            self._reply(status, {**headers, "content-type": "application/json"}, body)
        else:  # S3 says so with 400
            body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self._reply(400 if status == 401 else status, {**headers, "content-type": "application/xml"}, body)

    def _truncate(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key not in HOP_HEADERS:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # with the usual 5, clients that come together wait a second for their connection


def _serve(plan: dict[str, Any]) -> None:
    bound = {"backend": plan["backend"].removeprefix("http://"), "put_lock": threading.Lock()}
    handler = type("BoundHandler", (_FaultyHandler,), {**bound, "faults": _Faults(plan), "scheme": plan["scheme"]})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()  # until the test's process closes it, or is gone


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
