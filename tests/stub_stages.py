"""Stages that need no model, for tests of what happens around them: real Ray, real loading, real lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import blocks
from pipelines.boundary import guard
from pipelines.config import Config
from pipelines.decoding.vocabulary import Vocabulary
from pipelines.errors import EmitFailed
from pipelines.records import Emissions, Hypothesis


class StubEmit:
    """Hears silence in everything, and fails on recordings whose name stands in the file ``archive.storage_options.sick``
    (which local files do not look at)."""

    def __init__(self, config: Config, vocabulary: Vocabulary, threads: int) -> None:
        self._width, self._sick = 64, config.archive.storage_options.get("sick")

    def __call__(self, table: pa.Table) -> pa.Table:
        sick = Path(self._sick).read_text(encoding="utf-8").split() if self._sick else []
        rows: list[dict[str, Any]] = [{"error": error} for error in table["error"].to_pylist()]
        names = table["uri"].to_pylist()
        for index, row in enumerate(rows):
            if row["error"] is not None:
                continue
            recording_id = table["recording_id"][index].as_py()
            with guard(recording_id, "emit", row):
                if names[index].rsplit("/", 1)[-1] in sick:
                    raise EmitFailed(recording_id, "the stub fails on this recording")
                channels = len(blocks.read_waveforms(table, index))
                row |= {"emissions": [blocks.emissions_to_row(self._silence()) for _ in range(channels)], "emit_ms": 0.0}
                row |= {"device": "stub", "dtype": "float32"}
        columns = {"error": blocks.ERROR} | blocks.EMITTED_COLUMNS | blocks.EMISSIONS
        return blocks.extend(table, columns, rows, drop=blocks.WAVEFORMS)

    def _silence(self) -> Emissions:
        nothing = np.zeros(1, dtype=np.float32)
        return Emissions(1, self._width, np.zeros(1, np.int32), np.array([0, 1]), np.zeros(1, np.uint16), nothing)


class StubDecode:
    """Says nothing to anything."""

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        pass

    def __call__(self, table: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = [{"error": error} for error in table["error"].to_pylist()]
        for index, row in enumerate(rows):
            if row["error"] is None:
                silent = [blocks.hypothesis_to_row(Hypothesis((), 0.0, 0.0)) for _ in blocks.read_emissions(table, index)]
                row |= {"hypotheses": silent, "others": [[] for _ in silent], "decode_ms": 0.0}
        columns = {"error": blocks.ERROR} | blocks.DECODED_COLUMNS | blocks.HYPOTHESES | blocks.OTHERS
        return blocks.extend(table, columns, rows, drop=blocks.EMISSIONS)
