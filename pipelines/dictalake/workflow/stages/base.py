"""What all stages share: errors of one row or one block, which quote no rows or paths, and resources that open once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Generic, TypeVar

import pyarrow as pa

from dictalake.errors import ConfigError, DictalakeError, InternalError, RunError, TranscriptionError, name_place

Stage = TypeVar("Stage")
Resource = TypeVar("Resource")


class DeferredResource(Generic[Resource]):
    """A model, an engine or a decoder that an actor opens once. A ConfigError waits for the first block, because Ray passes on
    only the traceback's text when a constructor raises.
    """

    def __init__(self, open_it: Callable[[], Resource]) -> None:
        self._resource: Resource | None = None
        self._refusal: ConfigError | None = None
        try:
            self._resource = open_it()
        except ConfigError as error:
            self._refusal = error

    def get(self) -> Resource:
        if self._resource is None:
            assert self._refusal is not None
            raise self._refusal
        return self._resource


@contextmanager
def capture_row_error(recording_id: str, stage: str, row: dict[str, Any]) -> Iterator[None]:
    """Puts any error into ``row['error']``. This is the only place in a stage that catches everything."""
    try:
        yield
    except TranscriptionError as error:
        row["error"] = error_row(error)
    except ConfigError:  # it would fail every recording, so the run stops and says what to set
        raise
    except Exception as error:  # a defect of ours must cost one row, not the run
        row["error"] = error_row(InternalError(recording_id, name_place(error), stage))


def error_row(error: TranscriptionError) -> dict[str, Any]:
    """The struct ``error`` of a row."""
    return {"stage": error.stage, "reason": error.reason, "detail": error.detail, "retryable": error.retryable}


@contextmanager
def redacting(stage: object) -> Iterator[None]:
    """Turns the failure of a whole block into a DictalakeError that quotes no row and no path."""
    try:
        yield
    except DictalakeError:
        raise
    except Exception as error:  # its message may quote a row
        raise RunError(
            f"the stage {type(stage).__name__} failed on a whole block: {name_place(error)}; what is committed stays, "
            "run the same command again to resume"
        ) from None


def redact_errors(call: Callable[[Stage, pa.Table], pa.Table]) -> Callable[[Stage, pa.Table], pa.Table]:
    """Puts ``redacting`` around a stage's ``__call__``."""

    @wraps(call)
    def wrapper(stage: Stage, table: pa.Table) -> pa.Table:
        with redacting(stage):
            return call(stage, table)

    return wrapper
