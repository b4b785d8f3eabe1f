"""Transcripts, a real server over HTTP, and the rows that come of it: good servers, bad ones, and two runs at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError, TranscriptionError
from dictalake.extraction.model import Request
from dictalake.extraction.server_model import ServerModel
from dictalake.lake.corrections import CorrectionRecord, Corrections
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.finding_rows import FindingTable
from tests.extracted_lake import Run, add_dictations, extract_all, fill_lake, make_config, make_dictation, select
from tests.model_server import ModelServer, complete, serving

COUNTS = "SELECT recording_id, attempt, status, len(findings) FROM finding_rows ORDER BY ALL"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[ModelServer, str]]:
    server = ModelServer()
    with serving(server.app) as address:
        yield server, address


@pytest.fixture
def server(served: tuple[ModelServer, str]) -> tuple[ModelServer, str]:
    model, _ = served
    model.mode, model.requests, model.most_at_once, model.delay_s = "good", 0, 0, 0.0
    model.fail = lambda number: None
    return served


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return fill_lake(tmp_path / "lake")


def test_items_are_in_the_views_with_their_quote_and_its_seconds(server: tuple[ModelServer, str], lake: Lake) -> None:
    assert extract_all(make_config(lake, server[1])) == 3
    drugs = select(lake, "SELECT recording_id, drug, dose, quote, start_s, end_s, confidence FROM medications ORDER BY ALL")
    assert drugs == [(f"r{n}", "aspirin", 10.0 + n, f"aspirin {10 + n} mg", 6.0, 8.5, 0.5) for n in range(3)]
    assert select(lake, "SELECT term, negated FROM findings WHERE recording_id = 'r0' ORDER BY position") == [
        ("effusion", True),
        ("daily", False),
    ]
    assert select(lake, "SELECT count(*) FROM lab_values") == select(lake, "SELECT count(*) FROM extractions") == [(3,)]
    assert select(lake, "SELECT DISTINCT offered, parts, map_keys(dropped), status FROM finding_rows") == [(8, 1, [], "ok")]


def test_what_is_done_is_not_asked_again(server: tuple[ModelServer, str], lake: Lake, tmp_path: Path) -> None:
    config = make_config(lake, server[1])
    assert (extract_all(config), extract_all(config)) == (3, 0)
    assert server[0].requests == 3
    add_dictations(tmp_path / "lake", make_dictation("r9", "No fracture."))
    assert (extract_all(config), server[0].requests) == (1, 4)


def test_another_prompt_model_or_part_is_another_fingerprint_and_the_newest_shows(
    server: tuple[ModelServer, str], lake: Lake
) -> None:
    names = {
        Run(make_config(lake, server[1], **keys)).provenance.fingerprint
        for keys in ({}, {"model": "other"}, {"part_chars": 600}, {"max_tokens": 100}, {"revision": "a" * 40})
    }
    assert len(names) == 5
    same = {Run(make_config(lake, server[1], **keys)).provenance.fingerprint for keys in ({}, {"concurrency": 2}, {"tries": 1})}
    assert len(same) == 1
    assert extract_all(make_config(lake, server[1])) == extract_all(make_config(lake, server[1], model="other")) == 3
    assert select(lake, "SELECT count(*), any_value(provenance.model) FROM extractions") == [(3, "other")]


def test_a_transcript_that_changed_is_read_again_and_the_old_items_do_not_show(
    server: tuple[ModelServer, str], lake: Lake, tmp_path: Path
) -> None:
    config = make_config(lake, server[1])
    extract_all(config)
    row = make_dictation("r1", "No fracture.", attempt=1)
    row["provenance"] |= {"transcribed_at": "2030-01-01T00:00:00Z"}
    add_dictations(
        tmp_path / "lake", {**row, "provenance": {**row["provenance"], "transcribed_at": None}, "quality": {"lost_s": -1.0}}
    )
    assert select(lake, "SELECT attempt FROM transcripts WHERE recording_id = 'r1'") == [(1,)]
    assert select(lake, "SELECT count(*) FROM findings WHERE recording_id = 'r1'") == [(0,)]
    assert extract_all(config) == 1
    assert select(lake, COUNTS) == [("r0", 0, "ok", 2), ("r1", 0, "ok", 2), ("r1", 1, "ok", 1), ("r2", 0, "ok", 2)]
    assert select(lake, "SELECT quote FROM findings WHERE recording_id = 'r1'") == [("No fracture.",)]


def test_items_of_a_text_that_a_person_corrected_do_not_show_until_it_is_read_again(
    server: tuple[ModelServer, str], lake: Lake
) -> None:
    config, items = make_config(lake, server[1]), "SELECT quote FROM findings WHERE recording_id = 'r1'"
    extract_all(config)
    record = CorrectionRecord(recording_id="r1", event="corrected", who="Ann", text="No fracture.")
    saved = Corrections(lake).save(record)
    assert select(lake, items) == []
    server[0].mode = "prose"
    assert extract_all(config) == 1
    assert select(lake, items) == []
    server[0].mode = "good"
    extract_all(config, retry_failed=True)
    assert select(lake, items) == [("No fracture.",)]
    Corrections(lake).undo("r1", saved.correction_id, "Ann")
    assert len(select(lake, items)) == 2


def test_two_extractions_that_planned_the_same_work_write_each_row_once(server: tuple[ModelServer, str], lake: Lake) -> None:
    """The guard is the look at the table before a commit: neither run knows of the other."""
    config = make_config(lake, server[1])
    first, second = Run(config).ask(), Run(config).ask()
    assert (first.commit(), second.commit(), second.commit()) == (3, 0, 0)
    assert select(lake, "SELECT count(*), count(DISTINCT recording_id) FROM finding_rows") == [(3, 3)]
    assert select(lake, "SELECT count(*) FROM medications") == [(3,)]


def test_what_another_run_has_claimed_is_left_to_it(server: tuple[ModelServer, str], lake: Lake) -> None:
    from dictalake.extraction.work import WORK
    from dictalake.lake.manifests import Manifests

    config = make_config(lake, server[1])
    list(Manifests(lake).write("other", Run(config).work.blocks(2), WORK))
    counts = Run(config, others=["other"]).work.counts
    assert (counts.found, counts.claimed, counts.pending) == (3, 3, 0)
    assert Run(config, others=["gone"]).work.counts.pending == 3


def test_what_a_run_has_not_done_of_its_own_work_is_found(server: tuple[ModelServer, str], lake: Lake) -> None:
    from dictalake.extraction.work import WORK
    from dictalake.lake.manifests import Manifests

    config = make_config(lake, server[1])
    run = Run(config)
    list(Manifests(lake).write("mine", run.work.blocks(2), WORK))
    assert Run(config, left_of="mine").work.counts.pending == 3
    run.ask().commit()
    assert Run(config, left_of="mine").work.counts.pending == 0


def test_an_erased_recording_leaves_no_items_behind(server: tuple[ModelServer, str], lake: Lake) -> None:
    extract_all(make_config(lake, server[1]))
    forget(lake, Subjects(uris=("gs://archive/r1.wav",)))
    assert select(lake, "SELECT recording_id FROM finding_rows ORDER BY ALL") == [("r0",), ("r2",)]


@pytest.mark.parametrize("moment", ["before its commit", "after its commit"])
def test_what_is_erased_while_it_is_read_does_not_come_back(
    server: tuple[ModelServer, str], lake: Lake, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(make_config(lake, server[1])).ask()
    if moment == "before its commit":
        forget(lake, Subjects(uris=("gs://archive/r1.wav",)))
        # The erasure has deleted the file with its row; the others of that file are read by the next run.
        run.commit()
        assert extract_all(make_config(lake, server[1])) in (0, 2)
    else:
        # It has looked for erasures, and commits when the erasure has been over this table already.
        look = FindingTable._without_erased

        def erase_then(table: FindingTable, files: Any) -> Any:
            found = look(table, files)
            monkeypatch.setattr("dictalake.lake.gone_rows.delete_unused", lambda *_: 0)
            forget(lake, Subjects(uris=("gs://archive/r1.wav",)))
            return found

        monkeypatch.setattr(FindingTable, "_without_erased", erase_then)
        run.commit()
    assert select(lake, "SELECT recording_id FROM finding_rows ORDER BY ALL") == [("r0",), ("r2",)]


def test_what_is_erased_before_a_commit_is_never_visible(
    server: tuple[ModelServer, str], lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(make_config(lake, server[1])).ask()
    monkeypatch.setattr("dictalake.lake.gone_rows.delete_unused", lambda *_: 0)  # the run had not written its file yet
    monkeypatch.setattr(FindingTable, "sweep", lambda self: None)
    forget(lake, Subjects(uris=("gs://archive/r1.wav",)))
    assert run.commit() == 2
    assert select(lake, "SELECT recording_id FROM finding_rows ORDER BY ALL") == [("r0",), ("r2",)]


def test_a_server_that_ignores_the_schema_stores_what_is_quoted_and_valid_and_counts_the_rest(
    server: tuple[ModelServer, str], lake: Lake
) -> None:
    server[0].mode = "careless"
    assert ServerModel(make_config(lake, server[1]).extract).probe() == {"takes_schema": True, "is_constrained": False}
    assert extract_all(make_config(lake, server[1])) == 3
    assert select(lake, "SELECT count(*) FROM findings") == [(6,)]
    assert select(lake, "SELECT DISTINCT status, dropped['quote_not_found'], dropped['wrong_type'] FROM finding_rows") == [
        ("ok", 1, 2)
    ]


def test_a_server_that_refuses_whatever_is_asked_is_no_server_without_schemas(
    server: tuple[ModelServer, str], lake: Lake
) -> None:
    server[0].fail = lambda number: JSONResponse({"error": {"message": "no such model"}}, 400)
    with (
        closing(ServerModel(make_config(lake, server[1]).extract)) as model,
        pytest.raises(ConfigError, match="HTTP status 400"),
    ):
        model.probe()
    assert server[0].requests == 2


def test_a_server_that_refuses_schemas_is_asked_without(server: tuple[ModelServer, str], lake: Lake) -> None:
    server[0].mode = "refuses"
    config = make_config(lake, server[1])
    constraint = ServerModel(config.extract).probe()
    assert constraint == {"takes_schema": False, "is_constrained": False}
    assert Run(config, constraint).ask().commit() == 3
    assert select(lake, "SELECT DISTINCT status, provenance.constrained FROM finding_rows") == [("ok", False)]


def test_a_probe_finds_that_a_server_keeps_to_the_schema(server: tuple[ModelServer, str], lake: Lake) -> None:
    assert ServerModel(make_config(lake, server[1]).extract).probe() == {"takes_schema": True, "is_constrained": True}


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("prose", "answer_invalid"),
        ("half", "answer_invalid"),
        ("empty", "answer_invalid"),
        ("html", "answer_invalid"),
        ("cut_off", "answer_cut_off"),
        ("endless", "model_timeout"),
    ],
)
def test_an_answer_that_is_none_is_a_failed_row_with_its_reason(
    server: tuple[ModelServer, str], lake: Lake, mode: str, reason: str
) -> None:
    server[0].mode = mode
    assert extract_all(make_config(lake, server[1], max_tokens=64)) == 3
    rows = select(lake, "SELECT DISTINCT status, error.stage, error.reason, len(findings) FROM finding_rows")
    assert rows == [("failed", "extract", reason, 0)]


def test_failed_transcripts_are_tried_again_when_asked(server: tuple[ModelServer, str], lake: Lake) -> None:
    config = make_config(lake, server[1])
    server[0].mode = "prose"
    extract_all(config)
    server[0].mode = "good"
    assert (extract_all(config), extract_all(config, retry_failed=True), extract_all(config, retry_failed=True)) == (0, 3, 0)
    assert select(lake, "SELECT recording_id, attempt, status FROM extractions ORDER BY ALL") == [
        (f"r{n}", 1, "ok") for n in range(3)
    ]


def test_a_server_that_is_busy_is_asked_again(server: tuple[ModelServer, str], lake: Lake) -> None:
    busy = JSONResponse({"error": {"message": "slow down"}}, 429, {"retry-after-ms": "1"})
    server[0].fail = lambda number: busy if number <= 3 else None
    assert extract_all(make_config(lake, server[1], tries=4)) == 3
    assert select(lake, "SELECT DISTINCT status FROM finding_rows") == [("ok",)]
    assert server[0].requests == 6


def test_a_text_that_the_server_refuses_fails_alone(server: tuple[ModelServer, str], lake: Lake) -> None:
    long = JSONResponse({"error": {"message": "Effusion is too long"}}, 400)
    server[0].fail = lambda number: long if number == 2 else None
    extract_all(make_config(lake, server[1], concurrency=1))
    assert select(lake, "SELECT error.reason, error.detail FROM finding_rows WHERE status = 'failed'") == [
        ("model_refused", "the server answered with HTTP status 400")
    ]


def test_a_server_that_is_gone_ends_the_run_and_fails_no_transcript(lake: Lake) -> None:
    with pytest.raises(RunError, match=r"does not answer .*run the same command again to resume"):
        Run(make_config(lake, "http://127.0.0.1:9/v1", tries=1)).ask()


def test_a_server_that_only_chokes_on_the_texts_gets_failed_rows(server: tuple[ModelServer, str], lake: Lake) -> None:
    server[0].fail = lambda number: JSONResponse({"error": {"message": "x"}}, 500) if number <= 3 else complete("{}")
    extract_all(make_config(lake, server[1], tries=1))
    assert select(lake, "SELECT DISTINCT error.reason FROM finding_rows") == [("model_unreachable",)]


def test_requests_at_the_same_time_are_bounded(server: tuple[ModelServer, str], tmp_path: Path) -> None:
    lake = fill_lake(tmp_path / "many", 12)
    server[0].delay_s = 0.05
    extract_all(make_config(lake, server[1], concurrency=3))
    assert server[0].most_at_once == 3


def test_a_wrong_address_or_key_is_told_in_one_line(server: tuple[ModelServer, str], lake: Lake) -> None:
    with pytest.raises(ConfigError, match=r"HTTP status 404; check the address \(it ends with /v1 mostly\)"):
        ServerModel(make_config(lake, server[1] + "/v2", tries=1).extract).probe()
    with pytest.raises(ConfigError, match=r"extract\.server is missing"):
        ServerModel(make_config(lake, "null").extract)
    with pytest.raises(ConfigError, match="must be the http or https address"):
        make_config(lake, "localhost:8000")


@pytest.mark.parametrize("address", ["https://user:geheim@host/v1", "https://geheim@host/v1", "https://host/v1?key=geheim"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="put the key into OPENAI_API_KEY") as refused:
        make_config(Lake(uri=str(tmp_path)), address)
    assert "geheim" not in str(refused.value)


def test_what_goes_to_this_machine_passes_no_proxy(
    server: tuple[ModelServer, str], lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ServerModel(make_config(lake, server[1], tries=1).extract).probe()["takes_schema"]


@pytest.mark.parametrize(("is_cut", "reason"), [(True, "model_unreachable"), (False, "model_timeout")])
def test_an_answer_that_breaks_off_is_a_failure_of_its_transcript(lake: Lake, *, is_cut: bool, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as kept:

        def send_half() -> None:
            connection = kept.enter_context(listener.accept()[0])
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
            if is_cut:
                connection.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=send_half, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        model = ServerModel(make_config(lake, address, tries=1, request_s=0.2).extract)
        [reply] = model.answer([Request("r", [{"role": "user", "content": "x"}])])
        thread.join(10)
        model.close()
    assert isinstance(reply, TranscriptionError)
    assert reply.reason == reason


def test_a_long_transcript_is_read_in_parts(server: tuple[ModelServer, str], tmp_path: Path) -> None:
    text = " ".join(f"Segment {n} is clear." for n in range(100, 180))
    lake = add_dictations(tmp_path / "long", make_dictation("long", text))
    extract_all(make_config(lake, server[1], part_chars=600))
    [(parts, findings, distinct)] = select(
        lake, "SELECT any_value(e.parts), count(*), count(DISTINCT f.start_char) FROM findings AS f, extractions AS e"
    )
    assert parts == server[0].requests > 2
    assert findings == distinct == 80


def test_an_empty_transcript_is_done_without_a_question(server: tuple[ModelServer, str], tmp_path: Path) -> None:
    lake = add_dictations(tmp_path / "empty", make_dictation("silent", ""))
    assert (extract_all(make_config(lake, server[1])), server[0].requests) == (1, 0)
    assert select(lake, COUNTS) == [("silent", 0, "ok", 0)]
