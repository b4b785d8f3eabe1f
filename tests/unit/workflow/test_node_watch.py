"""An operator learns which machine of the cluster is lost, and which has joined."""

from __future__ import annotations

import pytest

from dictalake import logs
from dictalake.workflow import node_watch
from dictalake.workflow.node_watch import NodeWatch


def test_a_lost_machine_and_one_that_joins_are_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_watch, "_LOOK_EVERY_S", 0.0)
    looks = [
        {"a": "10.0.0.1", "b": "10.0.0.2"},
        {"a": "10.0.0.1", "b": "10.0.0.2"},
        {"a": "10.0.0.1"},
        {"a": "10.0.0.1"},
        {"a": "10.0.0.1", "c": "10.0.0.2"},
    ]
    told: list[tuple[str, int | None]] = []

    def note(event: str, line: str, level: int | None = None, **fields: int) -> None:
        told.append((line.partition(";")[0], level))

    monkeypatch.setattr(logs, "log_event", note)
    watch = NodeWatch(iter(looks).__next__)
    for _ in looks[1:]:
        watch.time_passed()
    assert told == [
        ("machine 10.0.0.2 is lost, and others do its work", logs.WARNING),
        ("machine 10.0.0.2 has joined", None),
    ]


def test_ray_is_asked_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_watch, "_LOOK_EVERY_S", 1e9)
    looks: list[int] = []

    def look() -> dict[str, str]:
        looks.append(1)
        return {}

    watch = NodeWatch(look)
    watch.time_passed()
    watch.time_passed()
    assert len(looks) == 1
