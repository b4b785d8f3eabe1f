"""Observers get all events of a run, and never fail it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dictalake.errors import RunError
from dictalake.logs import console_handler
from dictalake.observers.base import Observer, RunEnd, observing


class Listener(Observer):
    """Records its events, and raises ``error`` at the end."""

    name = "listener"

    def __init__(self, error: BaseException | None = None) -> None:
        self.told: list[Any] = []
        self._error = error

    def step_started(self, step: str) -> None:
        self.told.append(step)

    def block_finished(self) -> None:
        self.told.append("block")

    def run_ended(self, end: RunEnd) -> None:
        self.told.append(end.state)
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RunError("the lake is gone"), "failed"),
        (ValueError("x"), "failed"),
        (KeyboardInterrupt(), "stopped"),
        (SystemExit(143), "stopped"),
    ],
)
def test_all_hear_how_a_run_ended(error: BaseException, state: str) -> None:
    listeners = [Listener(), Listener()]

    def run() -> None:
        with observing(listeners) as observers:
            observers.step_started("starting Ray")
            observers.block_finished()
            raise error

    with pytest.raises(type(error)):
        run()
    assert [one.told for one in listeners] == [["starting Ray", "block", state]] * 2


def test_an_observer_that_fails_costs_a_warning() -> None:
    shown, second = io.StringIO(), Listener()
    with console_handler(Console(file=shown, width=400)), observing([Listener(ValueError("Mary Smith.wav")), second]):
        pass
    assert second.told == ["finished"]
    assert shown.getvalue().startswith("listener: ValueError in test_base.py:")
    assert shown.getvalue().endswith("; the run continues without it\n")
    assert "Mary" not in shown.getvalue()


def test_a_run_that_is_stopped_while_it_ends_is_stopped_for_those_that_come_after() -> None:
    first, second = Listener(KeyboardInterrupt()), Listener()
    with pytest.raises(KeyboardInterrupt), observing([first, second]):
        pass
    assert (first.told, second.told) == (["finished"], ["stopped"])
