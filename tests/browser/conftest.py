"""The demo lake, which tests of whole runs fill, for pages that show one."""

from __future__ import annotations

from tests.pipeline.conftest import demo_lake as demo_lake
