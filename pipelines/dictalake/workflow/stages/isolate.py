"""Finds the poison recording in a batch that a model failed on: each recording is tried again alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dictalake.errors import TranscriptionError
from dictalake.workflow.quarantine import end_worker
from dictalake.workflow.stages.base import capture_row_error

Result = TypeVar("Result")


@dataclass(frozen=True)
class Attempt(Generic[Result]):
    """One recording of a batch: its id, its row, and a function that runs the model on it alone."""

    recording_id: str
    row: dict[str, Any]
    run: Callable[[], Result]


@dataclass(frozen=True)
class FailureIsolation:
    """``stage`` and ``failure`` go into the error of a row; ``model`` names what failed."""

    stage: str
    failure: type[TranscriptionError]
    model: str
    is_usable: Callable[[], bool]

    def run(
        self, run_batch: Callable[[], Sequence[Result]], attempts: Sequence[Attempt[Result]]
    ) -> tuple[list[Result | None], float]:
        """The model's output for each recording, or None if it fails on that one, whose row then has the error.

        Also returns the seconds that the single attempts took. Ends the process if the device no longer computes.
        """
        try:
            return list(run_batch()), 0.0
        except Exception:
            # One recording may be too much for the model, or all of them together.
            self._require_usable()
        started = time.perf_counter()
        return [self._run_alone(attempt) for attempt in attempts], time.perf_counter() - started

    def _run_alone(self, attempt: Attempt[Result]) -> Result | None:
        result: Result | None = None
        with capture_row_error(attempt.recording_id, self.stage, attempt.row):
            try:
                result = attempt.run()
            except (RuntimeError, MemoryError) as error:
                self._require_usable()
                detail = f"{self.model} failed on this recording: {type(error).__name__}"
                raise self.failure(attempt.recording_id, detail) from None
        return result

    def _require_usable(self) -> None:
        if not self.is_usable():
            end_worker()
