"""Keeps the emissions of labelled recordings on disk, so that a search for decoder settings runs the acoustic model once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dictalake.config.sections import Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Recording
from dictalake.workflow import columns
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load

REFERENCE = "reference"
_ARITHMETIC = 2  # raise it whenever the same model gives other emissions than before
_SCHEMA = pa.schema(
    [
        pa.field("recording_id", pa.string()),
        pa.field("reference", pa.string()),
        pa.field("duration_s", pa.float64()),
        pa.field("reason", pa.string()),
        *(pa.field(name, kind) for name, kind in columns.EMISSIONS.items()),
    ]
)


@dataclass(frozen=True)
class CachedEmissions:
    """One recording: its reference, if any, and the emissions of its channels. If it failed: no emissions, and a ``reason``."""

    recording_id: str
    reference: str | None
    channels: tuple[Emissions, ...]
    reason: str | None = None


def cache_emissions(
    config: Config,
    vocabulary: Vocabulary,
    recordings: Sequence[Recording],
    folder: Path,
    *,
    threads: int,
    model_sha256: str,
    on_done: Callable[[int], None] = lambda count: None,
) -> Path:
    """The Parquet file with the emissions of ``recordings`` under this acoustic configuration. It is made once and then reused.

    ``on_done`` gets the number of recordings that are done. A file appears whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"emissions-{_key(config, recordings, model_sha256)}.parquet"
    if path.exists():
        on_done(len(recordings))
        return path
    unfinished = path.with_suffix(".partial")
    load, emit = Load(config), Emit(config, vocabulary, threads)
    is_final = True
    with pq.ParquetWriter(unfinished, _SCHEMA) as writer:
        size = config.ray.block_rows
        for start in range(0, len(recordings), size):
            for loaded in load(columns.recordings_to_table(recordings[start : start + size])):
                emitted = emit(loaded)
                is_final &= not any(error and error["retryable"] for error in emitted["error"].to_pylist())
                writer.write_table(_select(emitted))
                on_done(len(loaded))
    # Retryable failures are not stored, so those recordings are retried next time.
    found = path if is_final else path.with_suffix(".incomplete.parquet")
    unfinished.replace(found)
    return found


def read_cache(path: Path) -> Iterator[CachedEmissions]:
    """The recordings that ``cache_emissions`` wrote, in order."""
    for group in pq.ParquetFile(path).iter_batches(batch_size=64):
        table = pa.Table.from_batches([group])
        for row, (recording_id, reference, reason) in enumerate(
            zip(*(table[name].to_pylist() for name in ("recording_id", "reference", "reason")), strict=True)
        ):
            channels = () if reason else tuple(columns.read_emissions(table, row))
            yield CachedEmissions(recording_id, reference, channels, reason)


def _select(emitted: pa.Table) -> pa.Table:
    references = [dict(metadata or ()).get(REFERENCE) for metadata in emitted["metadata"].to_pylist()]
    reasons = [error and error["reason"] for error in emitted["error"].to_pylist()]
    arrays = [
        emitted["recording_id"],
        pa.array(references, pa.string()),
        emitted["duration_s"],
        pa.array(reasons, pa.string()),
        emitted["emissions"],
    ]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _key(config: Config, recordings: Sequence[Recording], model_sha256: str) -> str:
    """A hash that changes with the references and with everything that changes the emissions."""
    parts = {
        "arithmetic": _ARITHMETIC,
        "model": model_sha256,
        "dtype": config.acoustic.dtype,
        "windows": config.windows.model_dump(),
        "pruning": [config.decoding.token_min_logp, config.decoding.collapse_blank],
        "recordings": [[r.recording_id, r.metadata.get(REFERENCE)] for r in recordings],
    }
    return sha256(json.dumps(parts).encode()).hexdigest()[:16]
