"""`dictalake extract` as people run it, on Ray, with a server on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dictalake.cli.main import run_command
from dictalake.extraction.job import make_processor
from dictalake.workflow.cluster import running_cluster
from tests.extracted_lake import fill_lake, make_config, select
from tests.gemma_server import make_gemma
from tests.model_server import ModelServer, serving


def test_the_command_extracts_once_and_has_nothing_to_do_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, server = fill_lake(tmp_path / "lake", 12), ModelServer()
    with serving(server.app) as address:
        command = [str(lake.uri), "--extract.server", address, "--extract.block_rows", "2", "--ray.cpus", "2"]
        assert run_command("extract", [*command, "--format", "json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["ok"], shown["failed"], shown["medications"], shown["dropped"]) == (12, 0, 12, {})
        assert run_command("extract", command) == 0
        assert capsys.readouterr().out == "nothing to do: 12 of 12 transcripts are done\n"
    assert server.requests == 12 + 2, "a probe for each run"
    assert select(lake, "SELECT count(*), count(DISTINCT recording_id) FROM extractions") == [(12, 12)]
    assert select(lake, "SELECT state, ok, failed FROM runs WHERE job = 'extract' ORDER BY ok DESC") == [
        ("finished", 12, 0),
        ("finished", 0, 0),
    ]


def test_the_processor_of_vllm_is_made_without_a_gpu(tmp_path: Path) -> None:
    """As far as that goes: its engine, which needs one, was not run."""
    folder = make_gemma(tmp_path / "gemma", ["No effusion."])
    config = make_config(fill_lake(tmp_path / "lake", 1), "http://127.0.0.1:1/v1", kind="vllm", model=folder)
    with running_cluster(config):
        stages = make_processor(config).list_stage_names()
    assert stages == ["ChatTemplateStage", "TokenizeStage", "vLLMEngineStage", "DetokenizeStage"]
