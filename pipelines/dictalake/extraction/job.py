"""The Ray Data job of an extraction: blocks of the manifest in, reports of staged files out. Only this module knows Ray here.

    manifest ──► read · ask the model · check · write ──► reports, which the driver commits

With vLLM in Ray, its own processor stands in the middle, and what comes before and after it are stages of their own.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.extraction.provenance import ExtractProvenance
from dictalake.extraction.rows import ExtractStage
from dictalake.extraction.vllm_rows import PrepareRows, StoreRows, postprocess, preprocess
from dictalake.lake.manifests import BlockPlace, Manifests
from dictalake.workflow import cluster
from dictalake.workflow.crash_ledger import ClusterCrashLedger
from dictalake.workflow.flow import put_plainly
from dictalake.workflow.plan import Resources
from dictalake.workflow.quarantine import QuarantiningActor, with_display_name
from dictalake.workflow.report_reader import ReportReader
from dictalake.workflow.stages.base import redacting

import ray.data  # after cluster, which sets what Ray reads when it is imported  # isort: skip
import ray.exceptions  # isort: skip

_TICK_S, _PATIENCE_S = 1.0, 10.0
# Blocks that one actor has in hand. The requests of the next fill the places that those of the last leave at the server.
_BLOCKS_AT_ONCE = 3


class _ExtractActor:
    """Places of blocks in the manifest → reports of the files with their rows."""

    def __init__(self, config: Config, provenance: ExtractProvenance, ledger: ClusterCrashLedger) -> None:
        self._manifests, self._run_id = Manifests(config.lake), provenance.run_id
        self._stage = QuarantiningActor("extract", ledger, ExtractStage, config, provenance)

    def __call__(self, places: pa.Table) -> Iterator[pa.Table]:
        with redacting(self):
            blocks = [self._manifests.read_block(self._run_id, BlockPlace(**place)) for place in places.to_pylist()]
        for block in blocks:
            yield from self._stage(block)


@contextmanager
def running_job(config: Config) -> Iterator[ExtractJob]:
    """A cluster on which extractions run."""
    with cluster.running_cluster(config) as resources:
        _require_room(config, resources)
        job = ExtractJob(config, ClusterCrashLedger())
        try:
            yield job
        finally:
            job.stop()


class ExtractJob:
    """Runs flows one after the other on a cluster that is there."""

    def __init__(self, config: Config, ledger: ClusterCrashLedger) -> None:
        self._config, self._ledger = config, ledger
        self._readers: list[ReportReader] = []

    def run(self, places: pa.Table, provenance: ExtractProvenance) -> ReportReader:
        """The reports of the blocks at ``places``, as they come."""
        flow = _connect(places, self._config, provenance, self._ledger)
        reader = ReportReader(_read(flow), _TICK_S, cluster.make_interrupt(flow))
        self._readers.append(reader)
        return reader

    def stop(self) -> None:
        for reader in self._readers:
            reader.stop(_PATIENCE_S)


def _connect(places: pa.Table, config: Config, provenance: ExtractProvenance, ledger: ClusterCrashLedger) -> ray.data.Dataset:
    blocks = ray.data.from_blocks([places.slice(place, 1) for place in range(places.num_rows)])
    if config.extract.kind == "vllm":
        prepared = _in_one_actor(blocks, "Read", PrepareRows, config, provenance)
        return _in_one_actor(make_processor(config)(prepared), "Store", StoreRows, config, provenance)
    is_server = config.extract.kind == "openai"
    at_once = _BLOCKS_AT_ONCE if is_server else 1
    return blocks.map_batches(
        with_display_name("Extract", _ExtractActor),
        fn_constructor_args=(config, provenance, ledger),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=1 if is_server else config.extract.actors,
            max_concurrent_calls_per_actor=at_once,
            max_tasks_in_flight_per_actor=at_once + 1,
            enable_true_multi_threading=is_server,
        ),
        num_cpus=1,
        num_gpus=_count_gpus(config),
        memory=int(config.extract.memory_mb * 1e6),
    )


def _in_one_actor(data: ray.data.Dataset, name: str, stage: type[Any], *arguments: Any) -> ray.data.Dataset:
    return data.map_batches(
        with_display_name(name, stage),
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0.5,
    )


def make_processor(config: Config) -> Any:
    """Ray Data's own processor for vLLM. Raises ConfigError where it cannot be made."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    settings = config.extract
    options: dict[str, Any] = {} if settings.revision is None else {"revision": settings.revision}
    if settings.dtype != "auto":
        options["dtype"] = settings.dtype
    try:
        engine = vLLMEngineProcessorConfig(
            model_source=settings.model,
            batch_size=settings.batch,
            concurrency=settings.actors,
            engine_kwargs=options,
            should_continue_on_error=True,
        )
        most = settings.max_tokens
        return build_processor(engine, preprocess=lambda row: preprocess(row, most), postprocess=postprocess)
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(
            f"extract.kind = vllm: Ray's processor cannot be made ({type(error).__name__}); check extract.model = "
            f"{settings.model} and that vLLM is installed"
        ) from None


def _count_gpus(config: Config) -> float:
    """GPUs of one copy of the model."""
    if config.extract.kind != "transformers" or config.extract.device == "cpu":
        return 0
    return 1 if config.extract.device == "cuda" or ray.cluster_resources().get("GPU", 0) >= config.extract.actors else 0


def _require_room(config: Config, resources: Resources) -> None:
    """Raises ConfigError where the actors find no room: Ray would wait for ever."""
    actors = 1 if config.extract.kind == "openai" else config.extract.actors
    gpus = 1.0 if config.extract.device == "cuda" and config.extract.kind == "transformers" else 0.0
    if resources.cpus < actors or not resources.can_host(1.0, gpus, config.extract.memory_mb):
        raise ConfigError(
            f"the cluster has {resources.cpus:g} CPUs and {resources.gpus:g} GPUs; extract.actors = {actors} ask for a CPU and "
            f"{config.extract.memory_mb:g} MB (extract.memory_mb) each{', and a GPU' if gpus else ''}"
        )


def _read(flow: ray.data.Dataset) -> Iterator[pa.Table]:
    """Runs the flow. Raises RunError, ConfigError for what a worker met."""
    plain: Any
    try:
        yield from flow.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        return
    except ray.exceptions.RayError as error:
        plain = put_plainly(error)
    gc.collect()  # as in workflow/run.py: the error's frames hold the actors
    raise plain
