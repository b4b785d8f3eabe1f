"""What Ray's core tells a driver stays out of standard output, where a program reads our JSON."""

from __future__ import annotations

import sys
import time
from io import StringIO

import pytest
import ray
from ray._private.utils import publish_error_to_driver

from dictalake.workflow.plan import Resources


def test_a_warning_of_rays_core_never_reaches_standard_output(two_cpus: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = StringIO(), StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    publish_error_to_driver("worker_pool_large", "22 PYTHON worker processes", ray._private.worker.global_worker.gcs_client)
    give_up = time.monotonic() + 60
    while "22 PYTHON" not in out.getvalue() + err.getvalue() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert "22 PYTHON" in err.getvalue()
    assert out.getvalue() == ""
