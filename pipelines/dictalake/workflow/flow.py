"""The flow of a run: its stages, joined to one Ray Data pipeline that the driver or a runner executes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dictalake.config.sections import Lake
from dictalake.errors import DictalakeError, RunError
from dictalake.observers.progress import show_stage
from dictalake.workflow import cluster  # noqa: F401  # first: it sets what Ray reads when it is imported
from dictalake.workflow.plan import ResourcePlan, StagePlan
from dictalake.workflow.quarantine import Ledger, QuarantiningActor, QuarantiningStage, with_display_name
from dictalake.workflow.stages.load import FromManifest, Load

import ray.data  # isort: skip
import ray.exceptions  # isort: skip

_ADVICE_OF_RAY = "\nFailed to apply UDF"  # what Ray appends to the words of an error that a stage raised
MOST_TASKS = 4096  # of the first stage: each costs Ray some of the driver's time and memory before any work begins


@dataclass(frozen=True)
class ActorStage:
    """A stage that each of its actors opens once, as ``kind(*arguments)``."""

    kind: type[Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Flow:
    """The stages of a run and what they are opened with; it travels to runners. ``decode`` is None where the engine of ``emit``
    gives text itself.
    """

    lake: Lake
    run_id: str
    load: Load
    emit: ActorStage
    decode: ActorStage | None
    finish: Callable[[pa.Table], pa.Table]


def connect_places(flow: Flow, places: pa.Table, plan: ResourcePlan, ledger: Ledger) -> ray.data.Dataset:
    """The flow over the blocks at ``places``: one report a file comes out, in whatever order blocks finish."""
    step = -(-places.num_rows // MOST_TASKS)
    inputs = [places.slice(first, step) for first in range(0, places.num_rows, step)]
    source = with_display_name("Load", FromManifest)(*open_source(flow, ledger))
    return connect(flow, inputs, source, flow.finish, plan, ledger)


def open_source(flow: Flow, ledger: Ledger) -> tuple[Lake, str, Callable[[pa.Table], Iterator[pa.Table]]]:
    """What FromManifest is made of."""
    return flow.lake, flow.run_id, QuarantiningStage("load", flow.load, ledger)


def connect(
    flow: Flow,
    inputs: list[pa.Table],
    source: Callable[[pa.Table], Any],
    finish: Callable[[pa.Table], pa.Table],
    plan: ResourcePlan,
    ledger: Ledger,
) -> ray.data.Dataset:
    """``source`` over each of ``inputs``, then the stages of ``flow``, then ``finish``."""
    # Not from_arrow: it asks a worker how each block looks, and the first worker takes seconds to start.
    data = _in_tasks(ray.data.from_blocks(inputs), plan.load, source)
    data = _in_actors(data, plan.emit, ledger, flow.emit)
    if flow.decode is not None:
        data = _in_actors(data, plan.decode, ledger, flow.decode)
    return _in_tasks(data, plan.finish, with_display_name("Finish", QuarantiningStage)("finish", finish, ledger))


def read_reports(reports: ray.data.Dataset) -> Iterator[pa.Table]:
    """Runs the flow. Raises RunError, ConfigError for what a worker met."""
    try:
        yield from reports.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        return
    except ray.exceptions.RayError as error:
        plain = put_plainly(error)
    # Ray ends an actor when nobody holds it any more. Its own error does, by frames in a ring: whoever kept that error, as the
    # context of this one, would keep the actors, and their CPUs, from the next run of this process.
    gc.collect()
    raise plain


def _in_tasks(data: ray.data.Dataset, plan: StagePlan, stage: Callable[[pa.Table], Any]) -> ray.data.Dataset:
    """``stage`` over all blocks, in tasks that start whenever there is room."""
    return data.map_batches(
        stage,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=plan.workers),
        num_cpus=plan.cpus,
        memory=plan.memory_bytes,
    )


def _in_actors(data: ray.data.Dataset, plan: StagePlan, ledger: Ledger, stage: ActorStage) -> ray.data.Dataset:
    """``stage`` over all blocks, opened once in each of so many actors: they hold a model."""
    return data.map_batches(
        with_display_name(show_stage(plan.name).capitalize(), QuarantiningActor),
        fn_constructor_args=(plan.name, ledger, stage.kind, *stage.arguments),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=plan.workers),
        num_cpus=plan.cpus,
        memory=plan.memory_bytes,
        num_gpus=plan.gpus,
    )


def put_plainly(error: ray.exceptions.RayError) -> DictalakeError:
    """The error of a worker without Ray's wrapping: a ConfigError as itself, all else by its type and place.

    The words of an exception, and Ray's, may quote a path or a row: they stay out.
    """
    causes: list[BaseException] = [error]
    while (inner := getattr(causes[-1], "cause", None) or causes[-1].__cause__) is not None and inner not in causes:
        causes.append(inner)
    for cause in causes:
        if isinstance(cause, DictalakeError) and not isinstance(cause, ray.exceptions.RayError):
            return type(cause)(str(cause).partition(_ADVICE_OF_RAY)[0])
    names = " of ".join(dict.fromkeys(type(cause).__name__ for cause in reversed(causes)))
    return RunError(
        f"a worker failed and the run cannot go on ({names}); what is committed stays, run the same command again to resume"
    )
