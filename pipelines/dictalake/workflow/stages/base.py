"""Where failures stop: at the row of the recording that met them, or at the block, without a word of rows or paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import pyarrow as pa

from dictalake.errors import ConfigError, DictalakeError, InternalError, RunError, TranscriptionError, name_place

Stage = TypeVar("Stage")


@contextmanager
def capture_row_error(recording_id: str, stage: str, row: dict[str, Any]) -> Iterator[None]:
    """The one place that catches everything: puts what went wrong into ``row['error']``."""
    try:
        yield
    except TranscriptionError as error:
        row["error"] = error_row(error)
    except ConfigError:  # every recording would meet it: the run stops and says what to set
        raise
    except Exception as error:  # a defect of ours must cost one row, not the run
        row["error"] = error_row(InternalError(recording_id, name_place(error), stage))


def error_row(error: TranscriptionError) -> dict[str, Any]:
    """The struct ``error`` of a row."""
    return {"stage": error.stage, "reason": error.reason, "detail": error.detail, "retryable": error.retryable}


@contextmanager
def redacting(stage: object) -> Iterator[None]:
    """What fails for a whole block leaves the worker as a DictalakeError that quotes no row and no path."""
    try:
        yield
    except DictalakeError:
        raise
    except Exception as error:  # its words may quote a row
        raise RunError(
            f"the stage {type(stage).__name__} failed on a whole block: {name_place(error)}; what is committed stays, "
            "the same command goes on"
        ) from None


def redact_errors(call: Callable[[Stage, pa.Table], pa.Table]) -> Callable[[Stage, pa.Table], pa.Table]:
    """``redacting`` around a stage's ``__call__``."""

    @wraps(call)
    def wrapper(stage: Stage, table: pa.Table) -> pa.Table:
        with redacting(stage):
            return call(stage, table)

    return wrapper
