"""The numbers of a run, as Prometheus, the node exporter and a Pushgateway get them."""

from __future__ import annotations

import io
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from dictalake.cli.main import EXIT_BAD_CONFIG, EXIT_OK, EXIT_RUN_FAILED, EXIT_SOME_FAILED
from dictalake.config.load import load_config
from dictalake.config.observability import Metrics
from dictalake.config.sections import Config
from dictalake.errors import ConfigError, RunError
from dictalake.logs import console_handler
from dictalake.observers.base import RunStart, observing
from dictalake.observers.prometheus import GpuCollector, exit_status, serve_metrics
from dictalake.observers.stats import RunStats
from dictalake.transcript.provenance import Provenance
from dictalake.workflow.run import transcribe

PROVENANCE = Provenance(
    run_id="20260301T013000-abcdef",
    fingerprint="0123456789ab",
    acoustic_hash="a",
    decoding_hash="d",
    formatting_hash="f",
    pipeline_version="0.1.0",
    git_commit=None,
    model_id="m",
    model_revision=None,
    model_sha256="s",
    lm_sha256=None,
    decoder="greedy",
    versions={},
)
Samples = dict[tuple[str, ...], float]


def report(ok: int, *failed: str) -> dict[str, Any]:
    """A row of stages.REPORT of one block: 10 s of audio in each recording that is ok."""
    ids = [f"secret-{number}" for number in range(ok + len(failed))]
    return {
        "recording_ids": ids,
        "archive_ids": [None] * len(ids),
        "archive_rows": [None] * len(ids),
        "attempts": [0] * len(ids),
        "failures": [{"recording_id": i, "stage": "load", "reason": r} for i, r in zip(ids, failed, strict=False)],
        "uncovered": [{"recording_id": ids[0], "seconds": 9.0}],
        "lost": [{"recording_id": ids[0], "seconds": 3.0}],
        "audio_s": 10.0 * ok,
        "retries": 1,
        "stage_s": {"load": 0.5, "emit": 2.0, "decode": 0.25},
    }


def read(text: str) -> Samples:
    """(sample name, values of its labels in order of their names) → value."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run(stats: RunStats, said: io.StringIO | None = None, command: str = "nightly", **settings: Any) -> Iterator[None]:
    with console_handler(Console(file=said or io.StringIO(), width=400)):
        publisher = serve_metrics(Metrics.model_validate(settings), command, stats)
        with observing([publisher]) as observers:
            observers.run_started(RunStart(Config(), PROVENANCE, command))
            yield


def test_a_scrape_tells_what_the_run_has_done_up_to_now() -> None:
    port, stats = free_port(), RunStats(wanted=10, claimed=4)
    with run(stats, port=port, command="backfill"):
        before = read(scrape(port))
        stats.add_report(report(3, "not_audio", "fetch_failed"))
        stats.add_report(report(1, "not_audio"))
        stats.add_commit(5, storage_retries=2, took_s=0.75)
        after = read(scrape(port))
    assert before[("dictalake_recordings_total", "backfill", "ok")] == 0
    assert ("dictalake_last_commit_timestamp_seconds", "backfill") not in before, "absent, not 0"
    expected = {
        ("dictalake_run_info", "backfill", "0123456789ab", "20260301T013000-abcdef", "0.1.0"): 1,
        ("dictalake_run_active", "backfill"): 1,
        ("dictalake_recordings_total", "backfill", "ok"): 4,
        ("dictalake_recordings_total", "backfill", "failed"): 3,
        ("dictalake_recordings_failed_total", "backfill", "not_audio", "load"): 2,
        ("dictalake_recordings_failed_total", "backfill", "fetch_failed", "load"): 1,
        ("dictalake_audio_seconds_total", "backfill"): 40,
        ("dictalake_recordings_incomplete_total", "backfill"): 1,  # both reports name the same one
        ("dictalake_lost_seconds_total", "backfill"): 3,
        ("dictalake_storage_retries_total", "backfill"): 4,
        ("dictalake_recordings_wanted", "backfill"): 10,
        ("dictalake_recordings_pending", "backfill"): 3,
        ("dictalake_recordings_uncommitted", "backfill"): 2,
        ("dictalake_recordings_claimed", "backfill"): 4,
        ("dictalake_stage_seconds_total", "backfill", "load"): 1,
        ("dictalake_stage_seconds_total", "backfill", "emit"): 4,
        ("dictalake_stage_seconds_total", "backfill", "decode"): 0.5,
        ("dictalake_commit_seconds_count", "backfill"): 1,
        ("dictalake_commit_seconds_sum", "backfill"): 0.75,
    }
    assert {key: after.get(key) for key in expected} == expected
    assert time.time() - after[("dictalake_last_commit_timestamp_seconds", "backfill")] < 60
    assert ("dictalake_run_exit_status", "backfill") not in after
    assert after[("process_resident_memory_bytes",)] > 1e6


def test_labels_are_few_and_hold_no_recording() -> None:
    port, stats = free_port(), RunStats(wanted=10)
    with run(stats, port=port):
        stats.add_report(report(3, "not_audio"))
        text = scrape(port)
    assert "secret" not in text
    names = {name for family in text_string_to_metric_families(text) for sample in family.samples for name in sample.labels}
    assert names == {"command", "status", "stage", "reason", "run_id", "fingerprint", "version"} | (
        {"gpu"} if GpuCollector()._handles else set()
    )


def test_the_port_is_free_again_after_the_run() -> None:
    port = free_port()
    for _ in range(2):
        with run(RunStats(), port=port):
            assert "dictalake_run_info" in scrape(port)
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_a_port_that_is_taken_costs_a_warning_and_not_the_run() -> None:
    said = io.StringIO()
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        with run(RunStats(), said, port=port):
            pass
    assert said.getvalue() == f"metrics.port = {port}: OSError; the run continues, its metrics were not sent\n"


@pytest.mark.parametrize("off", [{}, {"port": 0}, {"port": None}])
def test_without_the_keys_nothing_listens(off: dict[str, Any]) -> None:
    threads = threading.active_count()
    with run(RunStats(), **off):
        assert threading.active_count() == threads


def test_the_textfile_is_replaced_in_one_step_and_tells_how_the_run_ended(tmp_path: Path) -> None:
    path = tmp_path / "dictalake.prom"
    path.write_text("half a line of another pro", encoding="utf-8")
    stats = RunStats(wanted=2)
    with run(stats, textfile=str(path)):
        stats.add_report(report(1, "not_audio"))
        assert path.read_text(encoding="utf-8") == "half a line of another pro"
        inode = path.stat().st_ino
    assert path.stat().st_ino != inode, "another file was put in its place"
    assert [file.name for file in tmp_path.iterdir()] == ["dictalake.prom"]
    samples = read(path.read_text(encoding="utf-8"))
    assert samples[("dictalake_run_exit_status", "nightly")] == EXIT_SOME_FAILED
    assert samples[("dictalake_run_active", "nightly")] == 0
    ended = samples[("dictalake_run_end_time_seconds", "nightly")]
    assert samples[("dictalake_run_start_time_seconds", "nightly")] <= ended <= time.time()
    assert samples[("dictalake_last_success_timestamp_seconds", "nightly")] == pytest.approx(ended, abs=5)
    assert not {name for name, *_ in samples if not name.startswith("dictalake_")}, "the node exporter has those of its own"


def test_a_run_that_fails_still_tells_when_the_last_one_succeeded(tmp_path: Path) -> None:
    path = tmp_path / "dictalake.prom"
    with run(RunStats(), textfile=str(path)):
        pass
    key = ("dictalake_last_success_timestamp_seconds", "nightly")
    succeeded = read(path.read_text(encoding="utf-8"))[key]
    with pytest.raises(RunError), run(RunStats(), textfile=str(path)):
        raise RunError("the cluster is gone")
    samples = read(path.read_text(encoding="utf-8"))
    assert samples[("dictalake_run_exit_status", "nightly")] == EXIT_RUN_FAILED
    assert samples[key] == succeeded


def test_commands_that_share_a_textfile_leave_each_other_their_numbers(tmp_path: Path) -> None:
    path, good = tmp_path / "dictalake.prom", RunStats(wanted=1)
    with run(good, textfile=str(path)):
        good.add_report(report(1))
    nightly = {key: value for key, value in read(path.read_text(encoding="utf-8")).items() if "nightly" in key}
    with pytest.raises(RunError), run(RunStats(wanted=7), command="backfill", textfile=str(path)):
        raise RunError("the cluster is gone")
    text = path.read_text(encoding="utf-8")
    both = read(text)
    assert {key: value for key, value in both.items() if "nightly" in key} == nightly
    assert len(nightly) > 10
    assert both[("dictalake_recordings_wanted", "backfill")] == 7
    assert both[("dictalake_run_exit_status", "backfill")] == EXIT_RUN_FAILED
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types)), "the node exporter refuses a file that names a metric twice"
    with run(RunStats(), textfile=str(path)):
        pass
    again = read(path.read_text(encoding="utf-8"))
    assert again[("dictalake_recordings_total", "nightly", "ok")] == 0, "of its own earlier run nothing stays"
    assert again[("dictalake_recordings_wanted", "backfill")] == 7


def test_a_run_that_fails_before_it_has_a_name_is_told_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "dictalake.prom"
    config = Config.model_validate(
        {
            "acoustic": {"model": str(tmp_path / "none")},
            "lake": {"uri": str(tmp_path / "lake")},
            "metrics": {"textfile": str(path)},
        }
    )
    with pytest.raises(ConfigError):
        transcribe(config, job="nightly")
    samples = read(path.read_text(encoding="utf-8"))
    assert samples[("dictalake_run_exit_status", "nightly")] == EXIT_BAD_CONFIG
    assert not {key for key in samples if key[0] == "dictalake_run_info"}


@pytest.mark.parametrize("text", ["dictalake_last_success_timestamp_seconds 5\n", 'other{command="a", ="b"} 1\n', "\x00\n"])
def test_a_textfile_of_somebody_else_does_not_cost_the_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dictalake.prom"
    path.write_text(text, encoding="utf-8")
    with run(RunStats(), textfile=str(path)):
        pass
    assert read(path.read_text(encoding="utf-8"))[("dictalake_run_exit_status", "nightly")] == EXIT_OK


def test_before_the_first_success_there_is_no_time_of_it(tmp_path: Path) -> None:
    path = tmp_path / "dictalake.prom"
    with pytest.raises(RunError), run(RunStats(), textfile=str(path)):
        raise RunError("the cluster is gone")
    assert ("dictalake_last_success_timestamp_seconds", "nightly") not in read(path.read_text(encoding="utf-8"))


def test_a_textfile_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    folder, said = tmp_path / "collector", io.StringIO()
    folder.mkdir()
    with run(RunStats(), said, textfile=str(folder / "d.prom")):
        folder.rmdir()
    assert "FileNotFoundError; the run continues" in said.getvalue()


@contextmanager
def gateway(status: int = 202) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A server in place of a Pushgateway: its URL, and the requests that it got (method, path, body)."""
    told: list[tuple[str, str, str]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            told.append((self.command, self.path, body))
            self.send_response(status)
            self.end_headers()

        do_POST = do_PUT  # noqa: N815

        def log_message(self, format: str, *arguments: Any) -> None:
            """Silent."""

    server = HTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_pushgateway_gets_the_run_and_apart_from_it_the_time_of_the_success() -> None:
    stats = RunStats(wanted=1)
    with gateway() as (url, told), run(stats, pushgateway=url):
        stats.add_report(report(1))
        assert told == [], "only at the end"
    assert [(method, path) for method, path, _ in told] == [
        ("PUT", "/metrics/job/dictalake/command/nightly"),  # PUT: all of the run before goes
        ("PUT", "/metrics/job/dictalake_success/command/nightly"),
    ]
    of_run, of_success = read(told[0][2]), read(told[1][2])
    assert of_run[("dictalake_run_exit_status", "nightly")] == EXIT_OK
    assert of_run[("dictalake_recordings_total", "nightly", "ok")] == 1
    assert list(of_success) == [("dictalake_last_success_timestamp_seconds", "nightly")]


def test_a_run_that_fails_leaves_the_time_of_the_last_success_at_the_pushgateway() -> None:
    with gateway() as (url, told), pytest.raises(KeyboardInterrupt), run(RunStats(), pushgateway=url):
        raise KeyboardInterrupt
    [(_, path, body)] = told
    assert path == "/metrics/job/dictalake/command/nightly"
    assert read(body)[("dictalake_run_exit_status", "nightly")] == 130
    assert "last_success" not in body


def test_a_pushgateway_that_refuses_or_is_gone_costs_a_warning() -> None:
    said = io.StringIO()
    with gateway(status=503) as (url, _), run(RunStats(), said, pushgateway=url):
        pass
    with run(RunStats(), said, pushgateway=f"http://127.0.0.1:{free_port()}"):
        pass
    first, second = said.getvalue().splitlines()
    assert first == f"metrics.pushgateway = {url}: HTTPError; the run continues, its metrics were not sent"
    assert second.endswith("URLError; the run continues, its metrics were not sent")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), EXIT_BAD_CONFIG),
        (RunError("x"), EXIT_RUN_FAILED),
        (ValueError("x"), EXIT_RUN_FAILED),
        (KeyboardInterrupt(), 130),
        (SystemExit(143), 143),
        (SystemExit(None), EXIT_OK),
        (SystemExit("why"), 1),
    ],
)
def test_the_exit_status_is_the_exit_code_that_the_command_has(error: BaseException, code: int) -> None:
    assert exit_status(error) == code


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("metrics.port", "70000", "metrics.port = 70000 from the command line"),
        ("metrics.textfile", "/etc/dictalake.txt", "must end in .prom"),
        ("metrics.textfile", "/no/such/folder/d.prom", "is in a folder that does not exist"),
        ("metrics.pushgateway", "pushgateway:9091", "must be a URL such as http://pushgateway:9091"),
        ("metrics.pushgateway", "http://me:word@push:9091", "must hold no user name, password or query"),
        ("logs.format", "xml", "logs.format = 'xml' from the command line"),
        ("logs.file", "/no/such/folder/log", "is in a folder that does not exist"),
    ],
)
def test_a_bad_value_is_refused_before_a_run(key: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        load_config(None, [(key, value)], {})
