"""An operator learns which machine of the cluster is lost, and which has joined."""

from __future__ import annotations

import logging

import pytest

from dictalake.workflow import node_watch
from dictalake.workflow.node_watch import NodeWatch


def test_a_lost_machine_and_one_that_joins_are_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node_watch, "_LOOK_EVERY_S", 0.0)
    looks = [
        {"a": "10.0.0.1", "b": "10.0.0.2"},
        {"a": "10.0.0.1", "b": "10.0.0.2"},
        {"a": "10.0.0.1"},
        {"a": "10.0.0.1"},
        {"a": "10.0.0.1", "c": "10.0.0.2"},
    ]
    watch = NodeWatch(iter(looks).__next__)
    with caplog.at_level(logging.INFO, logger="dictalake"):
        for _ in looks[1:]:
            watch.time_passed()
    told = [(record.levelname, record.getMessage().partition(";")[0]) for record in caplog.records]
    assert told == [("WARNING", "machine 10.0.0.2 is lost, and others do its work"), ("INFO", "machine 10.0.0.2 has joined")]


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
