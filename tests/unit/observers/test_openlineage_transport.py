"""Where lineage events go: to a server, with its key, or into the lake; a failure costs one warning."""

from __future__ import annotations

import io
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dictalake.config.sections import Archive
from dictalake.observers import openlineage
from dictalake.observers.openlineage import make_run_uuid
from tests.lineage_runs import PROVENANCE, RUN_ID, make_config, read_end, rebuild, run

Told = list[tuple[str, str | None, dict[str, Any]]]


def test_off_tells_nobody(tmp_path: Path) -> None:
    config = make_config(tmp_path, kind="off")
    with run(config):
        pass
    assert list(tmp_path.iterdir()) == []


@contextmanager
def server(
    status: int = 201, location: str | None = None, on_event: Callable[[str], None] | None = None
) -> Iterator[tuple[str, Told]]:
    """A server in place of a catalogue: its URL, and the requests that it got (path, Authorization, event).

    It first calls ``on_event(eventType)``, then answers with ``status`` and a redirection to ``location``. ``/login`` is a page
    for redirected clients.
    """
    heard: Told = []

    class Catalogue(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.path, self.headers["Authorization"], json.loads(body)))
            if on_event is not None:
                on_event(heard[-1][2]["eventType"])
            self.send_response(201 if self.path == "/login" else status)
            if location is not None:
                self.send_header("Location", location)
            self.end_headers()

        def do_GET(self) -> None:
            assert self.path == "/login"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Who are you?</html>")

        def log_message(self, format: str, *arguments: Any) -> None:
            """Silent."""

    service = HTTPServer(("127.0.0.1", 0), Catalogue)
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{service.server_port}", heard
    finally:
        service.shutdown()
        service.server_close()
        thread.join()


def test_a_server_gets_both_events_and_the_lake_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(openlineage.API_KEY, raising=False)
    with server() as (url, heard):
        config = make_config(tmp_path, kind="http", server=url, namespace="hospital")
        with run(config):
            assert [event["eventType"] for _, _, event in heard] == ["START"]
    assert [(path, key, event["eventType"]) for path, key, event in heard] == [
        ("/api/v1/lineage", None, "START"),
        ("/api/v1/lineage", None, "COMPLETE"),
    ]
    assert {event["job"]["namespace"] for *_, event in heard} == {"hospital"}
    assert rebuild(heard[1][2]).run.runId == make_run_uuid(RUN_ID)
    assert list(tmp_path.iterdir()) == []


def test_a_server_below_a_path_gets_the_key_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openlineage.API_KEY, "k3y")
    with server() as (url, heard), run(make_config(tmp_path, kind="http", server=f"{url}/tools/lineage")):
        pass
    assert [(path, key) for path, key, _ in heard] == [("/tools/lineage/api/v1/lineage", "Bearer k3y")] * 2
    assert "k3y" not in json.dumps([event for *_, event in heard])


def test_the_clients_own_settings_send_nothing_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server() as (url, heard):
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        monkeypatch.setenv("OPENLINEAGE__FACETS__ENVIRONMENT_VARIABLES", '["PATH"]')
        config = make_config(tmp_path)
        with run(config):
            pass
    assert heard == []
    assert set(read_end(config, "complete")["run"]["facets"]) == {"processing_engine", "dictalake_provenance"}


def test_a_server_that_refuses_or_is_gone_costs_a_warning(tmp_path: Path) -> None:
    said = io.StringIO()
    with server(status=503) as (url, heard), run(make_config(tmp_path, kind="http", server=url), said=said):
        pass
    assert len(heard) == 2, "one try each"
    with run(make_config(tmp_path, kind="http", server=url), said=said):  # nobody listens there any more
        pass
    end = "the run continues, its event {} was not sent"
    assert said.getvalue().splitlines() == [
        f"lineage.server = {url}: {what}; {end.format(state)}"
        for what in ("HTTP 503", "ConnectionError")
        for state in ("START", "COMPLETE")
    ]


@pytest.mark.parametrize(
    ("status", "location"), [(301, "/login"), (302, "/login"), (303, "/login"), (307, "/login"), (308, "/login"), (302, None)]
)
def test_a_server_that_sends_on_to_another_page_has_heard_nothing(tmp_path: Path, status: int, location: str | None) -> None:
    said = io.StringIO()
    with server(status, location) as (url, heard), run(make_config(tmp_path, kind="http", server=url), said=said):
        pass
    assert [path for path, *_ in heard] == ["/api/v1/lineage"] * 2, "nothing is told to where it sends"
    assert said.getvalue().splitlines() == [
        f"lineage.server = {url}: HTTP {status}; the run continues, its event {state} was not sent"
        for state in ("START", "COMPLETE")
    ]


def test_a_run_that_is_stopped_while_it_tells_its_start_is_an_abort(tmp_path: Path) -> None:
    thread_id = threading.get_ident()

    def stop(state: str) -> None:
        if state == "START":
            signal.pthread_kill(thread_id, signal.SIGINT)

    with server(on_event=stop) as (url, heard):
        with pytest.raises(KeyboardInterrupt), run(make_config(tmp_path, kind="http", server=url)):
            pytest.fail("the run began")
        assert [event["eventType"] for *_, event in heard] == ["START", "ABORT"]


class Torn(dict[str, str]):
    """Versions that cannot be looked up."""

    def __missing__(self, key: str) -> str:
        raise LookupError("gs://hospital/canary.wav")


def test_whatever_goes_wrong_in_the_telling_costs_a_warning_by_its_type(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = io.StringIO()
    with run(make_config(tmp_path), said=said, provenance=replace(PROVENANCE, versions=Torn())):
        pass
    assert said.getvalue().splitlines() == [
        f"lineage.kind = file: LookupError; the run continues, its event {state} was not sent"
        for state in ("START", "COMPLETE")
    ]
    assert capfd.readouterr() == ("", "")


def test_a_server_that_never_answers_holds_a_run_up_for_seconds_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openlineage, "_PATIENCE_S", 0.2)
    said = io.StringIO()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with run(make_config(tmp_path, kind="http", server=url), said=said):
            pass
        assert time.monotonic() - started < 3
    assert len(said.getvalue().splitlines()) == 2
    assert "the run continues, its event COMPLETE was not sent" in said.getvalue()


def test_a_lake_that_takes_no_event_costs_a_warning(tmp_path: Path) -> None:
    config, said = make_config(tmp_path), io.StringIO()
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "lineage").write_text("a file where the folder should be", encoding="utf-8")
    with run(config, said=said):
        pass
    assert said.getvalue().startswith("lineage.kind = file: FileExistsError; the run continues, its event START was not sent\n")


def test_a_place_that_has_no_name_costs_a_warning(tmp_path: Path) -> None:
    said = io.StringIO()
    config = make_config(tmp_path).model_copy(update={"archive": Archive.model_validate({"uri": "gs:///dictations"})})
    with run(config, said=said):
        pass
    assert "lineage.kind = file: ValueError; the run continues" in said.getvalue()
