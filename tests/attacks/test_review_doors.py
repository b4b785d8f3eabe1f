"""Attacks on `dictalake review`: whoever has no business there sees nothing and changes nothing, and texts stay texts."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from argon2 import PasswordHasher

from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError
from dictalake.lake.corrections import CorrectionRecord, Corrections
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.query import connect
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import make_local_version, make_recording_id
from dictalake.review.guard import HEADERS, MOST_BODY
from dictalake.review.server import ReviewServer
from dictalake.review.sessions import add_user
from tests.lake_rows import make_row
from tests.review_server import Client, serving

MARKUP = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">'\"{{ 7*7 }}"
PAGES = ("/", "/recordings", "/queue", "/compare", "/sound/{id}/wave.json", "/sound/{id}/0.wav", "/recordings/{id}")
PAGES += ("/recordings/{id}/similar",)
SLOW = 1000


def make_heard_row(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """A row whose sound is a file of this machine."""
    path = folder / name
    soundfile.write(path, np.zeros(16_000, np.int16), 16_000, format="WAV")
    uri, version = f"file://{path}", make_local_version(path.stat())
    row = make_row(make_recording_id(uri, version), **changes)
    row["source"] |= {"uri": uri, "version": version, "size_bytes": path.stat().st_size}
    return row


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One is full of markup, one is to be erased."""
    folder = tmp_path_factory.mktemp("sound")
    word = {"word": MARKUP, "start_s": 0.1, "end_s": 0.5, "confidence": 0.5, "channel": 0}
    section = {"heading": MARKUP, "name": MARKUP, "text": MARKUP}
    metadata = [("specialty", MARKUP), (MARKUP, MARKUP)]
    marked = make_heard_row(
        folder, "<b>a.wav", text=MARKUP, text_raw=MARKUP, words=[word], sections=[section], metadata=metadata
    )
    other = {**marked, "fingerprint": "000000000000", "text": f"{MARKUP} other"}
    return [marked, make_heard_row(folder, "b.wav"), other]


@pytest.fixture(scope="module")
def lake(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake.model_validate({"uri": str(tmp_path_factory.mktemp("review") / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    return lake


@pytest.fixture(scope="module")
def address(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # of the search
        with serving(str(lake.uri), review={"user": "<b>Ann</b>"}) as address:
            yield address


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address).enter()


def save(client: Client, recording_id: str, **headers: str) -> int:
    fields = {"csrf": client.read_csrf(), "fingerprint": "3f0c9a12b7de", "attempt": "0", "text": "Changed.", "opened": "0"}
    return client.post(f"/recordings/{recording_id}/save", fields, **headers).status


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("cookie", ["", "dictalake_review_{port}=", "dictalake_review_{port}=guess", "{"])
def test_without_the_token_no_page_is_shown(address: str, rows: list[dict[str, Any]], path: str, cookie: str) -> None:
    headers = {"Cookie": cookie.replace("{port}", str(urlsplit(address).port))}
    answer = Client(address).get(path.format(id=rows[0]["recording_id"]), **headers)
    assert (answer.status, rows[0]["recording_id"] in answer.text) == (401, False)


def test_a_wrong_token_opens_nothing(address: str) -> None:
    for path in ("/enter", "/enter?token=", f"/enter?token={'a' * 43}", "/login"):
        answer = Client(address).get(path)
        assert (answer.status, "set-cookie" in answer.headers) == (401, False), path


def test_the_address_that_other_users_see_the_browser_started_with_opens_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Queue[str] = Queue()
    monkeypatch.setattr("dictalake.review.server.webbrowser.open", opened.put)
    server = ReviewServer(Config.model_validate({"lake": lake.model_dump(), "review": {"user": "Ann"}}))
    thread = threading.Thread(target=server.run, kwargs={"opens_browser": True})
    thread.start()
    try:
        address = opened.get()
        statuses = [Client(address).get(address.removeprefix(Client(address).origin)).status for _ in range(2)]
        Client(server.address).enter()
    finally:
        server.stop()
        thread.join()
    assert statuses == [200, 401]


def test_the_cookie_is_for_this_server_alone(address: str) -> None:
    client = Client(address)
    answer = client.get(f"/enter?{urlsplit(address).query}")
    assert all(word in answer.headers["set-cookie"].lower() for word in ("httponly", "samesite=strict", "path=/"))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""])
def test_another_host_name_is_refused(address: str, client: Client, host: str) -> None:
    """A page of elsewhere whose name was made to lead here (DNS rebinding) would send its own name."""
    answer = client.get("/recordings", Host=host.replace("{port}", str(urlsplit(address).port)))
    assert answer.status in (400, 421)
    assert "Recordings" not in answer.text


def test_a_form_of_another_page_changes_nothing(client: Client, lake: Lake, rows: list[dict[str, Any]]) -> None:
    recording_id = rows[1]["recording_id"]
    port = urlsplit(client.address).port
    for origin in ("https://evil.example", "null", f"http://evil.example:{port}", f"https://127.0.0.1:{port}", ""):
        assert save(client, recording_id, Origin=origin) == 403, origin
    assert save(client, recording_id, **{"Sec-Fetch-Site": "same-site"}) == 403
    fields = {"text": "Changed.", "fingerprint": "3f0c9a12b7de", "attempt": "0"}
    for csrf in ({}, {"csrf": ""}, {"csrf": "guess"}):
        assert client.post(f"/recordings/{recording_id}/save", fields | csrf).status == 403
    corrections = Corrections(lake)
    corrections.refresh()
    assert corrections.list_of(recording_id) == ()


def test_markup_in_texts_metadata_names_and_places_stays_text(client: Client, rows: list[dict[str, Any]]) -> None:
    recording_id = rows[0]["recording_id"]
    assert save(client, recording_id) == 303
    fields = {"csrf": client.read_csrf(), "words": MARKUP, "column": "metadata", "operator": "has", "value": "<script>"}
    found = client.post("/recordings/filter", fields).headers["location"]
    assert "script" not in found
    for path in ("/", "/recordings", found, f"/recordings/{recording_id}", f"/compare?recording={recording_id}", "/queue"):
        text = client.get(path).text
        assert "<script>document" not in text, path
        assert "<img" not in text
        assert "<b>" not in text
        assert "49" not in text.split("</head>")[1] or "{{ 7*7 }}" in text.replace("&#39;", "'")
    assert "&lt;script&gt;" in client.get(f"/recordings/{recording_id}").text


def test_every_answer_forbids_what_a_script_of_elsewhere_would_need(client: Client, address: str) -> None:
    for answer in (client.get("/"), client.get("/static/review.css"), client.get("/nowhere"), Client(address).get("/")):
        for name, value in HEADERS.items():
            assert answer.headers[name.lower()] == value
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not any(word in policy for word in ("unsafe", "*", "http:", "data:"))
    assert HEADERS["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        *("/recordings/../../../etc/passwd", "/recordings/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/recordings/' OR 1=1 --"),
        *("/static/../place.py", "/static/%2e%2e/place.py", "/static//etc/passwd", "/static/..%2fplace.py"),
        *("/sound/../../x/0.wav", "/sound/{id}/-1.wav", "/sound/{id}/99.wav", "/sound/{id}/0.wav.wav", "/sound/{id}/%00.wav"),
        *("/recordings/{id}%00", "/recordings/{id}'", "/recordings/{ID}"),
    ],
)
def test_a_trick_in_a_path_leads_nowhere(client: Client, rows: list[dict[str, Any]], path: str) -> None:
    recording_id = rows[0]["recording_id"]
    filled = path.replace("{id}", recording_id).replace("{ID}", recording_id.upper()).replace(" ", "%20")
    assert client.get(filled).status == 404


@pytest.mark.parametrize(
    "query",
    [
        *("f=uri~has~smith", "f=metadata~has~smith", "f=status)%20OR%201=1--~eq~ok", "f=status~drop~ok", "sort=uri;drop"),
        *("f=confidence~lt~0.5%20OR%201=1", "after=x", "after=WyJ4Iiwgey19XQ==", "search=guess"),
        *("sort=newest&after=WzEsICJhIl0=", "after=WyJ4IiwgImEiXQ==", "after=WzEsICJcdWQ4MDAiXQ==", "after=" + "W1tb" * 9000),
        *("f=recorded_at~lt~0001-01-01T00:00:00%2B23:00", "after=WzFlOTk5OSwgIlwwIl0="),
    ],
)
def test_a_trick_in_a_question_is_refused(client: Client, query: str) -> None:
    assert client.get(f"/recordings?{query}").status == 400


def test_a_form_beyond_the_bound_is_refused(client: Client) -> None:
    long = {"csrf": client.read_csrf(), "words": "a" * MOST_BODY}
    assert client.post("/recordings/filter", long).status == 413
    assert client.post("/recordings/filter", {f"f{number}": "" for number in range(500)}).status == 400


def test_the_sound_of_an_erased_recording_is_gone_with_its_page(client: Client, lake: Lake, rows: list[dict[str, Any]]) -> None:
    recording_id = rows[1]["recording_id"]
    places = [f"/recordings/{recording_id}", f"/sound/{recording_id}/wave.json", f"/sound/{recording_id}/0.wav"]
    assert [client.get(path).status for path in places] == [200, 200, 206]
    forget(lake, Subjects(recordings=(recording_id,)))
    assert [client.get(path).status for path in places] == [404, 404, 404]
    assert recording_id not in client.get("/recordings").text
    assert save(client, recording_id) == 404


def test_an_undo_does_not_bring_back_the_text_of_what_is_being_erased(
    lake: Lake, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make_heard_row(tmp_path, "late.wav")
    recording_id = row["recording_id"]
    TranscriptTable(lake).commit(write_staged(make_transcripts([row]), lake))
    assert save(client, recording_id) == 303
    corrections = Corrections(lake)
    corrections.refresh()
    [saved] = corrections.list_of(recording_id)
    commit = Corrections._commit

    def commit_late(self: Corrections, record: CorrectionRecord, check: object) -> CorrectionRecord:
        forget(lake, Subjects(recordings=(recording_id,)))
        return commit(self, record, lambda _: None)  # as if it had looked before

    monkeypatch.setattr(Corrections, "_commit", commit_late)
    fields = {"csrf": client.read_csrf(), "seen": saved.correction_id}
    assert client.post(f"/recordings/{recording_id}/undo", fields).status == 303
    corrections.refresh()
    assert corrections.list_of(recording_id) == ()


def test_only_a_recording_of_the_lake_is_left_to_others(client: Client, lake: Lake) -> None:
    assert client.post("/queue/next", {"csrf": client.read_csrf(), "leave": "Mr Smith"}).status == 404
    corrections = Corrections(lake)
    corrections.refresh()
    assert corrections.list_of("Mr Smith") == ()


def test_whoever_hears_a_part_alone_is_written_down(client: Client, lake: Lake, rows: list[dict[str, Any]]) -> None:
    recording_id = rows[0]["recording_id"]
    for _ in range(2):
        assert client.get(f"/sound/{recording_id}/0.wav", Range="bytes=100-").status == 206
    with connect(str(lake.uri)) as database:
        heard = database.sql("SELECT recording_id FROM access_records WHERE what = 'sound'").fetchall()
    assert heard.count((recording_id,)) == 1


@pytest.mark.parametrize("opened", ["9" * 400, "²", "-1", "x"])
def test_a_forged_time_of_opening_counts_as_none(client: Client, rows: list[dict[str, Any]], opened: str) -> None:
    fields = {"csrf": client.read_csrf(), "fingerprint": "3f0c9a12b7de", "attempt": "0", "text": "Forged.", "opened": opened}
    assert client.post(f"/recordings/{rows[0]['recording_id']}/save", fields).status in (303, 409)


def test_whose_words_stand_in_a_list_or_beside_a_conflict_is_written_down(
    client: Client, lake: Lake, rows: list[dict[str, Any]]
) -> None:
    def count(what: str) -> int:
        with connect(str(lake.uri)) as database:
            [(found,)] = database.execute("SELECT count(*) FROM access_records WHERE what = ?", [what]).fetchall()
        return int(found)

    before = count("list"), count("page")
    client.get("/recordings")
    assert count("list") == before[0]
    found = client.post("/recordings/filter", {"csrf": client.read_csrf(), "words": "changed OR forged OR fracture"})
    assert client.get(found.headers["location"]).text.count("<mark>") > 0
    assert count("list") > before[0]
    assert {save(client, rows[0]["recording_id"]) for _ in range(2)} >= {409}
    assert count("page") > before[1]


def test_pages_say_that_nothing_is_written_down_where_nothing_is(lake: Lake, client: Client) -> None:
    assert "is written down" in client.get("/").text
    with serving(str(lake.uri), review={"access_log": False}) as address:
        assert "is written down" not in Client(address).enter().get("/").text


def test_a_thousand_connections_that_say_nothing_hold_nobody_up(client: Client, address: str) -> None:
    parts = urlsplit(address)
    slow: list[socket.socket] = []
    try:
        for number in range(SLOW):
            one = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
            one.sendall(b"GET / HTTP/1.1\r\nHost: " if number % 2 else b"")
            slow.append(one)
        assert client.get("/recordings").status == 200
    finally:
        for one in slow:
            one.close()
    assert client.get("/recordings").status == 200


def test_a_defect_is_told_in_the_terminal_by_its_place_and_shows_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("Mr Smith")

    monkeypatch.setattr("dictalake.review.pages.list_next", fail)
    answer = client.get("/queue")
    told = capsys.readouterr()
    assert (answer.status, "Something went wrong" in answer.text) == (500, True)
    assert {name: answer.headers[name.lower()] for name in HEADERS} == HEADERS
    assert "ValueError in test_review_doors.py" in told.err
    assert "Smith" not in told.out + told.err + answer.text


def test_a_connection_that_stops_within_its_second_request_is_closed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.review.server.REQUEST_S", 0.2)
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request("GET", "/static/review.css")
    assert connection.getresponse().read()
    assert connection.sock is not None
    connection.sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
    assert connection.sock.recv(1) == b""
    connection.close()


def test_what_cannot_be_written_down_is_not_shown(
    rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    (tmp_path / "lake/accesses").write_text("no folder")
    with serving(str(lake.uri)) as address:
        client = Client(address).enter()
        assert client.get("/recordings").status == 200
        answer = client.get(f"/recordings/{rows[0]['recording_id']}")
    assert (answer.status, "script" in answer.text) == (503, False)
    assert "cannot make the table at" in capsys.readouterr().err  # as the page says


def test_other_machines_need_a_certificate_and_log_in(lake: Lake, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    add_user(users, "Ann", "a long password")
    for review in ({}, {"users": str(users)}):
        with pytest.raises(ConfigError, match=r"^review\.host = 0\.0\.0\.0: other machines reach this address"):
            ReviewServer(Config.model_validate({"lake": lake.model_dump(), "review": {"host": "0.0.0.0", **review}}))
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).touch()
    door = {"users": str(users), "tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    for host in ("0.0.0.0", "::"):  # no browser would be answered
        with pytest.raises(ConfigError, match=r"say with review\.names under which names browsers reach the pages"):
            ReviewServer(Config.model_validate({"lake": lake.model_dump(), "review": {"host": host, **door}}))
    assert "a long password" not in users.read_text()
    assert users.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_the_printed_address_is_answered_at_every_address_of_this_machine_alone(lake: Lake, host: str) -> None:
    try:
        socket.create_server((host, 0), family=socket.getaddrinfo(host, 0)[0][0]).close()
    except OSError:
        pytest.skip("this machine has no such address")
    with serving(str(lake.uri), review={"host": host}) as address:
        Client(address).enter()


def test_a_name_with_a_wrong_password_gets_nowhere_and_is_refused_after_some(lake: Lake, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text(
        f"Ann:{PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash('a long password')}\n"
    )  # quick ones
    with serving(str(lake.uri), review={"users": str(users)}) as address:
        client = Client(address)

        def log_in(name: str, password: str, **headers: str) -> int:
            return client.post("/login", {"name": name, "password": password}, **headers).status

        assert client.get("/enter?token=").status == 401
        assert log_in("Ann", "a long password", Origin="https://evil.example") == 403
        assert log_in("Bob", "a long password") == 403
        assert client.get("/").status == 401
        assert log_in("Ann", "a long password") == 200
        assert "Ann" in client.get("/").text
        assert client.post("/logout", {"csrf": client.read_csrf("/")}).status == 303
        assert client.get("/").status == 401
        assert [log_in("Ann", "wrong") for _ in range(5)] == [403] * 5
        assert log_in("Ann", "a long password") == 403
