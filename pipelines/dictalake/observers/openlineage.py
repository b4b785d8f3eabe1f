"""Sends OpenLineage events (https://openlineage.io) to data catalogues: what a run read and wrote, and what made its rows.

A run sends START, and at its end COMPLETE, FAIL, or ABORT if it was stopped. Each event is one JSON object. It becomes a new
file below ``lineage/`` of the lake, since object stores cannot append and no two runs write the same file, or a POST to a
server.

    <lake.uri>/lineage/20260301T013000-abcdef.start.json
    <lake.uri>/lineage/20260301T013000-abcdef.complete.json

Events name, count and describe the archive (as ``archive.uri`` and ``archive.manifest`` give it) and the table. They never
hold a recording, its URI, or text. OpenLineage's own client makes events, names and HTTP requests. Its settings are not used:
they would add the environment of the run to the events.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

import attr
import pyarrow as pa
from openlineage.client import facet_v2
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState, set_producer
from openlineage.client.generated import parent_run
from openlineage.client.naming.dataset import GCS, S3, DatasetNaming, LocalFileSystem, RemoteFileSystem
from openlineage.client.serde import Serde
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider
from openlineage.client.uuid import generate_static_uuid
from requests import HTTPError

from dictalake import logs
from dictalake.config.locations import EMBEDDED, resolve
from dictalake.config.observability import Lineage
from dictalake.config.sections import Archive, Config
from dictalake.errors import DictalakeError, TranscriptionError, name_place
from dictalake.lake.places import LINEAGE_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.runs import describe_config
from dictalake.lake.schema import DOC, TRANSCRIPTS
from dictalake.lake.storage import open_storage
from dictalake.observers.base import Observer, RunEnd, RunStart, State
from dictalake.observers.stats import RunStats
from dictalake.transcript.provenance import Provenance

API_KEY, PARENT, ROOT = "OPENLINEAGE_API_KEY", "OPENLINEAGE_PARENT_ID", "OPENLINEAGE_ROOT_PARENT_ID"  # the client's own names
FACET = "dictalake_provenance"
_PATIENCE_S = 5.0  # for one event
_STATES: dict[State, RunState] = {"finished": RunState.COMPLETE, "failed": RunState.FAIL, "stopped": RunState.ABORT}


@attr.define(kw_only=True)
class ProvenanceRunFacet(facet_v2.RunFacet):
    """The values that decide the rows of a run, as in the lake's ``provenance`` and in its run record."""

    run_id: str
    fingerprint: str
    acoustic_hash: str
    decoding_hash: str
    formatting_hash: str
    model_id: str
    model_revision: str | None = None
    model_sha256: str
    lm_sha256: str | None = None
    decoder: str
    config_hash: str
    pipeline_version: str
    git_commit: str | None = None


@dataclass(frozen=True)
class Teller:
    """Makes the events of one run. ``stats`` are read when an event is made."""

    config: Config
    provenance: Provenance
    job: str
    stats: RunStats

    def make_event(self, state: RunState, error: BaseException | None = None) -> RunEvent:
        """An event with the present time, and ``describe_error`` of ``error``."""
        set_producer(f"urn:dictalake:{self.provenance.pipeline_version}")
        is_end = state is not RunState.START
        job_type = facet_v2.job_type_job.JobTypeJobFacet(processingType="BATCH", integration="RAY", jobType="JOB")
        return RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            eventType=state,
            run=Run(runId=make_run_uuid(self.provenance.run_id), facets=self._describe_run(error)),
            job=Job(self.config.lineage.namespace, self.job, {"jobType": job_type}),
            inputs=[self._describe_input(location, is_end) for location in list_inputs(self.config.archive)],
            outputs=[self._describe_output(is_end)],
        )

    def _describe_run(self, error: BaseException | None) -> dict[str, facet_v2.RunFacet]:
        p = self.provenance
        names = [field.name for field in attr.fields(ProvenanceRunFacet) if hasattr(p, field.name)]
        facets: dict[str, facet_v2.RunFacet] = {
            "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet(
                version=p.versions["ray"], name="ray", openlineageAdapterVersion=p.pipeline_version
            ),
            FACET: ProvenanceRunFacet(
                **{name: getattr(p, name) for name in names}, config_hash=describe_config(self.config)[1]
            ),
        }
        if parent := read_parent():
            facets["parent"] = parent
        if error is not None:
            facets["errorMessage"] = facet_v2.error_message_run.ErrorMessageRunFacet(describe_error(error), "PYTHON")
        return facets

    def _describe_input(self, location: str, is_end: bool) -> InputDataset:
        name = name_dataset(location)
        read = facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=self.stats.done)
        return InputDataset(name.get_namespace(), name.get_name(), inputFacets={"inputStatistics": read} if is_end else {})

    def _describe_output(self, is_end: bool) -> OutputDataset:
        storage = open_storage(self.config.lake, TRANSCRIPTS_FOLDER)
        name, written = name_dataset(storage.uri), self.stats.written
        facets: dict[str, facet_v2.DatasetFacet] = {
            "schema": facet_v2.schema_dataset.SchemaDatasetFacet(fields=describe_fields(TRANSCRIPTS)),
            "storage": facet_v2.storage_dataset.StorageDatasetFacet("delta", "parquet"),
            "datasetType": facet_v2.dataset_type_dataset.DatasetTypeDatasetFacet("TABLE"),
        }
        if written is not None:
            facets["version"] = facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet(str(written.version))
        counts = (0, 0, 0) if written is None else (written.rows, written.size_bytes, written.files)
        statistics = facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(*counts)
        return OutputDataset(
            name.get_namespace(),
            name.get_name(),
            facets=facets,
            outputFacets={"outputStatistics": statistics} if is_end else {},
        )


class LineageEmitter(Observer):
    """Sends START when the run has a name, and another event when it is over.

    Lineage never fails a run: if an event cannot be sent within a few seconds, it logs a warning.
    """

    name = "lineage"

    def __init__(self, stats: RunStats) -> None:
        self._stats = stats
        self._teller: Teller | None = None

    def run_started(self, start: RunStart) -> None:
        if start.config.lineage.kind != "off":
            self._teller = Teller(start.config, start.provenance, start.job, self._stats)
            emit_lineage(self._teller, RunState.START)

    def run_ended(self, end: RunEnd) -> None:
        if self._teller is not None:
            error = end.error if end.state == "failed" else None
            emit_lineage(self._teller, _STATES[end.state], error)


def emit_lineage(teller: Teller, state: RunState, error: BaseException | None = None) -> None:
    """Sends an event from a separate thread, so that no name server, slow answer or retry of a storage delays a run longer."""
    lineage = teller.config.lineage
    failures: list[BaseException] = []

    def send() -> None:
        try:
            _send(teller, teller.make_event(state, error))
        except Exception as failure:  # a boundary: the run would not see an error of the thread
            failures.append(failure)

    thread = threading.Thread(target=send, name="lineage", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if thread.is_alive() or failures:
        what = f"no answer within {_PATIENCE_S:g} s" if not failures else _describe_failure(failures[0])
        where = "lineage.kind = file" if lineage.kind == "file" else f"lineage.server = {lineage.server}"
        line = f"{where}: {what}; the run continues, its event {state.value} was not sent"
        logs.log_event("lineage", line, level=logs.WARNING)


def _send(teller: Teller, event: RunEvent) -> None:
    if teller.config.lineage.kind == "http":
        answer = open_transport(teller.config.lineage).emit(event)
        if not 200 <= answer.status_code < 300:  # the client accepts a redirect without a target
            raise HTTPError(response=answer)
        return
    assert event.eventType is not None
    name = f"{teller.provenance.run_id}.{event.eventType.value.lower()}.json"
    open_storage(teller.config.lake, LINEAGE_FOLDER).write_bytes(name, f"{Serde.to_json(event)}\n".encode())


def _describe_failure(error: BaseException) -> str:
    """The error's type, or the status of an answer: the message of a storage or a server may quote anything."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return type(error).__name__ if status is None else f"HTTP {status}"


def describe_error(error: BaseException) -> str:
    """What ended a run, in our own words if they quote nothing, else by type and place.

    Our own error may quote its cause (a request's URL, a path) after its first ``: ``; the rest is left out.
    """
    kind = type(error).__name__
    match error:
        case TranscriptionError():  # its message holds the recording's id
            return f"{kind}: {error.reason} in {error.stage}"
        case DictalakeError(__cause__=None):
            return f"{kind}: {error}"
        case DictalakeError():
            return f"{kind}: {str(error).partition(': ')[0]} ({type(error.__cause__).__name__})"
        case _:
            return name_place(error)


def open_transport(lineage: Lineage) -> HttpTransport:
    """The client's transport with one try of a few seconds, and with the key of the environment if there is one.

    It follows no redirect: the POST would become a GET, and the page behind it, often a login, would look like success.
    """
    key = os.environ.get(API_KEY)
    auth = ApiKeyTokenProvider({"api_key": key}) if key else TokenProvider({})
    # The slash: a server below a path keeps it.
    url = f"{str(lineage.server).rstrip('/')}/"
    transport = HttpTransport(HttpConfig(url, timeout=_PATIENCE_S, auth=auth, retry={"total": 0}))
    transport.session.max_redirects = 0
    return transport


def make_run_uuid(run_id: str) -> str:
    """OpenLineage's id of the run ``run_id``: a UUID that is always the same."""
    at = datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return str(generate_static_uuid(at, run_id.encode()))


def list_inputs(archive: Archive) -> list[str]:
    """Where a run finds the recordings: a folder, or a manifest or an inventory with the folder of its recordings."""
    listed = archive.manifest or archive.inventory
    is_demo = listed is not None and archive.uri is not None and archive.uri.startswith(EMBEDDED)
    return [location for location in (listed, None if is_demo else archive.uri) if location is not None]


def name_dataset(location: str) -> DatasetNaming:
    """The name of a path or URI by OpenLineage's naming: ``gs://bucket`` and the key, ``file`` and the path."""
    location = resolve(location)
    scheme, separator, rest = location.partition("://")
    if not separator:
        return LocalFileSystem(str(Path(location).expanduser().absolute()))
    scheme = scheme.lower()
    if scheme in ("file", "http", "https"):
        parts = urlsplit(location)
        place, path = parts.netloc, unquote(parts.path)
    else:  # the key of an object may hold ?, # and %
        place, _, path = rest.partition("/")
    if scheme == "file" and not place:
        return LocalFileSystem(str(Path(path).absolute()))
    if not scheme.startswith("abfs"):  # there the container is before the @; elsewhere it is a name and password
        place = place.rpartition("@")[2]
    match scheme:
        case "file":
            return RemoteFileSystem(place, path)
        case "gs" | "gcs":
            return GCS(place, path.strip("/") or "/")
        case "s3" | "s3a":
            return S3(place, path.strip("/") or "/")
        case _:
            return _OtherStorage(f"{scheme}://{place}", path.strip("/") or "/")


@dataclass(frozen=True)
class _OtherStorage:
    """A place that the naming has no rule for; it is named like the others."""

    namespace: str
    name: str

    def get_namespace(self) -> str:
        return self.namespace

    def get_name(self) -> str:
        return self.name


def describe_fields(fields: Iterable[pa.Field]) -> list[facet_v2.schema_dataset.SchemaDatasetFacetFields]:
    """Columns with their types and documentation, nested as in the schema facet: a list has ``_element``, a map has ``key``
    and ``value``."""
    return [_describe_field(field, position) for position, field in enumerate(fields, 1)]


def _describe_field(field: pa.Field, position: int) -> facet_v2.schema_dataset.SchemaDatasetFacetFields:
    kind, name = field.type, str(field.type)
    below: list[pa.Field] = []
    if pa.types.is_list(kind):
        name, below = "array", [kind.value_field.with_name("_element")]
    elif pa.types.is_struct(kind):
        name, below = "struct", [kind.field(index) for index in range(kind.num_fields)]
    elif pa.types.is_map(kind):
        name, below = "map", [pa.field("key", kind.key_type), pa.field("value", kind.item_type)]
    doc = (field.metadata or {}).get(DOC.encode(), b"").decode() or None
    return facet_v2.schema_dataset.SchemaDatasetFacetFields(field.name, name, doc, position, describe_fields(below) or None)


def read_parent() -> parent_run.ParentRunFacet | None:
    """The run that started this one, from ``OPENLINEAGE_PARENT_ID``: ``namespace/job/run UUID``, as schedulers set it.

    None if it is not set or has another form. ``OPENLINEAGE_ROOT_PARENT_ID`` names the topmost run in the same form.
    """
    if (parent := _split_id(PARENT)) is None:
        return None
    namespace, name, run_id = parent
    root = _split_id(ROOT)
    topmost = None if root is None else parent_run.Root(parent_run.RootRun(root[2]), parent_run.RootJob(root[0], root[1]))
    return parent_run.ParentRunFacet(parent_run.Run(run_id), parent_run.Job(namespace, name), topmost)


def _split_id(variable: str) -> tuple[str, str, str] | None:
    """Namespace, job and UUID of a run."""
    job, _, run_id = os.environ.get(variable, "").rpartition("/")
    namespace, _, name = job.rpartition("/")  # a namespace may hold slashes
    try:
        UUID(run_id)
    except ValueError:
        return None
    return (namespace, name, run_id) if namespace and name else None
