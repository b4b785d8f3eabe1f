"""``dictalake doctor`` on object storage: real clients against real servers on this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from pyarrow import fs

from dictalake.cli.doctor import examine
from dictalake.cli.doctor_checks import FAIL, OK, CheckFailed, CheckResult, check_archive
from dictalake.config.sections import Config, Lake
from dictalake.lake.storage import open_storage
from tests.gcs_xml_proxy import HOP_HEADERS, _Handler
from tests.recordings import make_sound, write_wav

if TYPE_CHECKING:
    from tests.emulators import ObjectStore

OF_THE_LAKE = ("lake: objects", "lake: commits", "lake: table")
CONDITIONS = {"if-none-match", "x-goog-if-generation-match"}


class CarelessGateway(_Handler):
    """Passes requests on to a store, without the condition that the object must be new; some objects cannot be read."""

    def _route(self, translate: Any) -> None:
        body = self._read_body()
        if "secret" in self.path and self.command == "GET" and "prefix=" not in self.path:
            self._reply(403, {"content-type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
            return
        headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_HEADERS | CONDITIONS}
        self._reply(*self._ask(self.command, self.path, body, headers))


def serve_gateway(backend: str, address: Connection) -> None:
    handler = type("BoundHandler", (CarelessGateway,), {"backend": backend.removeprefix("http://")})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    address.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


@contextmanager
def behind_gateway(store: ObjectStore) -> Iterator[ObjectStore]:
    """Runs in a separate process: some calls of delta-rs keep the interpreter's lock while they wait."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    gateway = spawn.Process(target=serve_gateway, args=(store.url, theirs), daemon=True)
    gateway.start()
    assert ours.poll(60)
    url = ours.recv()
    try:
        yield replace(
            store,
            url=url,
            storage_options={key: value.replace(store.url, url) for key, value in store.storage_options.items()},
            fsspec_options={**store.fsspec_options, "endpoint_url": url},
        )
    finally:
        gateway.terminate()
        gateway.join()


def examine_lake(lake: Lake) -> dict[str, CheckResult]:
    return {finding.check: finding for finding in examine(Config().model_copy(update={"lake": lake}))}


def test_a_bucket_that_takes_everything_is_ok_and_left_as_it_was(object_store: ObjectStore) -> None:
    lake = object_store.make_lake()
    found = examine_lake(lake)
    assert [(found[name].state, found[name].what) for name in OF_THE_LAKE if found[name].state != OK] == []
    storage = open_storage(lake, "")
    root = storage.filesystem.base_fs
    there = root.get_file_info(fs.FileSelector(storage.filesystem.base_path.rstrip("/"), recursive=True, allow_not_found=True))
    assert [info.path for info in there if info.type == fs.FileType.File] == []


def test_a_bucket_that_is_not_there_fails_each_check_of_the_lake(object_store: ObjectStore) -> None:
    lake = object_store.make_lake()
    lake = lake.model_copy(update={"uri": str(lake.uri).replace("://", "://no-such-")})
    found = examine_lake(lake)
    assert [found[name].state for name in OF_THE_LAKE[:2]] == [FAIL, FAIL]
    assert all(found[name].what for name in OF_THE_LAKE)


def test_a_store_that_ignores_the_condition_loses_commits_and_fails(object_store: ObjectStore) -> None:
    with behind_gateway(object_store) as careless:
        found = examine_lake(careless.make_lake())
    assert (found["lake: objects"].state, found["lake: commits"].state) == (FAIL, FAIL)
    assert "writes an object that is there already" in found["lake: objects"].what
    lost, _, words = found["lake: commits"].what.partition(" of 9 concurrent commits ")
    assert words == "are lost: a second writer overwrites the first"
    assert 1 <= int(lost) <= 6
    assert "If-None-Match" in found["lake: commits"].todo


def test_recordings_that_may_not_be_read_fail_beside_one_that_may(object_store: ObjectStore, tmp_path: Path) -> None:
    write_wav(tmp_path / "take.wav", make_sound(1.0, seed=1))
    bucket = object_store.make_bucket()
    filesystem = fsspec.filesystem(object_store.scheme, **object_store.fsspec_options)
    for name in ("open-1", "secret-1", "secret-2"):
        filesystem.pipe_file(f"{bucket}/{name}.wav", (tmp_path / "take.wav").read_bytes())

    def look(store: ObjectStore) -> str:
        return check_archive(Config.model_validate({"archive": {"uri": bucket, "storage_options": store.fsspec_options}}))

    assert "; 3 read and decoded, 3 s of sound in " in look(object_store)
    with behind_gateway(object_store) as careful, pytest.raises(CheckFailed) as failure:
        look(careful)
    assert (failure.value.what, failure.value.state) == (
        "2 of the first 3 recordings could not be read: access_denied 2",
        FAIL,
    )
    assert "the right to read" in failure.value.todo
