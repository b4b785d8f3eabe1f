"""A batch that fails is tried again recording by recording; a device that no longer computes ends the process."""

from __future__ import annotations

from typing import Any

import pytest

from dictalake.errors import EmitFailed
from dictalake.workflow.stages import isolate
from dictalake.workflow.stages.isolate import Attempt, FailureIsolation


def fail() -> Any:
    raise RuntimeError("words of a row")


def make_attempts(rows: list[dict[str, Any]]) -> list[Attempt[str]]:
    return [Attempt("0", rows[0], lambda: "first"), Attempt("1", rows[1], fail), Attempt("2", rows[2], lambda: "third")]


def test_a_batch_that_works_is_not_tried_again() -> None:
    isolation = FailureIsolation("emit", EmitFailed, "the model", lambda: True)
    assert isolation.run(lambda: ["a", "b"], [Attempt(name, {}, fail) for name in "ab"]) == (["a", "b"], 0.0)


def test_only_the_poison_recording_of_a_batch_fails_and_its_error_quotes_nothing() -> None:
    rows: list[dict[str, Any]] = [{}, {}, {}]
    results, alone_s = FailureIsolation("emit", EmitFailed, "the model", lambda: True).run(fail, make_attempts(rows))
    assert results == ["first", None, "third"]
    assert alone_s > 0
    assert rows[0] == rows[2] == {}
    assert rows[1]["error"]["detail"] == "the model failed on this recording: RuntimeError"
    assert (rows[1]["error"]["stage"], rows[1]["error"]["reason"]) == (EmitFailed.stage, EmitFailed.reason)


@pytest.mark.parametrize("answers", [[False], [True, False]])
def test_a_device_that_no_longer_computes_ends_the_process(monkeypatch: pytest.MonkeyPatch, answers: list[bool]) -> None:
    def end_worker() -> None:
        raise SystemExit

    monkeypatch.setattr(isolate, "end_worker", end_worker)
    rows: list[dict[str, Any]] = [{}, {}, {}]
    with pytest.raises(SystemExit):
        FailureIsolation("emit", EmitFailed, "the model", lambda: answers.pop(0)).run(fail, make_attempts(rows))
    assert rows == [{}, {}, {}]
    assert answers == []
