"""Stages that need no model, for tests of what happens around them: real Ray, real loading, real lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.config.sections import Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import EmitFailed
from dictalake.records import Emissions, Hypothesis
from dictalake.workflow import columns
from dictalake.workflow.stages.base import capture_row_error


class StubEmit:
    """Recognises silence everywhere, and fails on recordings whose name is in the file ``archive.storage_options.sick``
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
            with capture_row_error(recording_id, "emit", row):
                if names[index].rsplit("/", 1)[-1] in sick:
                    raise EmitFailed(recording_id, "the stub fails on this recording")
                channels = len(columns.read_waveforms(table, index))
                row |= {"emissions": [columns.emissions_to_row(self._silence()) for _ in range(channels)], "emit_ms": 0.0}
                row |= {"device": "stub", "dtype": "float32"}
        new_columns = {"error": columns.ERROR} | columns.EMITTED_COLUMNS | columns.EMISSIONS
        return columns.extend(table, new_columns, rows, drop=columns.WAVEFORMS)

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
                silent = [columns.hypothesis_to_row(Hypothesis((), 0.0, 0.0)) for _ in columns.read_emissions(table, index)]
                row |= {"hypotheses": silent, "alternatives": [[] for _ in silent], "decode_ms": 0.0}
        new_columns = {"error": columns.ERROR} | columns.DECODED_COLUMNS | columns.HYPOTHESES | columns.ALTERNATIVES
        return columns.extend(table, new_columns, rows, drop=columns.EMISSIONS)
