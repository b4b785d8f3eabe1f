"""Runs that emit their lineage, without any transcribing, and the events that they leave."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openlineage.client import facet_v2
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from rich.console import Console

from dictalake.config.sections import Config
from dictalake.lake.table import CommitResult
from dictalake.logs import console_handler
from dictalake.observers.base import RunStart, observing
from dictalake.observers.openlineage import (
    LineageEmitter,
    ProvenanceRunFacet,
)
from dictalake.observers.stats import RunStats
from dictalake.transcript.provenance import Provenance

RUN_ID = "20260301T013000-abcdef"
PROVENANCE = Provenance(
    run_id=RUN_ID,
    fingerprint="0123456789ab",
    acoustic_hash="a" * 64,
    decoding_hash="d" * 64,
    formatting_hash="f" * 64,
    pipeline_version="0.1.0",
    git_commit="c" * 40,
    model_id="medasr-mini",
    model_revision=None,
    model_sha256="5" * 64,
    lm_sha256=None,
    decoder="greedy",
    versions={"ray": "2.60.0", "torch": "2.13.0"},
)


# The client's class of each facet that a run tells. They refuse a key that the standard does not have, and a missing one.
FACETS: dict[str, type[Any]] = {
    "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
    "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
    "dictalake_provenance": ProvenanceRunFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "storage": facet_v2.storage_dataset.StorageDatasetFacet,
    "datasetType": facet_v2.dataset_type_dataset.DatasetTypeDatasetFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
    "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def make_config(tmp_path: Path, **settings: Any) -> Config:
    archive = {"uri": "gs://hospital/dictations", "storage_options": {"token": "canary"}}
    return Config.model_validate({"archive": archive, "lake": {"uri": str(tmp_path / "lake")}, "lineage": settings})


@contextmanager
def run(
    config: Config, stats: RunStats | None = None, said: io.StringIO | None = None, provenance: Provenance = PROVENANCE
) -> Iterator[None]:
    console = Console(file=said or io.StringIO(), width=400)
    with console_handler(console), observing([LineageEmitter(stats or RunStats())]) as observers:
        observers.run_started(RunStart(config, provenance, "nightly"))
        yield


def read_events(config: Config) -> dict[str, dict[str, Any]]:
    """File name → event, of the lake."""
    files = sorted(Path(str(config.lake.uri), "lineage").iterdir())
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in files}


def read_end(config: Config, state: str) -> dict[str, Any]:
    return read_events(config)[f"{RUN_ID}.{state}.json"]


def add_work(stats: RunStats) -> None:
    """Three recordings, one of which failed, in two commits."""
    stats.add_report(
        {
            "recording_ids": ["secret-1", "secret-2", "secret-3"],
            "archive_ids": [None] * 3,
            "archive_rows": [None] * 3,
            "attempts": [0] * 3,
            "failures": [{"recording_id": "secret-3", "stage": "load", "reason": "not_audio"}],
            "uncovered": [{"recording_id": "secret-1", "seconds": 9.0}],
            "lost": [{"recording_id": "secret-1", "seconds": 3.0}],
            "audio_s": 20.0,
            "retries": 0,
            "stage_s": {"load": 0.5, "emit": 2.0, "decode": 0.25},
        }
    )
    stats.add_written(CommitResult(7, files=1, rows=2, already_there=0, size_bytes=1000))
    stats.add_written(CommitResult(8, files=1, rows=1, already_there=0, size_bytes=234))


def rebuild(event: dict[str, Any]) -> RunEvent:
    """The event by the client's own classes, out of its JSON. Raises where a key is missing, unknown or malformed."""

    def build(facets: dict[str, Any]) -> dict[str, Any]:
        return {name: build_facet(FACETS[name], dict(keys)) for name, keys in facets.items()}

    def build_facet(kind: type[Any], keys: dict[str, Any]) -> Any:
        url, producer = keys.pop("_schemaURL"), keys.pop("_producer")
        facet = kind(**keys, producer=producer)
        assert facet._schemaURL == url
        return facet

    run, job = event["run"], event["job"]
    return RunEvent(
        eventTime=event["eventTime"],
        eventType=RunState(event["eventType"]),
        producer=event["producer"],
        run=Run(run["runId"], build(run["facets"])),
        job=Job(job["namespace"], job["name"], build(job["facets"])),
        inputs=[
            InputDataset(one["namespace"], one["name"], facets=build(one["facets"]), inputFacets=build(one["inputFacets"]))
            for one in event["inputs"]
        ],
        outputs=[
            OutputDataset(one["namespace"], one["name"], facets=build(one["facets"]), outputFacets=build(one["outputFacets"]))
            for one in event["outputs"]
        ],
    )
