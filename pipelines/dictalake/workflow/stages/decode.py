"""The stage Decode: emissions → hypotheses, in an actor that holds the decoder and its language model."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from dictalake.acoustic.checkpoint import locate_decoding
from dictalake.config.sections import Config
from dictalake.decoding.base import open_prepared
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.workflow import columns
from dictalake.workflow.stages.base import DeferredResource, capture_row_error, redact_errors


class Decode:
    """Emissions → the best hypothesis of each channel, and with ``decoding.nbest`` alternatives."""

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        self._nbest = config.decoding.nbest
        self._opened = DeferredResource(lambda: open_prepared(locate_decoding(config), vocabulary))

    @redact_errors
    def __call__(self, table: pa.Table) -> pa.Table:
        decoder = self._opened.get()
        ids = table["recording_id"].to_pylist()
        rows: list[dict[str, Any]] = [{"error": error} for error in table["error"].to_pylist()]
        for index, row in enumerate(rows):
            if row["error"] is not None:
                continue
            started = time.perf_counter()
            with capture_row_error(ids[index], "decode", row):
                channels = [decoder.decode(channel, self._nbest) for channel in columns.read_emissions(table, index)]
                row["hypotheses"] = [columns.hypothesis_to_row(best) for best, *_ in channels]
                row["alternatives"] = [
                    [columns.hypothesis_to_row(one) for one in alternatives] for _, *alternatives in channels
                ]
            row["decode_ms"] = 1000 * (time.perf_counter() - started)
        new_columns = {"error": columns.ERROR} | columns.DECODED_COLUMNS | columns.HYPOTHESES | columns.ALTERNATIVES
        return columns.extend(table, new_columns, rows, drop=columns.EMISSIONS)
