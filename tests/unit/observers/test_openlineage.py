"""What the lineage events of a run hold: OpenLineage's own classes read them back, and no recording or secret is in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from openlineage.client.serde import Serde

from dictalake.config.sections import Config
from dictalake.errors import InternalError, RunError
from dictalake.lake import table
from dictalake.lake.runs import RunLog, describe_config
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.observers.openlineage import make_run_uuid
from dictalake.observers.stats import RunStats
from dictalake.workflow.summary import start_record
from dictalake.workflow.worklist import Counts
from tests.lake_rows import make_rows
from tests.lineage_runs import FACETS, PROVENANCE, RUN_ID, add_work, make_config, read_end, read_events, rebuild, run


def test_a_run_tells_its_start_and_its_end_below_the_lake(tmp_path: Path) -> None:
    config, stats = make_config(tmp_path), RunStats()
    before = datetime.now(UTC)
    with run(config, stats):
        assert list(read_events(config)) == [f"{RUN_ID}.start.json"]
        add_work(stats)
    events = read_events(config)
    assert list(events) == [f"{RUN_ID}.complete.json", f"{RUN_ID}.start.json"]
    end, start = events.values()
    assert [event["eventType"] for event in (start, end)] == ["START", "COMPLETE"]
    assert before <= datetime.fromisoformat(start["eventTime"]) <= datetime.fromisoformat(end["eventTime"])
    assert start["run"]["runId"] == end["run"]["runId"] == make_run_uuid(RUN_ID)
    assert (end["job"]["namespace"], end["job"]["name"]) == ("dictalake", "nightly")
    assert end["producer"] == "urn:dictalake:0.1.0"
    ((read,), (written,)) = end["inputs"], end["outputs"]
    assert (read["namespace"], read["name"]) == ("gs://hospital", "dictations")
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 3
    assert (written["namespace"], written["name"]) == ("file", str(tmp_path / "lake" / "transcripts"))
    assert written["facets"]["version"]["datasetVersion"] == "8"
    counts = written["outputFacets"]["outputStatistics"]
    assert (counts["rowCount"], counts["size"], counts["fileCount"]) == (3, 1234, 2)
    assert start["inputs"][0]["inputFacets"] == start["outputs"][0]["outputFacets"] == {}


def test_a_run_that_wrote_nothing_says_so(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with run(config):
        pass
    (written,) = read_end(config, "complete")["outputs"]
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 0
    assert "version" not in written["facets"]


def test_the_clients_own_classes_take_every_event_back(tmp_path: Path) -> None:
    config, stats = make_config(tmp_path), RunStats()
    with pytest.raises(RunError), run(config, stats):  # noqa: PT012
        add_work(stats)
        raise RunError("the cluster is gone")
    names = set()
    for event in read_events(config).values():
        back = Serde.to_dict(rebuild(event))
        for one in back["outputs"]:  # built from plain keys: the nested fields of the schema stay as they are
            assert one["facets"]["schema"]["fields"]
        assert back == event
        for holder in (event["run"], event["job"], *event["inputs"], *event["outputs"]):
            names |= {name for key, facets in holder.items() if key.lower().endswith("facets") for name in facets}
    assert names == set(FACETS), "each facet was among them"


def test_the_run_names_what_decides_its_rows(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with run(config):
        pass
    facet = read_end(config, "complete")["run"]["facets"]["dictalake_provenance"]
    left_out = {"versions", "parts", "named", "spelling"}
    known = {name: value for name, value in asdict(PROVENANCE).items() if name not in left_out and value is not None}
    assert {name: value for name, value in facet.items() if not name.startswith("_")} == known | {
        "config_hash": describe_config(config)[1]
    }


def test_an_event_holds_no_recording_and_no_secret(tmp_path: Path) -> None:
    config, stats = make_config(tmp_path), RunStats()
    with pytest.raises(ValueError, match="adenocarcinoma"), run(config, stats):  # noqa: PT012
        add_work(stats)
        raise ValueError("gs://hospital/dictations/doe-jane.wav: adenocarcinoma")
    text = json.dumps(read_events(config))
    assert not [word for word in ("secret", "canary", "doe", "adenocarcinoma") if word in text]
    message = read_end(config, "fail")["run"]["facets"]["errorMessage"]
    assert message["message"].startswith("ValueError in test_openlineage.py:")
    assert message["programmingLanguage"] == "PYTHON"


def test_a_run_that_fails_says_why_in_our_words(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(RunError, match=r"^the cluster is gone$"), run(config):
        raise RunError("the cluster is gone")
    assert list(read_events(config)) == [f"{RUN_ID}.fail.json", f"{RUN_ID}.start.json"]
    assert read_end(config, "fail")["run"]["facets"]["errorMessage"]["message"] == "RunError: the cluster is gone"


def read_message(config: Config) -> str:
    return read_end(config, "fail")["run"]["facets"]["errorMessage"]["message"]


def test_the_words_of_a_storage_that_fails_stay_out(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    records = RunLog(config.lake)
    records.append(start_record(config, PROVENANCE, "nightly", Counts()))
    (data,) = DeltaTable(str(tmp_path / "lake" / "runs")).file_uris()
    Path(data).unlink()
    with pytest.raises(RunError) as failure, run(config):
        records.read()
    assert Path(data).name in str(failure.value), "the console has them"
    where = tmp_path / "lake" / "runs"
    assert read_message(config) == f"RunError: cannot read the run records at {where} (FileNotFoundError)"


class Refused(TranscriptTable):
    """A table whose commits are all refused, in the words of a storage."""

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError:
        return CommitFailedError("PUT https://storage.example/canary: 412")


def test_the_words_of_a_refused_commit_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "COMMIT_PATIENCE_S", 0.2)
    config = make_config(tmp_path)
    transcripts, staged = Refused(config.lake), write_staged(make_rows(["a"]), config.lake)
    with pytest.raises(RunError, match=r"the last with: PUT https://storage\.example/canary: 412"), run(config):
        transcripts.commit(staged)
    message = read_message(config)
    assert message.startswith(f"RunError: commits to {tmp_path / 'lake' / 'transcripts'} were refused ")
    assert message.endswith(" times in 0.2 s, the last with (CommitFailedError)")


def test_a_failure_of_one_recording_that_ends_a_run_does_not_name_it(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(InternalError, match="canary"), run(config):
        raise InternalError("canary", "KeyError in canary.py:3", "finish")
    assert read_message(config) == "InternalError: internal_error in finish"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_is_stopped_is_an_abort_with_what_it_wrote(tmp_path: Path, stop: BaseException) -> None:
    config, stats = make_config(tmp_path), RunStats()
    with pytest.raises(type(stop)), run(config, stats):  # noqa: PT012
        add_work(stats)
        raise stop
    assert list(read_events(config)) == [f"{RUN_ID}.abort.json", f"{RUN_ID}.start.json"]
    end = read_end(config, "abort")
    assert end["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert "errorMessage" not in end["run"]["facets"]
